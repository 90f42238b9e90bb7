"""A long training: does it grow in memory, or trace its functions again?"""

import os
import pathlib
import tempfile
from typing import Any

import numpy as np


def long_run(epochs: int, examples: int = 1197) -> dict[str, Any]:
    """Trains on the digits for so many epochs, with validation, checkpoints and the check of numbers, as a run does.

    Args:
      epochs: How many.
      examples: Training images.

    Returns:
      The traces of the step and the attacks after the first epoch (which is the warm-up), and by how much the resident
      memory grew over the second half, its end against its beginning.
    """
    import keras

    from wasser_tf import ThreatModel, WasserTrain, data, models
    from wasser_tf.attacks import Attack, RandomPlan
    from wasser_tf.training.callbacks import RobustValidation
    from wasser_tf.training.checkpoint import Checkpoint
    from wasser_tf.training.finite import StopWhenNotFinite

    digits = data.load()
    train, validation = (
        data.Split(*(array[:examples] for array in part)) for part in (digits.train, digits.validation)
    )
    ball = ThreatModel(epsilon=0.1)
    classifier = models.build("mlp", (8, 8, 1), 10, seed=0)
    model = WasserTrain(classifier, RandomPlan(ball))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    traces: list[int] = []
    memory: list[float] = []
    count = 0
    run = Attack.run

    def counted(*arguments: Any, **options: Any) -> Any:
        # Python runs it only when a function around it is traced.
        nonlocal count
        count += 1
        return run(*arguments, **options)

    def note(*_: Any) -> None:
        traces.append(count)
        memory.append(_resident_mib())

    Attack.run = counted  # type: ignore[method-assign]
    follower = data.EpochFollower()
    batches = data.batches(train, 32, shuffle=True, epoch=follower, drop_remainder=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            callbacks = [
                follower,
                StopWhenNotFinite(path / "batch.npz", lambda epoch, step: {}),
                RobustValidation(classifier, validation, RandomPlan(ball, seed=1), num_attack_examples=64),
                Checkpoint(path / "checkpoint.npz", model, classifier, 0.5),
                keras.callbacks.LambdaCallback(on_epoch_end=note),
            ]
            model.fit(batches, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0)
    finally:
        Attack.run = run  # type: ignore[method-assign]
    half = np.array(memory[len(memory) // 2 :])
    tenth = max(1, len(half) // 10)
    return {
        "epochs": epochs,
        "traces in the first epoch": traces[0],
        "retraces after it": traces[-1] - traces[0],
        "resident MiB at the end": round(float(half[-1])),
        "growth over the second half": f"{100 * (half[-tenth:].mean() / half[:tenth].mean() - 1):+.1f} %",
    }


def _resident_mib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
