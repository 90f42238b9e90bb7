"""What bin/train.py does: a standard classifier, WasserTrain from it, and both under attack, in one folder.

A run that was killed goes on where its last epoch ended, one that was asked to stop after the batch it was at, and both
end as if they had not been: weights, optimiser, the states of random seeds and the best weights so far are in a
checkpoint, and the order of the data is a function of seed and epoch.
"""

import pathlib
import platform
import sys
import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import wasser_tf
from wasser_tf import augmentation, data, interruption, models, provenance, storage
from wasser_tf.attacks import MirrorAscent
from wasser_tf.data import Dataset, Split
from wasser_tf.evaluation import comparison
from wasser_tf.saved_model import exporting
from wasser_tf.training import optimizer, run_folder
from wasser_tf.training.averaging import WeightAverage
from wasser_tf.training.callbacks import EpochTable, RobustValidation
from wasser_tf.training.checkpoint import Checkpoint
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.finite import StopWhenNotFinite
from wasser_tf.training.wasser_train import WasserTrain

# Enough to choose an epoch by; the report's attack has more.
_VALIDATION_ITERATIONS = 20
# With these, mirror ascent leaves within a point of what the whole ensemble leaves (docs/results/attacks_mnist.md).
_REPORT_RESTARTS = 6


class Finished(NamedTuple):
    """What a run ends with.

    Attributes:
      classifier: The best WasserTrain classifier, by the validation split.
      compared: The standard classifier and it under attack, on the test split.
      figures: The pictures.
    """

    classifier: keras.Model
    compared: comparison.Comparison
    figures: list[pathlib.Path]


