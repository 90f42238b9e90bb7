"""Times things against one another, in turns, so that what else the machine does falls on all of them alike."""

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
    """Calls each function once to warm it up, then all of them in turns.

    Args:
      functions: By name. Each returns tensors, which are waited for.
      rounds: How many turns, or three where they take long.
      clock: Gives seconds.
      patience: After so many seconds three turns are enough.

    Returns:
      The seconds of each call by name, and those of each first call, in which functions are traced and compiled.
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
    """Returns the median of the ratios of each turn."""
    return median(one / two for one, two in zip(numerators, denominators, strict=True))


def per_iteration(short: list[float], long: list[float], iterations: int) -> list[float]:
    """Returns what one iteration takes in each turn, given an attack twice, `long` with so many iterations more."""
    return [max(two - one, 1e-9) / iterations for one, two in zip(short, long, strict=True)]


def gradient_in_images(classifier: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the gradient of the margin in the images, as a function of images and labels."""
    logits_fn = as_logits_fn(classifier, True)

    def gradient(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = margin(logits_fn(images), labels)
        return tape.gradient(loss, images)

    return gradient


def forward_and_backward(classifier: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], tf.Tensor]:
    """Returns a function that takes the gradient of the margin in the images: what any attack must do in a step."""
    given = tf.constant(images), tf.constant(labels)
    gradient = tf.function(gradient_in_images(classifier), autograph=False)
    return lambda: gradient(*given)


def attack(made: Any, classifier: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], tf.Tensor]:
    """Returns a function that attacks the batch as `made` does, from clean images to feasible ones."""
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
