"""Restores an interrupted run of bin/train.py: its compiled models and its data, in the state of the next step."""

import dataclasses
import pathlib

import keras

from wasser_tf import attacks
from wasser_tf.data import Dataset
from wasser_tf.runs import train
from wasser_tf.runtime import storage
from wasser_tf.training import loop, run_folder
from wasser_tf.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class ResumedRun:
    """A run that was stopped.

    Attributes:
      phase: The name of the phase it is in.
      epochs: How many epochs that has.
      trained: The compiled model whose steps are taken.
      prepared: What the phase trains with.
    """

    config: TrainConfig
    dataset: Dataset
    phase: str
    epochs: int
    trained: keras.Model
    prepared: loop.Prepared


def resumed_run(run: pathlib.Path) -> ResumedRun:
    """Reads a run's folder, which must contain standard.keras or a checkpoint of the standard training."""
    metadata = storage.read_json(run / run_folder.CONFIG)
    # deterministic=False, because XLA has no reproducible gradient of max pooling on GPUs.
    overrides = {"output_dir": str(run), "data_dir": metadata["data_dir"], "resume": True, "deterministic": False}
    given = {**metadata["config"], **overrides}
    for name in ("attack", "validation_attack"):
        given[name] = given[name] and attacks.deserialize(given[name])
    config = TrainConfig(**given)
    distribution = train.prepare_process(config)
    dataset = train.load_dataset(config, distribution)
    first, robust = train.build_models(config, dataset, distribution)
    standard = run / run_folder.STANDARD
    if not standard.exists():
        prepared = loop.prepare("standard", first, first, config, dataset, distribution, run)
        return ResumedRun(config, dataset, "standard", config.standard_epochs, first, prepared)
    robust.classifier.set_weights(keras.models.load_model(standard).get_weights())
    prepared = loop.prepare("wasser_train", robust, robust.classifier, config, dataset, distribution, run)
    return ResumedRun(config, dataset, "wasser_train", config.epochs, robust, prepared)
