"""Trains a standard classifier, then WasserTrain from it, and compares both under attack; bin/train.py runs it.

Killed runs resume from the last epoch, interrupted runs from the last batch; results are identical to those of an
uninterrupted run. A checkpoint holds the weights, the optimiser, the states of random seeds and the best weights so
far, and the order of the data is a function of seed and epoch.
"""

import pathlib
import platform
import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import data
from wasser_tf.attacks import MirrorAscent
from wasser_tf.data import Dataset, Split, augmentation, streaming
from wasser_tf.evaluation.comparison import Comparison, compare
from wasser_tf.reporting import bracket, comparison, tables
from wasser_tf.runs import certified_report
from wasser_tf.runs.trained_files import export_saved_model, save_classifier
from wasser_tf.runtime import provenance, storage
from wasser_tf.runtime.run_files import CONFIG, Schema, write_document
from wasser_tf.training import run_folder
from wasser_tf.training.certified_phase import build_certified
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.loop import TrainingContext, classifier_of, log, train
from wasser_tf.training.wasser_train import WasserTrain
from wasser_tf.version import __version__

# With these, mirror ascent leaves within a point of what the whole ensemble leaves (docs/results/attacks_mnist.md).
_REPORT_RESTARTS = 6
_KEPT_OF_STREAMS = 64  # Examples of the report whose images are kept, of a stream.


class Finished(NamedTuple):
    """The outcome of a training run.

    Attributes:
      classifier: The WasserTrain classifier of the epoch that was best on the validation split.
      compared: All classifiers of the run under attack, on the test split.
      figures: The files of the figures.
      bracket: The table of certified and attacked accuracies, or "" without a certified classifier.
    """

    classifier: keras.Model
    compared: Comparison
    figures: list[pathlib.Path]
    bracket: str = ""


