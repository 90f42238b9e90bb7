"""The models of certified training in a run: the classifier that a config describes, and CertifiedTrain around it."""

import keras

from wasser_tf.data import Dataset
from wasser_tf.models.provable import adapt_potentials, build_provable
from wasser_tf.training.certified_train import CertifiedTrain
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.schedules import LinearRamp, Schedule

# Training images to which the biases of potentials are adapted.
_ADAPTED = 4000


def certified_classifier_of(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """Builds the classifier of CertifiedTrain, with its biases adapted to training images.

    Args:
      config: The settings of the run.
      dataset: The dataset.

    Returns:
      The classifier. Equal arguments give equal weights.
    """
    classifier = build_provable(
        dataset.image_shape,
        dataset.num_classes,
        config.threat_model,
        potentials=config.potentials,
        hidden=(config.hidden_units, config.hidden_units),
        seed=config.seed,
    )
    adapt_potentials(classifier, dataset.train.images[:_ADAPTED], config.seed)
    return classifier


def certified_schedule(config: TrainConfig, name: str) -> Schedule:
    """Returns the schedule of "epsilon", "kappa" or "exponent" in CertifiedTrain."""
    half = config.certified_epochs / 2
    if name == "exponent":
        return LinearRamp(0.0, config.certified_exponent, epochs=half)
    given = config.schedule_of("certified" if name == "epsilon" else name)
    if given is not None:
        return given
    if name == "kappa":
        return LinearRamp(1.0, config.kappa, epochs=half)
    return LinearRamp(0.0, config.certified_epsilon or config.threat_model.epsilon, epochs=half)


def build_certified(config: TrainConfig, dataset: Dataset, distribution: Distribution) -> CertifiedTrain | None:
    """Builds CertifiedTrain around a new classifier of transport potentials; None unless `config.certified` is set.

    Args:
      config: The configuration of the run.
      dataset: The dataset.
      distribution: The distribution strategy.
    """
    if not config.certified:
        return None
    with distribution.scope():
        return CertifiedTrain(
            certified_classifier_of(config, dataset),
            config.threat_model,
            certified_schedule(config, "kappa"),
            epsilon=certified_schedule(config, "epsilon"),
            exponent=certified_schedule(config, "exponent") if config.certified_exponent else 0.0,
            random_radius=config.certified_random_radius,
            box_fraction=config.box_fraction,
            steps_per_epoch=len(dataset.train.labels) // config.batch_size,
            name="certified_train",
        )
