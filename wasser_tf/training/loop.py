"""One phase of a training run, standard or adversarial: what is left of it, from its checkpoint on."""

import pathlib
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import data, models
from wasser_tf.attacks import Attack, MirrorAscent
from wasser_tf.data import Dataset, augmentation
from wasser_tf.models.logits import compile_whole_graph
from wasser_tf.runtime import interruption
from wasser_tf.training import loss, optimizer, run_folder
from wasser_tf.training.callbacks import EpochTable, RobustValidation
from wasser_tf.training.checkpoint import Checkpoint
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.moving_average import WeightAverage
from wasser_tf.training.nan_guard import StopWhenNotFinite

# Enough to choose an epoch by; the report's attack has more.
_VALIDATION_ITERATIONS = 20


def classifier_of(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """Returns the classifier that the config describes, untrained or from its file; equal calls give equal ones."""
    if config.initial is None:
        built = models.build(
            config.model, dataset.image_shape, dataset.num_classes, seed=config.seed, width=config.width
        )
        return models.blurred(built, config.blur)
    loaded = models.load_classifier(config.initial)
    if not isinstance(loaded, keras.Model):
        raise ValueError(f"{config.initial} must hold a Keras model to be trained on, got a SavedModel.")
    needed = ((None, *dataset.image_shape), (None, dataset.num_classes))
    if (loaded.input_shape, loaded.output_shape) != needed or models.returns_logits(loaded) is not True:
        raise ValueError(
            f"{config.initial} must take images of {dataset.image_shape} to {dataset.num_classes} logits, as "
            f"{config.dataset} has them; it takes {loaded.input_shape[1:]} to {loaded.output_shape[1:]}."
        )
    if models.canonical_of(loaded, dataset.image_shape) is not loaded:
        raise ValueError(
            f"{config.initial} takes pixels in another range, order or type than float [0, 1], channels last: put the "
            "conversion inside, or train it in Python with wasser_tf.WasserTrain(wasser_tf.Classifier(model, …), …)."
        )
    loaded.trainable = True
    return models.blurred(loaded, config.blur)


def validation_attack(config: TrainConfig) -> Attack:
    """Returns what attacks validation images."""
    usual = MirrorAscent(config.threat_model, iterations=_VALIDATION_ITERATIONS, seed=config.seed)
    return config.validation_attack or usual


class Prepared(NamedTuple):
    """What a phase trains with, and where it stands.

    Attributes:
      kept: What is validated, chosen and left behind: the classifier, or the one of averaged weights.
      average: What moves the averaged weights, if there are any.
      augment: What changes training images, if anything does.
      checkpoint: Where the run stands and is saved; the chief's alone.
    """

    kept: keras.Model
    average: WeightAverage | None
    augment: augmentation.Augmentation | None
    checkpoint: Checkpoint | None


def prepare(
    phase: str,
    trained: keras.Model,
    classifier: keras.Model,
    config: TrainConfig,
    dataset: Dataset,
    distribution: Distribution,
    folder: pathlib.Path | None = None,
) -> Prepared:
    """Compiles the model of a phase and brings it to where its checkpoint, if there is one, stands."""
    adversarial = trained is not classifier
    epochs = config.epochs if adversarial else config.standard_epochs
    steps = len(dataset.train.labels) // config.batch_size
    kept, average = classifier, None
    if config.ema_momentum:
        with distribution.scope():
            kept = classifier_of(config, dataset)
            kept.set_weights(classifier.get_weights())
        average = WeightAverage(classifier, kept, config.ema_momentum)
    jit_compile = config.jit_compile
    if jit_compile == "auto" and distribution.strategy is None and compile_whole_graph(classifier):
        # Keras' auto leaves XLA out wherever operations shall be deterministic.
        jit_compile = True
    # Layers that are random take their seeds from here when they have none of their own.
    keras.utils.set_random_seed(config.seed)
    with distribution.scope():
        trained.compile(
            optimizer.make_optimizer(config, epochs * steps),
            loss.make_loss(config.label_smoothing),
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )
        trained.optimizer.build(trained.trainable_variables)
    checkpoint = None
    if folder is not None:
        checkpoint = Checkpoint(
            folder / run_folder.CHECKPOINTS / f"{phase}.npz",
            trained,
            kept,
            config.omega if adversarial else 0.0,
            keep_last=config.keep == "last",
            within_epochs=distribution.strategy is None,
        )
    return Prepared(kept, average, augmentation.make_augmentation(config.augment, dataset.image_shape), checkpoint)


def train(
    phase: str,
    trained: keras.Model,
    classifier: keras.Model,
    config: TrainConfig,
    dataset: Dataset,
    distribution: Distribution,
    folder: pathlib.Path | None = None,
    history: list[dict[str, Any]] | None = None,
    title: str | None = None,
) -> int:
    """Trains one phase, or what is left of it; the classifier ends with its best weights. Returns the best epoch.

    Folder and history are the chief's; the other workers have neither. Lines of progress call the phase by the title.
    """
    title = title or phase
    adversarial = trained is not classifier
    epochs = config.epochs if adversarial else config.standard_epochs
    kept, average, augment, checkpoint = prepare(
        phase, trained, classifier, config, dataset, distribution, folder if history is not None else None
    )
    follower = data.EpochFollower()
    callbacks: list[keras.callbacks.Callback] = [follower]
    if average:
        callbacks.append(average)
    if checkpoint and folder is not None and history is not None:
        callbacks.append(_finite(phase, config, dataset, augment, folder, checkpoint.steps_done))
        callbacks += [_validation(kept, config, dataset, adversarial), EpochTable(epochs), checkpoint]
        earlier = list(history)

        def write(*_: Any) -> None:
            history[:] = [*earlier, *({"phase": phase, **row} for row in checkpoint.history)]
            run_folder.write_history(folder, history)

        write()
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=write))
    else:
        callbacks.append(
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: interruption.raise_if_requested())
        )
    at = [checkpoint.epochs_done, checkpoint.steps_done] if checkpoint else [0, 0]
    done, steps_done = (int(value) for value in distribution.share(at))
    averages = [] if kept is classifier else kept.variables
    distribution.synchronize([*trained.variables, *trained.optimizer.variables, *averages])
    if checkpoint:
        before = f", of which {done} were done before" + (f", and {steps_done} steps" if steps_done else "")
        log(f"\n{title}: {epochs} epochs" + (before if done or steps_done else ""))
        if adversarial and done < epochs:
            log("The first step is compiled, which can take a minute or two.")
    if done < epochs:
        # Without the smaller last batch: one shape, one compilation.
        batches = data.batches(
            dataset.train,
            config.batch_size,
            shuffle=True,
            seed=config.seed,
            epoch=follower,
            drop_remainder=True,
            augment=augment,
            numbered=adversarial and config.warm_start > 0,
        )
        if steps_done:
            # The rest of the epoch that the run was stopped in, whose metrics go on too.
            distribution.make_variables(trained, batches)
            rest = batches.skip(steps_done)
            distribution.fit(trained, rest, epochs=done + 1, initial_epoch=done, callbacks=callbacks)
            done += 1
        if done < epochs:
            distribution.fit(trained, batches, epochs=epochs, initial_epoch=done, callbacks=callbacks)
    if checkpoint:
        checkpoint.restore_best()
        if checkpoint.best_epoch:
            why = "is the best on the validation split" if config.keep == "best" else "is the last"
            log(f"{title}: epoch {checkpoint.best_epoch} is kept, which {why}")
    if kept is not classifier:
        classifier.set_weights(kept.get_weights())
    distribution.synchronize(classifier.variables)
    return checkpoint.best_epoch if checkpoint else 0