def prepare_process(config: TrainConfig) -> Distribution:
    """Configures the process: devices, random seed, reproducible operations and precision.

    Call it before TensorFlow is used.

    Args:
      config: The configuration of the run.

    Returns:
      The distribution strategy.

    Raises:
      ValueError: The environment does not support `config.distribute`.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # Otherwise TensorFlow takes all of its memory.
    distribution = Distribution(config.distribute)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.precision)
    return distribution


def run_training(
    config: TrainConfig, distribution: Distribution | None = None, *, title: str = "wasser_train"
) -> Finished | None:
    """Trains both classifiers, compares them under attack and writes all results into the output_dir.

    Args:
      config: The configuration. Its precision must be that of the process, see `prepare_process`.
      distribution: The result of `prepare_process`; one device by default.
      title: The name of the adversarial training in lines of progress.

    Returns:
      The outcome; None for workers other than the chief, which neither read nor write the output_dir.

    Raises:
      ValueError: The output_dir holds another run, another process writes into it, or the dataset is missing; nothing
        was written.
      ConnectionError: Another worker was lost.
      OSError: The output_dir cannot be written to; existing files are unchanged.
      wasser_tf.runtime.interruption.Interrupted: A signal requested the run to stop; it can be resumed.
    """
    distribution = distribution or Distribution()
    with distribution.report_lost_workers():
        if distribution.is_chief:
            return _lead(config, distribution, title)
        _follow(config, distribution)
        return None


def _lead(config: TrainConfig, distribution: Distribution, title: str) -> Finished:
    started = time.monotonic()
    folder = pathlib.Path(config.output_dir).expanduser()
    run_folder.check_run_folder(folder, config)
    dataset = load_dataset(config, distribution)
    run_folder.check_dataset(folder, config, dataset.digest)
    first, robust = build_models(config, dataset, distribution)
    certified = build_certified(config, dataset, distribution)
    # Not compiled, so that its file, as that of the other, holds no optimiser.
    standard = classifier_of(config, dataset)
    storage.make_folder(folder)
    with storage.locked(folder):
        # Once more, for a run may have begun and ended here since.
        run_folder.check_run_folder(folder, config)
        run_folder.clear_run_folder(folder, config)
        write_document(folder / CONFIG, Schema.TRAINING_CONFIG, _metadata(config, dataset))
        log(f"Devices: {', '.join(device.name for device in tf.config.list_logical_devices())}")
        if distribution.num_replicas > 1:
            log(f"{distribution.num_replicas} replicas, {config.batch_size // distribution.num_replicas} images each")
        log(f"{dataset.name}: {', '.join(f'{len(getattr(dataset, key).labels)} {key}' for key in data.SPLITS)} images")
        log(config.attack.ball())
        context = TrainingContext(config=config, dataset=dataset, distribution=distribution, folder=folder)
        train(context, "standard", first)
        standard.set_weights(first.get_weights())
        robust.classifier.set_weights(first.get_weights())
        save_classifier(standard, folder / run_folder.STANDARD)
        classifiers, best_epoch, best = {"standard": standard}, 0, robust.classifier
        if config.epochs:
            best_epoch = train(context, "wasser_train", robust, title=title)
            classifiers["wasser_train"] = best
        text = _introduction(config, best.name, best_epoch)
        if certified is not None:
            epoch = train(context, "certified", certified)
            classifiers["certified"] = certified.classifier
            save_classifier(certified.classifier, folder / run_folder.CERTIFIED)
            best = best if config.epochs else certified.classifier
            text = certified_report.introduction(config, text, epoch)
            best_epoch = best_epoch or epoch
        save_classifier(best, folder / run_folder.BEST)
        export_saved_model(best, folder / run_folder.SAVED_MODEL)
        compared = _compare(classifiers, config, dataset)
        drawn = comparison.save_figures(folder, compared, config.middle_radius, dataset.class_names)
        metadata = {
            **_metadata(config, dataset),
            "best_epoch": best_epoch,
            "seconds": round(time.monotonic() - started, 1),
        }
        table = ""
        if certified is not None:
            brackets = certified_report.brackets_of(compared, config.threat_model, log)
            table = bracket.bracket_table(brackets, config.radii)
            drawn.append(folder / run_folder.BRACKET)
            title, warnings = f"{config.dataset} test", tables.flagged_lines(compared.records)
            bracket.save_bracket(drawn[-1], brackets, threat_model=config.threat_model, title=title, warnings=warnings)
            metadata["brackets"] = bracket.bracket_shares(brackets, config.radii)
            note = bracket.contradiction_note(brackets)
            text = f"{text}\n## Certified and not fooled\n\n{table}\n{note}![Bracket]({run_folder.BRACKET})\n"
        comparison.save_report(folder, compared, metadata, text)
    distribution.share([0])
    return Finished(best, compared, drawn, table)


def _follow(config: TrainConfig, distribution: Distribution) -> None:
    """Runs the part of a worker other than the chief."""
    dataset = load_dataset(config, distribution)
    first, robust = build_models(config, dataset, distribution)
    certified = build_certified(config, dataset, distribution)
    context = TrainingContext(config=config, dataset=dataset, distribution=distribution)
    train(context, "standard", first)
    robust.classifier.set_weights(first.get_weights())
    if config.epochs:
        train(context, "wasser_train", robust)
    if certified is not None:
        train(context, "certified", certified)
    # Until the chief is through: a worker that leaves alarms the others.
    distribution.share([0])


def load_dataset(config: TrainConfig, distribution: Distribution) -> Dataset:
    """Loads the dataset of a run.

    Args:
      config: The configuration of the run.
      distribution: The distribution strategy.

    Returns:
      The dataset.

    Raises:
      ValueError: The dataset is missing, the batch size does not fit it or the replicas, or its images are too small
        for the augmentation.
    """
    dataset = config.load_images()
    if config.batch_size > len(dataset.train.labels):
        raise ValueError(f"batch_size must be at most the {len(dataset.train.labels)} training images.")
    if config.batch_size % distribution.num_replicas:
        raise ValueError(
            f"batch_size is that of all replicas together and must be a multiple of their number, "
            f"{distribution.num_replicas}, got {config.batch_size}."
        )
    augmentation.make_augmentation(config.augment, dataset.image_shape)  # Refuses images that are too small.
    return dataset


def build_models(config: TrainConfig, dataset: Dataset, distribution: Distribution) -> tuple[keras.Model, WasserTrain]:
    """Builds the models of a run, with equal initial weights.

    Args:
      config: The configuration of the run.
      dataset: The dataset.
      distribution: The distribution strategy.

    Returns:
      The classifier for standard training, and WasserTrain around another classifier.
    """
    with distribution.scope():
        first, second = (classifier_of(config, dataset) for _ in range(2))
        distribution.prepare(first)
        distribution.prepare(second)
        return first, WasserTrain(
            second,
            config.attack,
            config.schedule_of("omega") or config.omega,
            epsilon=config.schedule_of("epsilon"),
            steps_per_epoch=len(dataset.train.labels) // config.batch_size,
            attack_chunk=config.attack_chunk,
            random_radius=config.random_radius,
            trades_beta=config.trades_beta,
            matching=config.matching,
            warm_start=config.warm_start,
            num_examples=len(dataset.train.labels) if config.warm_start else None,
            name="wasser_train",
        )


def _compare(classifiers: dict[str, keras.Model], config: TrainConfig, dataset: Dataset) -> Comparison:
    """Attacks the classifiers on the first images of the test split."""
    images = Split(*(array[: config.num_attack_examples] for array in dataset.test))
    radii = ", ".join(f"{radius:g}" for radius in config.radii)
    log(f"\nreport: {' and '.join(classifiers)} under attack on {len(images.labels)} test images at ε = {radii}")
    settings: dict[str, Any] = {"iterations": config.report_iterations, "restarts": _REPORT_RESTARTS}
    return compare(
        classifiers,
        MirrorAscent(config.threat_model, **settings, seed=config.seed),
        images,
        config.radii,
        dataset_name=f"{config.dataset} test",
        from_logits=True,
        kept=_KEPT_OF_STREAMS if streaming.is_streamed(dataset.test.images) else None,
        log=log,
    )


def _metadata(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    return {
        "config": config.identity(),
        "deterministic": config.deterministic,
        "data_dir": config.data_dir,
        **({run_folder.DATASET_DIGEST: dataset.digest} if dataset.digest else {}),
        "commit": provenance.commit(),
        # Of another training there is none, whatever the rules of its report.
        "threat_model": config.threat_model.get_config() if config.attack.in_wasserstein_ball else None,
        "threat_model_in_words": config.attack.ball(),
        "versions": {
            "wasser_tf": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "devices": [device.name for device in tf.config.list_logical_devices()],
    }


def _introduction(config: TrainConfig, model: str, best_epoch: int) -> str:
    attack = config.attack
    radius = "with an adaptive radius" if attack.schedule else f"at ε = {config.threat_model.epsilon:g}"
    if config.random_radius:
        radius = f"at ε from 0 to {config.threat_model.epsilon:g}"
    if config.epsilon_schedule is not None:
        radius = f"at ε {'from 0 to that ' if config.random_radius else ''}of the schedule {config.epsilon_schedule}"
    omega = f"ω = {config.omega:g}" if config.omega_schedule is None else f"ω of the schedule {config.omega_schedule}"
    if not attack.in_wasserstein_ball:
        radius = f"no Wasserstein attack ({attack.ball()})"
    chosen = "was the best on the validation split" if config.keep == "best" else "is kept, which was the last"
    return (
        f"# {model} on {config.dataset}, before and after WasserTrain\n\n"
        f"Trained with {attack.name}, {attack.iterations} iterations, {radius}, {omega}; epoch "
        f"{best_epoch} of {config.epochs} {chosen}. Attacked with mirror_ascent, "
        f"{config.report_iterations} iterations, {_REPORT_RESTARTS} restarts, on test images that nothing was chosen "
        "by.\n"
    )
