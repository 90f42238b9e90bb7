"""Checks of the settings of WasserTrain, and of the numbers of its images."""

import numbers
from collections.abc import Iterator
from typing import Any

import keras

from wasser_tf.attacks import Attack
from wasser_tf.runtime.arguments import check_bool, check_number, is_whole


def images_and_numbers(x: Any) -> tuple[Any, Any]:
    """Splits the input of a step into images and their numbers.

    Args:
      x: Images, or a dict of "image" and, optionally, "number".

    Returns:
      The images, and their numbers in the training set, integers [B], or None.

    Raises:
      ValueError: The dict has other keys.
    """
    if not isinstance(x, dict):
        return x, None
    if not {"image"} <= set(x) <= {"image", "number"}:
        raise ValueError(f'x must be images, or {{"image": images, "number": numbers}}, got the keys {sorted(x)}.')
    return x["image"], x.get("number")


def check_has_radius(random_radius: bool, attack: Attack) -> None:
    """Raises an error if random radii are set for an attack without a radius.

    Raises:
      ValueError: The attack has no radius.
    """
    if random_radius and not attack.has_radius:
        raise ValueError(
            f"random_radius needs an attack that has a radius, and {attack.name} has none: leave random_radius out, or "
            "choose another attack."
        )


def check_training_settings(
    *, attack: Any, omega: Any, attack_chunk: Any, random_radius: Any, trades_beta: Any
) -> None:
    """Checks the settings of `WasserTrain` that can be changed at any time; see there for their meaning.

    Raises:
      ValueError: A setting is out of its range, or the attack does not support another setting.
    """
    if not isinstance(attack, Attack):
        raise ValueError(
            f"attack must be a wasser_tf.attacks.Attack such as WasserAttack(ThreatModel()), got {attack!r}."
        )
    check_number("omega", omega, least=0, most=1)
    if attack_chunk is not None and not is_whole(attack_chunk, 1):
        raise ValueError(f"attack_chunk must be a whole number of at least 1, or None, got {attack_chunk!r}.")
    check_bool("random_radius", random_radius)
    if random_radius and attack.schedule is not None:
        raise ValueError("random_radius needs an attack without a schedule, which sets the radius itself.")
    check_has_radius(random_radius, attack)
    check_number("trades_beta", trades_beta, least=0)


def is_real(value: Any) -> bool:
    """Returns whether a value is a real number of Python or NumPy."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def dtype_policy(classifier: keras.Model) -> Any:
    """Returns the policy of the classifier, or mixed_float16, which scales the loss, if any of its layers uses it."""
    return "mixed_float16" if "float16" in set(_compute_dtypes(classifier)) else classifier.dtype_policy


def _compute_dtypes(layer: keras.Layer) -> Iterator[str]:
    yield layer.compute_dtype
    for inner in getattr(layer, "layers", ()):
        yield from _compute_dtypes(inner)
