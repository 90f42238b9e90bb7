"""What bin/train.py does: a standard classifier, WasserTrain from it, and both under attack, in one folder.

A run that was killed goes on where its last epoch ended, and ends as if it had not been: weights, optimiser, the states
of random seeds and the best weights so far are in a checkpoint, and the order of the data is a function of seed and
epoch.
"""

import contextlib
import json
import pathlib
import platform
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import logging

import wasser_tf
from wasser_tf import data, models, storage
from wasser_tf.attacks import MirrorAscent
from wasser_tf.data import Dataset, Split
from wasser_tf.evaluation import comparison
from wasser_tf.training.callbacks import EpochTable, RobustValidation
from wasser_tf.training.checkpoint import Checkpoint
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.wasser_train import WasserTrain

CONFIG, HISTORY, CHECKPOINTS = "config.json", "history.csv", "checkpoints"
STANDARD, BEST, SAVED_MODEL = "standard.keras", "best.keras", "best_saved_model"
# All that a run writes; figures are examples_*.png and success.png.
_FILES = (CONFIG, HISTORY, CHECKPOINTS, STANDARD, BEST, SAVED_MODEL, "report.json", "report.md", "success.png")

# Enough to choose an epoch by; the report's attack has more.
_VALIDATION_ITERATIONS = 20


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


def prepare_process(config: TrainConfig) -> None:
    """Sets what holds for the whole process: reproducible operations, no grabbing of GPU memory. Call it first."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.precision)


def run(config: TrainConfig) -> Finished:
    """Trains, compares and writes everything into the output_dir.

    Args:
      config: The run. Its precision is that of the process, see `prepare_process`.

    Raises:
      ValueError: The output_dir holds another run, another run writes into it, or the dataset is not there; nothing was
        written.
    """
    started = time.monotonic()
    folder = pathlib.Path(config.output_dir).expanduser()
    _check_output_dir(folder, config)
    dataset = data.load(config.dataset, data_dir=config.data_dir, download=config.download)
    if config.batch_size > len(dataset.train.labels):
        raise ValueError(f"batch_size must be at most the {len(dataset.train.labels)} training images.")
    # The first is trained plainly. The others are not compiled, so that the files of both hold no optimiser.
    first, standard, robust = (
        models.build(config.model, dataset.image_shape, dataset.num_classes, seed=config.seed) for _ in range(3)
    )
    folder.mkdir(parents=True, exist_ok=True)
    with storage.locked(folder):
        # Once more, for a run may have begun and ended here since.
        _check_output_dir(folder, config)
        _clear_output_dir(folder, config)
        storage.write_json(folder / CONFIG, _about(config))
        _say(f"Devices: {', '.join(device.name for device in tf.config.list_logical_devices())}")
        _say(f"{dataset.name}: {', '.join(f'{len(getattr(dataset, key).labels)} {key}' for key in data.SPLITS)} images")
        _say(str(config.threat_model))
        history: list[dict[str, Any]] = []
        _train("standard", first, first, config, dataset, folder, history)
        standard.set_weights(first.get_weights())
        robust.set_weights(first.get_weights())
        _save(standard, folder / STANDARD)
        wrapper = WasserTrain(robust, config.attack, config.omega, name="wasser_train")
        best_epoch = _train("wasser_train", wrapper, robust, config, dataset, folder, history)
        _save(robust, folder / BEST)
        _export(robust, folder / SAVED_MODEL)
        compared = _compare(standard, robust, config, dataset)
        drawn = comparison.save_figures(folder, compared, config.middle_radius, dataset.class_names)
        about = {**_about(config), "best_epoch": best_epoch, "seconds": round(time.monotonic() - started, 1)}
        comparison.save_report(folder, compared, about, _introduction(config, best_epoch))
    return Finished(robust, compared, drawn)


def _compare(
    standard: keras.Model, robust: keras.Model, config: TrainConfig, dataset: Dataset
) -> comparison.Comparison:
    """Attacks both classifiers on the first images of the test split."""
    images = Split(*(array[: config.num_attack_examples] for array in dataset.test))
    radii = ", ".join(f"{radius:g}" for radius in config.radii)
    _say(f"\nreport: both under attack on {len(images.labels)} test images at ε = {radii}")
    return comparison.compare(
        {"standard": standard, "wasser_train": robust},
        MirrorAscent(config.threat_model, iterations=config.report_iterations, seed=config.seed),
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
    folder: pathlib.Path,
    history: list[dict[str, Any]],
) -> int:
    """Trains one phase, or what is left of it; the classifier ends with its best weights. Returns the best epoch."""
    adversarial = trained is not classifier
    epochs = config.epochs if adversarial else config.standard_epochs
    steps = len(dataset.train.labels) // config.batch_size
    optimizer = keras.optimizers.get(config.optimizer)
    # Of the step alone, so that it resumes with the optimiser's count of steps.
    optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, max(1, epochs * steps))
    # Layers that are random take their seeds from here when they have none of their own.
    keras.utils.set_random_seed(config.seed)
    trained.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=config.jit_compile,
    )
    checkpoint = Checkpoint(
        folder / CHECKPOINTS / f"{phase}.npz", trained, classifier, config.omega if adversarial else 0.0
    )
    threat_model = config.threat_model.with_epsilon(config.middle_radius)
    validation = RobustValidation(
        classifier,
        dataset.validation,
        MirrorAscent(threat_model, iterations=_VALIDATION_ITERATIONS, seed=config.seed) if adversarial else None,
        num_attack_examples=config.num_attack_examples,
    )
    follower = data.EpochFollower()
    write = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: _write_history(folder, history, phase, checkpoint)
    )
    done = checkpoint.epochs_done
    _say(f"\n{phase}: {epochs} epochs" + (f", of which {done} were done before" if done else ""))
    if done < epochs:
        trained.fit(
            # Without the smaller last batch: one shape, one compilation.
            data.batches(
                dataset.train, config.batch_size, shuffle=True, seed=config.seed, epoch=follower, drop_remainder=True
            ),
            shuffle=False,
            epochs=epochs,
            initial_epoch=done,
            callbacks=[follower, validation, EpochTable(), checkpoint, write],
            verbose=0,
        )
    _write_history(folder, history, phase, checkpoint)
    history += [{"phase": phase, **row} for row in checkpoint.history]
    checkpoint.restore_best()
    if checkpoint.best_epoch:
        _say(f"{phase}: the best epoch on the validation split is {checkpoint.best_epoch}")
    return checkpoint.best_epoch


def _check_output_dir(folder: pathlib.Path, config: TrainConfig) -> None:
    """Refuses a folder that holds another run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, got the file {folder}: give another --output_dir.")
    there = [name for name in _FILES if (folder / name).exists()]
    if not there or config.overwrite:
        return
    if not config.resume:
        raise ValueError(
            f"output_dir {folder} holds another run ({', '.join(there)}): give another --output_dir, --resume to go on "
            "with that run, or --overwrite to replace it."
        )
    saved = storage.read_json(folder / CONFIG)["config"]
    given = json.loads(json.dumps(config.identity()))
    differing = _differences(saved, given)
    if differing:
        raise ValueError(
            f"--resume needs the flags of the run in {folder}, but these differ: {'; '.join(differing)}. Give the same "
            "ones, another --output_dir, or --overwrite."
        )


