"""Where a run of bin/train.py stands: its models, compiled, and its data, as the run itself would have them next."""

import dataclasses
import pathlib

import keras

from wasser_tf import attacks, pipeline, storage
from wasser_tf.data import Dataset
from wasser_tf.training import phase, run_folder
from wasser_tf.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Standing:
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
    prepared: phase.Prepared


def standing(run: pathlib.Path) -> Standing:
    """Reads a run's folder, which must hold the end of its standard training or a checkpoint within it."""
    about = storage.read_json(run / run_folder.CONFIG)
    # XLA has no reproducible gradient of max pooling on GPUs.
    place = {"output_dir": str(run), "data_dir": about["data_dir"], "resume": True, "deterministic": False}
    given = {**about["config"], **place}
    for name in ("attack", "validation_attack"):
        given[name] = given[name] and attacks.deserialize(given[name])
    config = TrainConfig(**given)
    distribution = pipeline.prepare_process(config)
    dataset = pipeline.load(config, distribution)
    first, robust = pipeline.build(config, dataset, distribution)
    standard = run / run_folder.STANDARD
    if not standard.exists():
        prepared = phase.prepare("standard", first, first, config, dataset, distribution, run)
        return Standing(config, dataset, "standard", config.standard_epochs, first, prepared)
    robust.classifier.set_weights(keras.models.load_model(standard).get_weights())
    prepared = phase.prepare("wasser_train", robust, robust.classifier, config, dataset, distribution, run)
    return Standing(config, dataset, "wasser_train", config.epochs, robust, prepared)