def _validation(
    classifier: keras.Model, config: TrainConfig, dataset: Dataset, adversarial: bool
) -> keras.callbacks.Callback:
    return RobustValidation(
        classifier,
        dataset.validation,
        validation_attack(config) if adversarial else None,
        radius=config.middle_radius,
        num_attack_examples=config.num_attack_examples,
    )


def _finite(
    phase: str,
    config: TrainConfig,
    dataset: Dataset,
    augment: augmentation.Augmentation | None,
    folder: pathlib.Path,
    first_step: int,
) -> keras.callbacks.Callback:
    """The callback that stops at numbers that are not finite; the batch is found again by its number."""
    train = dataset.train

    def batch(epoch: int, step: int) -> dict[str, np.ndarray]:
        order = data.epoch_order(len(train.labels), config.seed, epoch)
        rows = order[step * config.batch_size : (step + 1) * config.batch_size]
        images = train.images[rows]
        if augment is not None:
            images = augment(tf.constant(images), data.step_seed(config.seed, epoch, step)).numpy()
        return {
            "image": images,
            "label": train.labels[rows],
            "index": train.index[rows],
            "phase": np.array(phase),
        }

    return StopWhenNotFinite(folder / run_folder.NOT_FINITE, batch, first_step=first_step)


def log(message: str) -> None:
    """Prints a line at once, wherever the output goes."""
    print(message, flush=True)
