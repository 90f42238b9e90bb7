"""The training loop of a run's two phases, standard training and WasserTrain, each resumed from its checkpoint."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import data, models
from wasser_tf.attacks import Attack, MirrorAscent
from wasser_tf.data import Dataset, augmentation
from wasser_tf.data.streaming import is_streamed, report_unreadable
from wasser_tf.models.logits import compile_whole_graph
from wasser_tf.models.provable import project_potentials
from wasser_tf.runtime import interruption
from wasser_tf.runtime.progress import show_progress
from wasser_tf.training import loss, optimizer, run_folder
from wasser_tf.training.callbacks import CertifiedValidation, EpochTable, RobustValidation
from wasser_tf.training.certified_phase import certified_classifier_of
from wasser_tf.training.certified_train import CertifiedTrain
from wasser_tf.training.checkpoint import Checkpoint
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.moving_average import WeightAverage
from wasser_tf.training.nan_guard import StopWhenNotFinite
from wasser_tf.training.wasser_train import WasserTrain

# Enough to select an epoch. The report's attack has more.
_VALIDATION_ITERATIONS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """What the phases of a training run share.

    Attributes:
      config: The settings of the run.
      dataset: The dataset.
      distribution: The distribution (default: one device).
      folder: The output folder, or None for workers other than the chief.
      history: The rows of history.csv; `train` updates it.
    """

    config: TrainConfig
    dataset: Dataset
    distribution: Distribution = dataclasses.field(default_factory=Distribution)
    folder: pathlib.Path | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of an epoch. A smaller last batch is dropped."""
        return len(self.dataset.train.labels) // self.config.batch_size

    def epochs_of(self, trained: keras.Model) -> int:
        """Returns the number of epochs of the phase that trains a model."""
        epochs = {WasserTrain: self.config.epochs, CertifiedTrain: self.config.certified_epochs}
        return epochs.get(type(trained), self.config.standard_epochs)