def prepare_process(config: TrainConfig) -> Distribution:
    """Sets what holds for the whole process: devices, reproducible operations. Call it before TensorFlow is used.

    Raises:
      ValueError: The environment does not suit `config.distribute`.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        # Otherwise TensorFlow takes all of its memory.
        tf.config.experimental.set_memory_growth(gpu, True)
    distribution = Distribution(config.distribute)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.precision)
    return distribution


def run(config: TrainConfig, distribution: Distribution | None = None) -> Finished | None:
    """Trains, compares and writes everything into the output_dir.

    Args:
      config: The run. Its precision is that of the process, see `prepare_process`.
      distribution: What `prepare_process` returned; one device by default.

    Returns:
      What the run ends with; None for workers that are not the chief, which neither read nor write the output_dir.

    Raises:
      ValueError: The output_dir holds another run, another run writes into it, or the dataset is not there; nothing was
        written.
      ConnectionError: Another worker was lost.
      OSError: The output_dir cannot be written to; what was there before is whole.
      wasser_tf.interruption.Interrupted: The run was asked to stop, and can be resumed.
    """
    distribution = distribution or Distribution()
    with distribution.lost_workers_told():
        if distribution.is_chief:
            return _lead(config, distribution)
        _follow(config, distribution)
        return None


def _lead(config: TrainConfig, distribution: Distribution) -> Finished:
    started = time.monotonic()
    folder = pathlib.Path(config.output_dir).expanduser()
    run_folder.check(folder, config)
    dataset = _load(config, distribution)
    first, robust = _build(config, dataset, distribution)
    # Not compiled, so that its file, as that of the other, holds no optimiser.
    standard = _classifier(config, dataset)
    storage.make_folder(folder)
    with storage.locked(folder):
        # Once more, for a run may have begun and ended here since.
        run_folder.check(folder, config)
        run_folder.clear(folder, config)
        storage.write_json(folder / run_folder.CONFIG, _about(config))
        _say(f"Devices: {', '.join(device.name for device in tf.config.list_logical_devices())}")
        if distribution.num_replicas > 1:
            _say(f"{distribution.num_replicas} replicas, {config.batch_size // distribution.num_replicas} images each")
        _say(f"{dataset.name}: {', '.join(f'{len(getattr(dataset, key).labels)} {key}' for key in data.SPLITS)} images")
        _say(config.attack.ball())
        history: list[dict[str, Any]] = []
        _train("standard", first, first, config, dataset, distribution, folder, history)
        standard.set_weights(first.get_weights())
        robust.classifier.set_weights(first.get_weights())
        _save(standard, folder / run_folder.STANDARD)
        best_epoch = _train("wasser_train", robust, robust.classifier, config, dataset, distribution, folder, history)
        _save(robust.classifier, folder / run_folder.BEST)
        _export(robust.classifier, folder / run_folder.SAVED_MODEL)
        compared = _compare(standard, robust.classifier, config, dataset)
        drawn = comparison.save_figures(folder, compared, config.middle_radius, dataset.class_names)
        about = {**_about(config), "best_epoch": best_epoch, "seconds": round(time.monotonic() - started, 1)}
        comparison.save_report(folder, compared, about, _introduction(config, best_epoch))
    distribution.share([0])
    return Finished(robust.classifier, compared, drawn)


def _follow(config: TrainConfig, distribution: Distribution) -> None:
    """Does the part of a worker that is not the chief."""
    dataset = _load(config, distribution)
    first, robust = _build(config, dataset, distribution)
    _train("standard", first, first, config, dataset, distribution)
    robust.classifier.set_weights(first.get_weights())
    _train("wasser_train", robust, robust.classifier, config, dataset, distribution)
    # Until the chief is through: a worker that leaves alarms the others.
    distribution.share([0])


def _load(config: TrainConfig, distribution: Distribution) -> Dataset:
    dataset = data.load(config.dataset, data_dir=config.data_dir, download=config.download)
    if config.batch_size > len(dataset.train.labels):
        raise ValueError(f"batch_size must be at most the {len(dataset.train.labels)} training images.")
    if config.batch_size % distribution.num_replicas:
        raise ValueError(
            f"batch_size is that of all replicas together and must be a multiple of their number, "
            f"{distribution.num_replicas}, got {config.batch_size}."
        )
    augmentation.make(config.augment, dataset.image_shape)  # Refuses images that are too small.
    return dataset


def _build(config: TrainConfig, dataset: Dataset, distribution: Distribution) -> tuple[keras.Model, WasserTrain]:
    """Returns the classifier that is trained plainly, and WasserTrain around another, both with the same weights."""
    with distribution.scope():
        first, second = (_classifier(config, dataset) for _ in range(2))
        distribution.prepare(first)
        distribution.prepare(second)
        return first, WasserTrain(
            second,
            config.attack,
            config.omega,
            attack_chunk=config.attack_chunk,
            random_radius=config.random_radius,
            trades_beta=config.trades_beta,
            name="wasser_train",
        )


def _classifier(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """Returns the classifier that the config describes; equal calls give equal ones."""
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
    loaded.trainable = True
    return models.blurred(loaded, config.blur)


def _compare(
    standard: keras.Model, robust: keras.Model, config: TrainConfig, dataset: Dataset
) -> comparison.Comparison:
    """Attacks both classifiers on the first images of the test split."""
    images = Split(*(array[: config.num_attack_examples] for array in dataset.test))
    radii = ", ".join(f"{radius:g}" for radius in config.radii)
    _say(f"\nreport: both under attack on {len(images.labels)} test images at ε = {radii}")
    return comparison.compare(
        {"standard": standard, "wasser_train": robust},
        MirrorAscent(
            config.threat_model, iterations=config.report_iterations, restarts=_REPORT_RESTARTS, seed=config.seed
        ),
        images,
        config.radii,
        dataset_name=f"{config.dataset} test",
        from_logits=True,
        verbose=sys.stdout.isatty(),
    )


def _train(
    phase: str,
    trained: keras.Model,
    classifier: keras.Model,
    config: TrainConfig,
    dataset: Dataset,
    distribution: Distribution,
    folder: pathlib.Path | None = None,
    history: list[dict[str, Any]] | None = None,
) -> int:
    """Trains one phase, or what is left of it; the classifier ends with its best weights. Returns the best epoch.

    Folder and history are the chief's; the other workers have neither.
    """
    adversarial = trained is not classifier
    epochs = config.epochs if adversarial else config.standard_epochs
    steps = len(dataset.train.labels) // config.batch_size
    augment = augmentation.make(config.augment, dataset.image_shape)
    # What is validated, chosen and left behind.
    kept = classifier
    if config.ema_momentum:
        with distribution.scope():
            kept = _classifier(config, dataset)
            kept.set_weights(classifier.get_weights())
    # Layers that are random take their seeds from here when they have none of their own.
    keras.utils.set_random_seed(config.seed)
    with distribution.scope():
        trained.compile(
            optimizer.make(config, epochs * steps),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=config.jit_compile,
        )
        trained.optimizer.build(trained.trainable_variables)
    follower = data.EpochFollower()
    callbacks: list[keras.callbacks.Callback] = [follower]
    if kept is not classifier:
        callbacks.append(WeightAverage(classifier, kept, config.ema_momentum))
    checkpoint = None
    if folder is not None and history is not None:
        omega = config.omega if adversarial else 0.0
        checkpoint = Checkpoint(
            folder / run_folder.CHECKPOINTS / f"{phase}.npz",
            trained,
            kept,
            omega,
            keep_last=config.keep == "last",
            within_epochs=distribution.strategy is None,
        )
        callbacks.append(_finite(phase, config, dataset, augment, folder, checkpoint.steps_done))
        callbacks += [_validation(kept, config, dataset, adversarial), EpochTable(), checkpoint]
        earlier = list(history)

        def write(*_: Any) -> None:
            history[:] = [*earlier, *({"phase": phase, **row} for row in checkpoint.history)]
            run_folder.write_history(folder, history)

        write()
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=write))
    else:
        callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: interruption.check()))
    at = [checkpoint.epochs_done, checkpoint.steps_done] if checkpoint else [0, 0]
    done, steps_done = (int(value) for value in distribution.share(at))
    averages = [] if kept is classifier else kept.variables
    distribution.synchronize([*trained.variables, *trained.optimizer.variables, *averages])
    if checkpoint:
        before = f", of which {done} were done before" + (f", and {steps_done} steps" if steps_done else "")
        _say(f"\n{phase}: {epochs} epochs" + (before if done or steps_done else ""))
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
            _say(f"{phase}: epoch {checkpoint.best_epoch} is kept, which {why}")
    if kept is not classifier:
        classifier.set_weights(kept.get_weights())
    distribution.synchronize(classifier.variables)
    return checkpoint.best_epoch if checkpoint else 0


def _validation(
    classifier: keras.Model, config: TrainConfig, dataset: Dataset, adversarial: bool
) -> keras.callbacks.Callback:
    usual = MirrorAscent(config.threat_model, iterations=_VALIDATION_ITERATIONS, seed=config.seed)
    attack = config.validation_attack or usual
    return RobustValidation(
        classifier,
        dataset.validation,
        attack if adversarial else None,
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


def _about(config: TrainConfig) -> dict[str, Any]:
    return {
        "config": config.identity(),
        "deterministic": config.deterministic,
        "data_dir": config.data_dir,
        "commit": provenance.commit(),
        # Of another training there is none, whatever the rules of its report.
        "threat_model": config.threat_model.get_config() if config.attack.transports else None,
        "threat_model_in_words": config.attack.ball(),
        "versions": {
            "wasser_tf": wasser_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "devices": [device.name for device in tf.config.list_logical_devices()],
    }


def _introduction(config: TrainConfig, best_epoch: int) -> str:
    attack = config.attack
    radius = "with an adaptive radius" if attack.schedule else f"at ε = {config.threat_model.epsilon:g}"
    if config.random_radius:
        radius = f"at ε from 0 to {config.threat_model.epsilon:g}"
    if not attack.transports:
        radius = f"no Wasserstein attack ({attack.ball()})"
    chosen = "was the best on the validation split" if config.keep == "best" else "is kept, which was the last"
    return (
        f"# {config.model} on {config.dataset}, before and after WasserTrain\n\n"
        f"Trained with {attack.name}, {attack.iterations} iterations, {radius}, ω = {config.omega:g}; epoch "
        f"{best_epoch} of {config.epochs} {chosen}. Attacked with mirror_ascent, "
        f"{config.report_iterations} iterations, {_REPORT_RESTARTS} restarts, on test images that nothing was chosen "
        "by.\n"
    )


def _save(model: keras.Model, path: pathlib.Path) -> None:
    """Saves a classifier as .keras, whole or not at all."""
    with storage.atomic_path(path) as beside:
        model.save(beside)


def _export(classifier: keras.Model, path: pathlib.Path) -> None:
    """Writes a SavedModel that takes "image" and returns "logits"."""
    archive = keras.export.ExportArchive()
    archive.track(classifier)
    archive.add_endpoint(
        "serve",
        lambda image: {"logits": classifier(image, training=False)},
        input_signature=[tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32, name="image")],
    )
    with storage.atomic_path(path) as beside, exporting(path):
        archive.write_out(str(beside), verbose=False)


def _say(message: str) -> None:
    print(message, flush=True)