def _differences(saved: Any, given: Any, name: str = "") -> list[str]:
    """Returns what differs, each as "name is … there and … here"."""
    if isinstance(saved, dict) and isinstance(given, dict):
        keys = list(dict.fromkeys([*saved, *given]))
        return [
            line
            for key in keys
            for line in _differences(saved.get(key), given.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if saved == given else [f"{name} is {saved!r} there and {given!r} here"]


def _clear_output_dir(folder: pathlib.Path, config: TrainConfig) -> None:
    """Empties the folder of the run it held, unless that goes on, and of what was being written when it was killed."""
    storage.remove_leftovers(folder)
    if config.overwrite:
        for path in (*(folder / name for name in _FILES), *folder.glob("examples_*.png")):
            storage.remove(path)


def _about(config: TrainConfig) -> dict[str, Any]:
    return {
        "config": config.identity(),
        "data_dir": config.data_dir,
        "threat_model": config.threat_model.get_config(),
        "threat_model_in_words": str(config.threat_model),
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
    return (
        f"# {config.model} on {config.dataset}, before and after WasserTrain\n\n"
        f"Trained with {attack.name}, {attack.iterations} iterations, {radius}, ω = {config.omega:g}; epoch "
        f"{best_epoch} of {config.epochs} was the best on the validation split. Attacked with mirror_ascent, "
        f"{config.report_iterations} iterations, on test images that nothing was chosen by.\n"
    )


def _write_history(folder: pathlib.Path, earlier: list[dict[str, Any]], phase: str, checkpoint: Checkpoint) -> None:
    rows = [*earlier, *({"phase": phase, **row} for row in checkpoint.history)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    storage.write_text(folder / HISTORY, "".join(",".join(map(str, line)) + "\n" for line in lines))


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
    with storage.atomic_path(path) as beside, _without_chatter():
        archive.write_out(str(beside), verbose=False)


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Hides what TensorFlow says while it exports: a path that is renamed next, and names of its own making."""
    # By absl's own function: TensorFlow puts back, in the midst of it, the level that this function knows.
    verbosity, level = logging.get_verbosity(), tf.get_logger().level
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        tf.get_logger().setLevel(level)


def _say(message: str) -> None:
    print(message, flush=True)
