"""Continues exported trainings on JAX's first device: `run_training.py FOLDER… [--until=TIME]`.

Needs only jax and numpy. Prints a line per epoch. After every fifth epoch and the last, it validates, prints the
accuracies and writes after.npz to the folder: the history, and the weights of the best validated epoch or of the last,
depending on the run's `keep`. If the machine may be lost, copy this file during the training. With --until, each
training gets as many epochs as fit into its share of the time, and its learning rate falls to 0 within them.
"""

import argparse
import concurrent.futures
import json
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from runtime import Program  # noqa: E402

# Number of steps that are timed to estimate the time of an epoch.
_TIMED_STEPS = 40
# Share of the time for training steps; the rest is for validation and files.
_SHARE = 0.88


class Validation:
    """The exported validation attack and its images."""

    def __init__(self, folder: pathlib.Path):
        """Compiles the program."""
        self._program = Program(folder)
        with np.load(folder / "images.npz") as arrays:
            self._images, self._labels = arrays["images"], arrays["labels"]

    def scores(self, kept: list[jax.Array]) -> dict[str, float]:
        """Returns natural accuracy ("natural") and robust accuracy by radius, of the kept weights."""
        found = {}
        for radius in self._program.metadata["radii"]:
            # Copies, because the program consumes the arrays it is given.
            self._program.variables = [jax.numpy.array(value) for value in kept]
            right = self._program(self._images, self._labels, np.full(len(self._labels), radius, np.float32))
            found |= {"natural": float(right["natural"].mean()), f"{radius:g}": float(right["robust"].mean())}
        return found


class Training:
    """An exported training and its data."""

    def __init__(self, folder: pathlib.Path):
        """Compiles the program and loads the data."""
        started = time.perf_counter()
        self.folder, self.program = folder, Program(folder)
        self._validation = Validation(folder / "validation")
        # Score, number and weights of the kept epoch.
        self._best: tuple[float, int, dict[str, np.ndarray]] = (-math.inf, 0, {})
        self.metadata: dict[str, Any] = self.program.metadata
        with np.load(folder.parent / f"{self.metadata['dataset']}.npz") as arrays:
            self._data = tuple(jax.device_put(arrays[name]) for name in ("images", "labels"))
        self._take = jax.jit(lambda images, labels, rows: (images[rows], labels[rows], rows))
        self.steps = self.metadata["count"] // self.metadata["batch_size"]
        self.log(f"compiled in {time.perf_counter() - started:.1f} s")

    def log(self, message: str) -> None:
        """Prints a line."""
        print(f"{self.folder.name}: {message}", flush=True)

    def plan(self, seconds: float) -> int:
        """Returns how many epochs fit into `seconds`, and adapts the learning rate's schedule to them."""
        # A step consumes the arrays it is given, so the values are restored afterwards.
        before = self.program.values()
        order = self._order(0)
        self._run(order, 0, range(2))
        started = time.perf_counter()
        self._run(order, 0, range(_TIMED_STEPS))
        step = (time.perf_counter() - started) / _TIMED_STEPS
        self.program.variables = [jax.device_put(value) for value in before]
        epochs = max(1, int(_SHARE * seconds / (step * self.steps)))
        epochs = min(epochs, self.metadata["epochs"])
        # The schedule of wasser_tf.training.optimizer.
        rising = min(round(self.metadata["warmup"] * epochs * self.steps), epochs * self.steps - 1)
        for number, value in enumerate((epochs * self.steps - rising, rising), self.metadata["schedule"]):
            self.program.variables[number] = jax.device_put(np.float32(value))
        self.log(f"{1e3 * step:.2f} ms per step: {epochs} epochs in {seconds:.0f} s")
        return epochs

    def train(self, epochs: int, until: float = math.inf) -> None:
        """Trains for `epochs` epochs, or until the end of the epoch that exceeds the time `until`, and writes."""
        history = []
        for epoch in range(self.metadata["epochs_done"], epochs):
            began = time.perf_counter()
            done = self.metadata["steps_done"] if epoch == self.metadata["epochs_done"] else 0
            if not done:
                self.program.reset(self.metadata["metrics"])
            logs = self._run(self._order(epoch), epoch, range(done, self.steps))
            history.append({"epoch": epoch + 1, **logs})
            values = ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
            if time.time() > until:
                epochs = epoch + 1
            if (epoch + 1) % 5 == 0 or epoch + 1 == epochs:
                self._write(history)
            self.log(f"epoch {epoch + 1} of {epochs}, {time.perf_counter() - began:.2f} s: {values}")
            if epoch + 1 == epochs:
                break

    def _write(self, history: list[dict[str, float]]) -> None:
        """Validates, and writes the kept weights."""
        metadata = self.metadata
        kept = [self.program.variables[number] for number in metadata["kept"]]
        scores = self._validation.scores(kept)
        self.log("validation: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        # The score of wasser_tf.training.checkpoint.Checkpoint.
        score = metadata["omega"] * scores[f"{metadata['radius']:g}"] + (1 - metadata["omega"]) * scores["natural"]
        if metadata["keep"] == "last" or score > self._best[0]:
            weights = {f"best_{number:04}": np.array(value) for number, value in enumerate(kept)}
            self._best = (score, len(history), weights)
        temporary = self.folder / "after.part.npz"
        np.savez(temporary, history=np.array(json.dumps(history)), kept_epoch=self._best[1], **self._best[2])
        temporary.replace(self.folder / "after.npz")

    def _order(self, epoch: int) -> np.ndarray:
        # The order of wasser_tf.data.epoch_order.
        count, size = self.metadata["count"], self.metadata["batch_size"]
        order = np.random.RandomState([self.metadata["seed"], epoch]).permutation(count).astype(np.int32)
        return order[: self.steps * size].reshape(self.steps, size)

    def _run(self, order: np.ndarray, epoch: int, steps: range) -> dict[str, float]:
        logs: dict[str, jax.Array] = {}
        for step in steps:
            logs = self.program(*self._take(*self._data, order[step % self.steps]), np.int64(epoch), np.int64(step))
        return {name: float(value) for name, value in logs.items()}


def main() -> None:
    """Compiles all programs, then runs the trainings one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument(
        "--until", type=float, help="time at which all trainings must be finished, in seconds since 1970"
    )
    parser.add_argument("--shares", help="shares of the time, such as 2,1 (default: equal shares)")
    parser.add_argument("--together", type=int, help="number of such processes that start to train at the same time")
    given = parser.parse_args()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        trainings = list(pool.map(Training, given.folders))
    if given.together:
        (given.folders[0] / "ready").touch()
        # A limit, because one of the processes may have failed.
        limit = time.time() + 60
        while len(list(given.folders[0].parent.glob("*/ready"))) < given.together and time.time() < limit:
            time.sleep(0.2)
    shares = [float(share) for share in given.shares.split(",")] if given.shares else [1.0] * len(trainings)
    for number, training in enumerate(trainings):
        if given.until:
            share = shares[number] / sum(shares[number:])
            training.train(training.plan(share * (given.until - time.time())), given.until)
        else:
            training.train(training.metadata["epochs"])


if __name__ == "__main__":
    main()
