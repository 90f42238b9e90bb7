"""Checks of the fields of `TrainConfig`; each raises a ValueError that gives the name and the value."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras

from wasser_tf.attacks import Attack
from wasser_tf.runtime.arguments import check_number, check_whole, is_whole


def whole(least: int, most: int | None = None) -> Callable[[str, Any], None]:
    """Returns the check of a whole number between two bounds."""
    return functools.partial(check_whole, least=least, most=most)


def number(**bounds: Any) -> Callable[[str, Any], None]:
    """Returns the check of a number; see `check_number`."""
    return functools.partial(check_number, **bounds)


def whole_or_none(name: str, value: Any) -> None:
    """Refuses all but None and whole numbers of at least 1."""
    if value is not None and not is_whole(value, 1):
        raise ValueError(f"{name} must be a whole number of at least 1, or None, got {value!r}.")


def positive_or_none(name: str, value: Any) -> None:
    """Refuses all but None and numbers above 0."""
    if value is not None:
        check_number(name, value, above=0)


def folder(name: str, value: Any) -> None:
    """Refuses all but paths."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be the path of a folder, got {value!r}.")


def attack_object(name: str, value: Any) -> None:
    """Refuses all but attacks."""
    if not isinstance(value, Attack):
        raise ValueError(f"{name} must be a wasser_tf.attacks.Attack, got {value!r}.")


def attack_of_fixed_radius_or_none(name: str, value: Any) -> None:
    """Refuses all but None and attacks of a fixed radius."""
    if value is not None and not (isinstance(value, Attack) and value.schedule is None):
        raise ValueError(f"{name} must be a wasser_tf.attacks.Attack of a fixed radius, or None, got {value!r}.")


def optimizer_name(name: str, value: Any) -> None:
    """Refuses all but names of Keras optimizers."""
    # An instance would create variables and so start TensorFlow, before a multi-worker strategy can be made.
    known = {key.lower() for key, kind in vars(keras.optimizers).items() if isinstance(kind, type)}
    if not isinstance(value, str) or value.lower() not in known - {"optimizer", "lossscaleoptimizer"}:
        raise ValueError(f"{name} must be the name of a Keras optimizer, such as adam, adamw or sgd, got {value!r}.")


def as_radii(given: Any) -> tuple[float, ...]:
    """Returns radii as floats, so that equal runs have equal configs; flags give them as text."""
    try:
        radii = tuple(float(radius) for radius in given)
    except (TypeError, ValueError):
        radii = ()
    ascending = all(one < two for one, two in itertools.pairwise(radii))
    if not radii or not ascending or not all(0 < radius < math.inf for radius in radii):
        raise ValueError(f"radii must be ascending numbers above 0 such as 0.1, 0.3, 0.5, got {given!r}.")
    return radii
