"""Checks a long training and a large evaluation for growing memory and repeated tracing of functions."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def long_run(epochs: int, examples: int = 1197, *, control: bool = False) -> dict[str, Any]:
    """Trains on the digits with validation, checkpoints and the check for non-finite numbers, as bin/train.py does.

    Args:
      epochs: Number of epochs.
      examples: Number of training images.
      control: Whether to use the control attack, which compiles in a third of the time, instead of mirror ascent.

    Returns:
      The number of traces of the training step and the attacks after the first epoch (the warm-up), and the growth of
      the resident memory over the second half: the mean of its last tenth relative to the mean of its first tenth.
    """
    import keras

    from wasser_tf import MirrorAscent, ThreatModel, WasserTrain, data, models
    from wasser_tf.attacks import Attack, RandomPlan
    from wasser_tf.training.callbacks import RobustValidation
    from wasser_tf.training.checkpoint import Checkpoint
    from wasser_tf.training.nan_guard import StopWhenNotFinite

    digits = data.load()
    train, validation = (
        data.Split(*(array[:examples] for array in part)) for part in (digits.train, digits.validation)
    )
    ball = ThreatModel(epsilon=0.1)
    classifier = models.build("mlp", (8, 8, 1), 10, seed=0)
    attack, judge = (
        RandomPlan(ball, seed=seed) if control else MirrorAscent(ball, iterations=iterations, polish=1)
        for seed, iterations in enumerate((2, 3))
    )
    model = WasserTrain(classifier, attack)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    traces: list[int] = []
    memory: list[float] = []
    follower = data.EpochFollower()
    batches = data.batches(train, 64, shuffle=True, epoch=follower, drop_remainder=True)
    with counted(Attack, "run") as attacks, counted(WasserTrain, "train_step") as steps:

        def note(*_: Any) -> None:
            traces.append(attacks[0] + steps[0])
            memory.append(resident_mib())

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            callbacks = [
                follower,
                StopWhenNotFinite(path / "batch.npz", lambda epoch, step: {}),
                RobustValidation(classifier, validation, judge, num_attack_examples=64),
                Checkpoint(path / "checkpoint.npz", model, classifier, 0.5),
                keras.callbacks.LambdaCallback(on_epoch_end=note),
            ]
            model.fit(batches, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0)
    return {
        "what": f"WasserTrain, {epochs} epochs of {len(train.labels)} digits",
        "steps": epochs * int(batches.cardinality()),
        "traces in the warm-up": traces[0],
        "retraces after it": traces[-1] - traces[0],
        **_second_half(memory),
        "peak MiB": round(max(memory)),
    }


def large(data_dir: str, count: int | None = None) -> dict[str, Any]:
    """Evaluates the packaged classifier on MNIST's 60,000 training images, with the function of bin/evaluate.py.

    Args:
      data_dir: The parent of the prepared mnist/.
      count: Number of images; None for all.

    Returns:
      The same values as `long_run`; the halves refer to the time from the first batch to the written report.
    """
    from wasser_tf import MirrorAscent, ThreatModel, data
    from wasser_tf.attacks import Attack, RandomPlan
    from wasser_tf.data.selection import ImageSource, Selection
    from wasser_tf.evaluation.config import EvaluationRun
    from wasser_tf.runs.evaluate import run_evaluation

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class AllTraining(ImageSource):
        """MNIST's training images: the train and validation splits of `data.load`."""

        def load(self) -> Selection:
            loaded = data.load("mnist", data_dir=data_dir, splits=("train", "validation"))
            parts = zip(loaded.train, loaded.validation, strict=True)
            images, labels, index = (np.concatenate(part)[:count] for part in parts)
            return Selection("mnist, training images", index, images, labels, loaded.class_names)

    ball = ThreatModel(epsilon=0.5)
    attacks = {"mirror_ascent": MirrorAscent(ball, iterations=1, polish=1), "random_plan": RandomPlan(ball)}
    logged: list[tuple[float, int]] = []
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        counted(Attack, "run") as traced,
        _sampled(resident_mib) as memory,
    ):
        run = EvaluationRun(
            models={"mnist_wassertrain": "pretrained:mnist_wassertrain"},
            source=AllTraining(),
            attacks=attacks,
            radii=(0.5,),
            output_dir=folder,
            sanity=False,
            batch_size=500,
        )
        (report,) = run_evaluation(run, log=lambda line: logged.append((time.monotonic(), traced[0])))
        written = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())
    # The warm-up ends with the first batch of the second attack.
    chunks = (len(logged) - 1) // len(attacks)
    values = [mib for at, mib in memory if at >= logged[0][0]]
    return {
        "what": f"evaluation of {report.records[0].num_images:,} MNIST images, two attacks",
        "steps": chunks * len(attacks),
        "traces in the warm-up": logged[chunks][1],
        "retraces after it": logged[-1][1] - logged[chunks][1],
        **_second_half(values),
        "peak MiB": round(max(mib for _, mib in memory)),
        "MiB written": round(written / 2**20),
        "seconds": round(time.monotonic() - started),
    }


@contextlib.contextmanager
def counted(owner: type, name: str) -> Iterator[list[int]]:
    """Counts the calls of a method. For a method that is only called in graphs, this is the number of traces."""
    inner, count = getattr(owner, name), [0]

    def outer(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        return inner(*arguments, **options)

    setattr(owner, name, outer)
    try:
        yield count
    finally:
        setattr(owner, name, inner)


@contextlib.contextmanager
def _sampled(measure: Callable[[], float], seconds: float = 0.1) -> Iterator[list[tuple[float, float]]]:
    """Calls `measure` in a thread every `seconds` while the block runs, and yields the list of (time, value)."""
    values: list[tuple[float, float]] = []
    done = threading.Event()

    def work() -> None:
        while not done.wait(seconds):
            values.append((time.monotonic(), measure()))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield values
    finally:
        done.set()
        thread.join()


def _second_half(memory: list[float]) -> dict[str, Any]:
    half = np.array(memory[len(memory) // 2 :])
    tenth = max(1, len(half) // 10)
    growth = half[-tenth:].mean() / half[:tenth].mean() - 1
    return {
        "MiB, middle to end": f"{half[:tenth].mean():.0f} to {half[-tenth:].mean():.0f}",
        "growth over the second half": f"{100 * growth:+.1f} %",
        "largest in it": f"{100 * (half.max() / half[:tenth].mean() - 1):+.1f} %",
    }


def resident_mib() -> float:
    """Returns the resident memory of this process in MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
