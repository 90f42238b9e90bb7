"""Times an attack iteration and a training step, relative to the classifier's forward and backward pass."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import material, timing
from wasser_tf import ThreatModel, WasserTrain, attacks

_BALL = ThreatModel(epsilon=0.5)
# Two numbers of iterations, to separate the cost of an iteration from the fixed cost of an attack (start, polish,
# rounding, feasibility record).
_SHORT, _LONG = 5, 25
_TIMED = (
    "mirror_ascent",
    "wasser_attack",
    "projected_sinkhorn",
    "frank_wolfe",
    "dual_projection",
    "constrained_sinkhorn",
)


def attack_steps(quick: bool) -> dict[str, Any]:
    """Times an iteration of each attack on the LeNet, and of the first two on a ResNet-18."""
    cases: list[tuple[Any, ...]] = [("lenet", (28, 28, 1), 128, _TIMED, _LONG, 9)]
    if not quick:
        cases.append(("resnet18", (32, 32, 3), 32, _TIMED[:2], _SHORT + 3, 3))
    rows = [row for case in cases for row in _steps_on(*case)]
    return {"rows": rows}


def _steps_on(
    model: str, shape: tuple[int, int, int], batch: int, names: tuple[str, ...], long: int, rounds: int
) -> list[dict[str, Any]]:
    images, labels = material.images_like(shape, batch)
    classifier = material.build(model, shape)
    return [_step_of(name, model, classifier, images, labels, long, rounds) for name in names]


def _step_of(
    name: str, model: str, classifier: keras.Model, images: np.ndarray, labels: np.ndarray, long: int, rounds: int
) -> dict[str, Any]:
    functions: dict[str, Callable[[], Any]] = {"classifier": timing.forward_and_backward(classifier, images, labels)}
    # For the other attacks, whose iterations differ in cost, the mean is reported.
    lengths = (_SHORT, long) if name in _TIMED[:2] else (long,)
    for iterations in lengths:
        made = attacks.make(name, _BALL, iterations=iterations)
        functions[str(iterations)] = timing.attack(made, classifier, images, labels)
    times, first = timing.in_turns(functions, rounds)
    steps = [seconds / long for seconds in times[str(long)]]
    once = None
    if len(lengths) > 1:
        steps = timing.per_iteration(times[str(_SHORT)], times[str(long)], long - _SHORT)
        once = 1e3 * max(timing.median(times[str(_SHORT)]) - _SHORT * timing.median(steps), 0.0)
    return {
        "model": model,
        "batch": len(labels),
        "attack": name,
        "classifier_ms": 1e3 * timing.median(times["classifier"]),
        "iteration_ms": 1e3 * timing.median(steps),
        "iteration / classifier": timing.ratio(steps, times["classifier"]),
        "once_ms": once,
        "first_call_s": first[str(lengths[0])],
    }


def training_steps(quick: bool) -> dict[str, Any]:
    """Times a step of WasserTrain with ten iterations of mirror ascent, and a step of plain training."""
    cases = [("lenet", (28, 28, 1), 128, 7)]
    if not quick:
        cases.append(("resnet18", (32, 32, 3), 16, 3))
    rows = []
    for model, shape, batch, rounds in cases:
        given = tuple(tf.constant(array) for array in material.images_like(shape, batch))
        classifier = material.build(model, shape)
        robust = WasserTrain(material.build(model, shape), attacks.make("mirror_ascent", _BALL, iterations=10))
        functions = {"plain": _train_step(classifier, given), "robust": _train_step(robust, given)}
        times, first = timing.in_turns(functions, rounds)
        rows.append(
            {
                "model": model,
                "batch": batch,
                "plain_ms": 1e3 * timing.median(times["plain"]),
                "wasser_train_ms": 1e3 * timing.median(times["robust"]),
                "wasser_train / plain": timing.ratio(times["robust"], times["plain"]),
                "first_call_s": first["robust"],
            }
        )
    return {"rows": rows}


def _train_step(model: keras.Model, given: tuple[tf.Tensor, ...]) -> Callable[[], Any]:
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(*given)
    step = tf.function(lambda *batch: model.train_step(batch), autograph=False)
    return lambda: step(*given)["loss"]
