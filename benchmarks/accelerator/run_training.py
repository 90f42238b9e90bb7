"""Goes on with exported trainings, on JAX's first device: `run_training.py FOLDER… [--until=TIME]`.

Needs jax and numpy alone. Each folder gets after.npz, the weights that are kept and the history; a line an epoch is
printed. With --until each has as many epochs as fit into its share of the time, in which its learning rate falls to 0.
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

# Steps by which the time of an epoch is told.
_TRIED_STEPS = 40
# Of the time; what is left is for what else goes on.
_SHARE = 0.88


class Training:
    """An exported training and its data."""

    def __init__(self, folder: pathlib.Path):
        """Compiles it."""
        started = time.perf_counter()
        self.folder, self.program = folder, Program(folder)
        self.about: dict[str, Any] = self.program.about
        with np.load(folder.parent / f"{self.about['dataset']}.npz") as arrays:
            self._data = tuple(jax.device_put(arrays[name]) for name in ("images", "labels"))
        self._take = jax.jit(lambda images, labels, rows: (images[rows], labels[rows], rows))
        self.steps = self.about["count"] // self.about["batch_size"]
        self.say(f"compiled in {time.perf_counter() - started:.1f} s")

    def say(self, message: str) -> None:
        """Prints a line."""
        print(f"{self.folder.name}: {message}", flush=True)

    def plan(self, seconds: float) -> int:
        """Returns how many epochs fit into so many seconds, and sets the learning rate's schedule by them."""
        # A step takes the arrays it is given.
        before = self.program.values()
        order = self._order(0)
        self._run(order, 0, range(2))
        started = time.perf_counter()
        self._run(order, 0, range(_TRIED_STEPS))
        step = (time.perf_counter() - started) / _TRIED_STEPS
        self.program.variables = [jax.device_put(value) for value in before]
        epochs = max(1, int(_SHARE * seconds / (step * self.steps)))
        epochs = min(epochs, self.about["epochs"])
        # wasser_tf.training.optimizer.make.
        rising = min(round(self.about["warmup"] * epochs * self.steps), epochs * self.steps - 1)
        for number, value in enumerate((epochs * self.steps - rising, rising), self.about["schedule"]):
            self.program.variables[number] = jax.device_put(np.float32(value))
        self.say(f"{1e3 * step:.2f} ms a step: {epochs} epochs in {seconds:.0f} s")
        return epochs

    def train(self, epochs: int, until: float = math.inf) -> None:
        """Trains to the end, or to the epoch in which that time has come, and writes."""
        history = []
        for epoch in range(self.about["epochs_done"], epochs):
            began = time.perf_counter()
            done = self.about["steps_done"] if epoch == self.about["epochs_done"] else 0
            if not done:
                self.program.reset(self.about["metrics"])
            logs = self._run(self._order(epoch), epoch, range(done, self.steps))
            history.append({"epoch": epoch + 1, **logs})
            told = ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
            if time.time() > until:
                epochs = epoch + 1
            if (epoch + 1) % 5 == 0 or epoch + 1 == epochs:
                self._write(history)
            self.say(f"epoch {epoch + 1} of {epochs}, {time.perf_counter() - began:.2f} s: {told}")
            if epoch + 1 == epochs:
                break

    def _write(self, history: list[dict[str, float]]) -> None:
        kept = {f"best_{n:04}": np.asarray(self.program.variables[i]) for n, i in enumerate(self.about["kept"])}
        np.savez(self.folder / "after.npz", history=np.array(json.dumps(history)), **kept)

    def _order(self, epoch: int) -> np.ndarray:
        # wasser_tf.data.epoch_order.
        count, size = self.about["count"], self.about["batch_size"]
        order = np.random.RandomState([self.about["seed"], epoch]).permutation(count).astype(np.int32)
        return order[: self.steps * size].reshape(self.steps, size)

    def _run(self, order: np.ndarray, epoch: int, steps: range) -> dict[str, float]:
        logs: dict[str, jax.Array] = {}
        for step in steps:
            logs = self.program(*self._take(*self._data, order[step % self.steps]), np.int64(epoch), np.int64(step))
        return {name: float(value) for name, value in logs.items()}


def main() -> None:
    """Compiles all, then trains one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--until", type=float, help="when all must be done, in seconds since 1970")
    parser.add_argument("--shares", help="how the time is shared out, such as 2,1; evenly otherwise")
    parser.add_argument("--together", type=int, help="how many such processes begin to train together")
    given = parser.parse_args()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        trainings = list(pool.map(Training, given.folders))
    if given.together:
        (given.folders[0] / "ready").touch()
        # Not for ever, for one of them may have failed.
        patience = time.time() + 60
        while len(list(given.folders[0].parent.glob("*/ready"))) < given.together and time.time() < patience:
            time.sleep(0.2)
    shares = [float(share) for share in given.shares.split(",")] if given.shares else [1.0] * len(trainings)
    for number, training in enumerate(trainings):
        if given.until:
            share = shares[number] / sum(shares[number:])
            training.train(training.plan(share * (given.until - time.time())), given.until)
        else:
            training.train(training.about["epochs"])


if __name__ == "__main__":
    main()
