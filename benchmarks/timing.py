"""Times functions in turns, so that other load on the machine affects all of them equally."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks.losses import margin
from wasser_tf.models.logits import as_logits_fn

Times = dict[str, list[float]]

Clock = Callable[[], float]


def in_turns(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    clock: Clock = time.perf_counter,
    patience: float = 20.0,
) -> tuple[Times, dict[str, float]]:
    """Calls each function once as a warm-up, then all of them in turns.

    Args:
      functions: The functions by name. Each returns tensors; the call ends when they are computed.
      rounds: Number of turns, at least three.
      clock: Returns the time in seconds.
      patience: Seconds after which no turn after the third starts.

    Returns:
      The seconds of each call, by name, and the seconds of the first calls, which trace and compile.
    """
    first = {name: _seconds(function, clock) for name, function in functions.items()}
    times: Times = {name: [] for name in functions}
    started = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() > started + patience:
            break
        for name, function in functions.items():
            times[name].append(_seconds(function, clock))
    return times, first


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """Returns the median, over the turns, of the ratio of two times."""
    return median(one / two for one, two in zip(numerators, denominators, strict=True))


def per_iteration(short: list[float], long: list[float], iterations: int) -> list[float]:
    """Returns the seconds of one iteration in each turn, from the times of two attacks.

    Args:
      short: Times of the attack with fewer iterations.
      long: Times of the attack with more iterations.
      iterations: The difference of their numbers of iterations.
    """
    return [max(two - one, 1e-9) / iterations for one, two in zip(short, long, strict=True)]


def gradient_in_images(classifier: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the gradient of the margin with respect to the images, as a function of images and labels."""
    logits_fn = as_logits_fn(classifier, True)

    def gradient(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = margin(logits_fn(images), labels)
        return tape.gradient(loss, images)

    return gradient


def forward_and_backward(classifier: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], tf.Tensor]:
    """Returns a function that computes the gradient of the margin with respect to the images, as every attack does."""
    given = tf.constant(images), tf.constant(labels)
    gradient = tf.function(gradient_in_images(classifier), autograph=False)
    return lambda: gradient(*given)


def attack(made: Any, classifier: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], tf.Tensor]:
    """Returns a function that attacks the batch with `made` and returns feasible examples."""
    logits_fn = as_logits_fn(classifier, True)
    given = tf.constant(images), tf.constant(labels)
    run = tf.function(lambda images, labels: made.run(logits_fn, images, labels), autograph=False)
    return lambda: run(*given).adversarial


def _seconds(function: Callable[[], Any], clock: Clock) -> float:
    started = clock()
    for tensor in tf.nest.flatten(function()):
        if hasattr(tensor, "numpy"):
            tensor.numpy()
    return clock() - started
