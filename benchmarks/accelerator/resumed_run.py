"""Where a run of bin/train.py stands: its models, compiled, and its data, as the run itself would have them next."""

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
      context: The settings, the dataset and the folder of the run.
      phase: The name of the phase that it is in.
      trained: The compiled model of that phase.
      prepared: The other parts of that phase.
    """

    context: loop.TrainingContext
    phase: str
    trained: keras.Model
    prepared: loop.Prepared

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        return self.context.config

    @property
    def dataset(self) -> Dataset:
        """The dataset of the run."""
        return self.context.dataset

    @property
    def epochs(self) -> int:
        """The number of epochs of the phase."""
        return self.context.epochs_of(self.trained)


def resumed_run(run: pathlib.Path) -> ResumedRun:
    """Reads a run's folder, which must hold the end of its standard training or a checkpoint within it."""
    metadata = storage.read_json(run / run_folder.CONFIG)
    # XLA has no reproducible gradient of max pooling on GPUs.
    place = {"output_dir": str(run), "data_dir": metadata["data_dir"], "resume": True, "deterministic": False}
    given = {**metadata["config"], **place}
    for name in ("attack", "validation_attack"):
        given[name] = given[name] and attacks.deserialize(given[name])
    config = TrainConfig(**given)
    distribution = train.prepare_process(config)
    dataset = train.load_dataset(config, distribution)
    first, robust = train.build_models(config, dataset, distribution)
    context = loop.TrainingContext(config=config, dataset=dataset, distribution=distribution, folder=run)
    standard = run / run_folder.STANDARD
    if not standard.exists():
        return ResumedRun(context, "standard", first, loop.prepare(context, "standard", first))
    robust.classifier.set_weights(keras.models.load_model(standard).get_weights())
    return ResumedRun(context, "wasser_train", robust, loop.prepare(context, "wasser_train", robust))