def classifier_of(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """Builds or loads the classifier that a config describes.

    Args:
      config: The settings of the run.
      dataset: The dataset, whose image shape and number of classes the classifier must have.

    Returns:
      The classifier, from images [B, H, W, C] to logits [B, classes], with new weights or those of `config.initial`.
      Equal arguments give equal weights.

    Raises:
      ValueError: `config.initial` cannot be loaded, or is a classifier of other images or without logits.
    """
    if config.initial is None:
        built = models.build(
            config.model, dataset.image_shape, dataset.num_classes, seed=config.seed, width=config.width
        )
        return models.blurred(built, config.blur)
    loaded = models.load_classifier(config.initial)
    if not isinstance(loaded, keras.Model):
        raise ValueError(f"{config.initial} is not a Keras model and cannot be trained: give a .keras file.")
    needed = ((None, *dataset.image_shape), (None, dataset.num_classes))
    if (loaded.input_shape, loaded.output_shape) != needed or models.returns_logits(loaded) is not True:
        raise ValueError(
            f"{config.initial} must take images of {dataset.image_shape} to {dataset.num_classes} logits for the "
            f"dataset {config.dataset}, got a classifier from {loaded.input_shape[1:]} to {loaded.output_shape[1:]}."
        )
    if models.canonical_of(loaded, dataset.image_shape) is not loaded:
        raise ValueError(
            f"{config.initial} takes pixels in another range, order or type than float [0, 1], channels last: put the "
            "conversion inside, or train it in Python with wasser_tf.WasserTrain(wasser_tf.Classifier(model, …), …)."
        )
    loaded.trainable = True
    if config.precision != "float32":
        loaded = models.with_precision(loaded, config.precision)
    return models.blurred(loaded, config.blur)


def validation_attack(config: TrainConfig) -> Attack:
    """Returns the attack on validation images, by default mirror ascent with 20 iterations."""
    default = MirrorAscent(config.threat_model, iterations=_VALIDATION_ITERATIONS, seed=config.seed)
    return config.validation_attack or default


class Prepared(NamedTuple):
    """A phase that is ready to be trained, at the position of its checkpoint.

    Attributes:
      kept: The classifier that is validated, selected and returned: the trained one, or that of averaged weights.
      average: The callback that updates the averaged weights, or None.
      augment: The augmentation of training images, or None.
      checkpoint: The callback that saves the phase; None for workers other than the chief.
    """

    kept: keras.Model
    average: WeightAverage | None
    augment: augmentation.Augmentation | None
    checkpoint: Checkpoint | None


def prepare(context: TrainingContext, phase: str, trained: keras.Model) -> Prepared:
    """Compiles the model of a phase and restores it from the checkpoint of the phase, if there is one.

    Args:
      context: The run.
      phase: The name of the phase, "standard", "wasser_train" or "certified", which names the checkpoint.
      trained: The model to train: a classifier, a `WasserTrain` or a `CertifiedTrain`.

    Raises:
      ValueError: The checkpoint cannot be read, or belongs to another model.
    """
    config, dataset, distribution = context.config, context.dataset, context.distribution
    classifier = trained.classifier if isinstance(trained, (WasserTrain, CertifiedTrain)) else trained
    kept, average = classifier, None
    if config.ema_momentum:
        with distribution.scope():
            kept = (certified_classifier_of if isinstance(trained, CertifiedTrain) else classifier_of)(config, dataset)
            kept.set_weights(classifier.get_weights())
        average = WeightAverage(classifier, kept, config.ema_momentum)
    jit_compile = config.jit_compile
    if jit_compile == "auto" and distribution.strategy is None and compile_whole_graph(classifier):
        # Keras' "auto" does not use XLA if operations must be deterministic.
        jit_compile = True
    # Random layers without a seed of their own take one from here.
    keras.utils.set_random_seed(config.seed)
    with distribution.scope():
        trained.compile(
            optimizer.make_optimizer(config, context.epochs_of(trained) * context.steps_per_epoch),
            loss.make_loss(config.label_smoothing),
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )
        trained.optimizer.build(trained.trainable_variables)
    checkpoint = None
    if context.folder is not None:
        checkpoint = Checkpoint(
            context.folder / run_folder.CHECKPOINTS / f"{phase}.npz",
            trained,
            kept,
            0.0 if trained is classifier else config.omega,
            keep_last=config.keep == "last",
            within_epochs=distribution.strategy is None,
        )
    return Prepared(kept, average, augmentation.make_augmentation(config.augment, dataset.image_shape), checkpoint)


def train(context: TrainingContext, phase: str, trained: keras.Model, *, title: str | None = None) -> int:
    """Trains a phase from its checkpoint to its end. The classifier then has the weights of the best epoch.

    All workers must call it.

    Args:
      context: The run.
      phase: The name of the phase ("standard", "wasser_train" or "certified"), its checkpoint and rows in the history.
      trained: The model to train: a classifier, a `WasserTrain` or a `CertifiedTrain`.
      title: The name of the phase in the output (default: `phase`).

    Returns:
      The epoch whose weights are kept, from 1; 0 without an epoch, and for workers other than the chief.

    Raises:
      ValueError: The checkpoint does not fit, or a loss, gradient or weight is not finite.
      wasser_tf.runtime.interruption.Interrupted: The run was asked to stop; its checkpoint is saved.
    """
    title = title or phase
    config, distribution, epochs = context.config, context.distribution, context.epochs_of(trained)
    classifier = trained.classifier if isinstance(trained, (WasserTrain, CertifiedTrain)) else trained
    prepared = prepare(context, phase, trained)
    kept, checkpoint = prepared.kept, prepared.checkpoint
    follower = data.EpochFollower()
    callbacks = [follower, *_callbacks(context, phase, trained, prepared)]
    position = [checkpoint.epochs_done, checkpoint.steps_done] if checkpoint else [0, 0]
    done, steps_done = (int(value) for value in distribution.share(position))
    averages = [] if kept is classifier else kept.variables
    distribution.synchronize([*trained.variables, *trained.optimizer.variables, *averages])
    if checkpoint:
        before = f", of which {done} were done before" + (f", and {steps_done} steps" if steps_done else "")
        log(f"\n{title}: {epochs} epochs" + (before if done or steps_done else ""))
        if trained is not classifier and done < epochs:
            log("The first step is compiled, which can take a minute or two.")
    if done < epochs:
        make = functools.partial(
            data.batches,
            context.dataset.train,
            config.batch_size,
            shuffle=True,
            seed=config.seed,
            epoch=follower,
            # One shape, and so one compilation.
            drop_remainder=True,
            augment=prepared.augment,
            numbered=isinstance(trained, WasserTrain) and config.warm_start > 0,
        )
        with report_unreadable(context.dataset.train.images):
            # Workers with the set in memory pass through all of it.
            shared = is_streamed(context.dataset.train.images)
            distribution.fit_from(trained, make, steps_done, shared, epochs=epochs, done=done, callbacks=callbacks)
    if checkpoint:
        checkpoint.restore_best()
        if checkpoint.best_epoch:
            why = "the best on the validation split" if config.keep == "best" else "the last"
            log(f"{title}: epoch {checkpoint.best_epoch} is kept, which is {why}")
    if kept is not classifier:
        classifier.set_weights(kept.get_weights())
        # An average of potentials may exceed Lip = 1.
        project_potentials(classifier)
    distribution.synchronize(classifier.variables)
    return checkpoint.best_epoch if checkpoint else 0


def _callbacks(
    context: TrainingContext, phase: str, trained: keras.Model, prepared: Prepared
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of a phase, in the order in which they must be called."""
    callbacks: list[keras.callbacks.Callback] = [] if prepared.average is None else [prepared.average]
    folder, checkpoint = context.folder, prepared.checkpoint
    if folder is None or checkpoint is None:
        asked = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: interruption.raise_if_requested())
        return [*callbacks, asked]
    earlier = list(context.history)

    def write(*_: Any) -> None:
        context.history[:] = [*earlier, *({"phase": phase, **row} for row in checkpoint.history)]
        run_folder.write_history(folder, context.history)

    write()
    return [
        *callbacks,
        _nan_guard(context, phase, prepared.augment, checkpoint.steps_done),
        _validation(context, trained, prepared.kept),
        EpochTable(context.epochs_of(trained)),
        checkpoint,
        keras.callbacks.LambdaCallback(on_epoch_end=write),
    ]


def _validation(context: TrainingContext, trained: keras.Model, kept: keras.Model) -> keras.callbacks.Callback:
    if isinstance(trained, CertifiedTrain):
        ball = context.config.threat_model.with_epsilon(context.config.middle_radius)
        return CertifiedValidation(kept, context.dataset.validation, ball)
    return RobustValidation(
        kept,
        context.dataset.validation,
        validation_attack(context.config) if isinstance(trained, WasserTrain) else None,
        radius=context.config.middle_radius,
        num_attack_examples=context.config.num_attack_examples,
        verbose=True,
    )


def _nan_guard(
    context: TrainingContext, phase: str, augment: augmentation.Augmentation | None, first_step: int
) -> keras.callbacks.Callback:
    """Returns the callback that stops at numbers that are not finite; it recomputes the batch from its number."""
    if context.folder is None:
        raise ValueError("A NaN guard needs a folder for the batch, got a context without one.")
    config, train_split = context.config, context.dataset.train

    def batch(epoch: int, step: int) -> dict[str, np.ndarray]:
        order = data.epoch_order(len(train_split.labels), config.seed, epoch)
        rows = order[step * config.batch_size : (step + 1) * config.batch_size]
        images = train_split.images[rows]
        if augment is not None:
            images = augment(tf.constant(images), data.step_seed(config.seed, epoch, step)).numpy()
        return {
            "image": images,
            "label": train_split.labels[rows],
            "index": train_split.index[rows],
            "phase": np.array(phase),
        }

    return StopWhenNotFinite(context.folder / run_folder.NOT_FINITE, batch, first_step=first_step)


def log(message: str) -> None:
    """Prints a line at once, also into a file or a pipe, unless progress is turned off."""
    show_progress(message)
