"""Checks of the settings of WasserTrain, and of the numbers of its images."""

import numbers
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.data.pixel_sources import PixelSources
from wasser_tf.models.inputs import check_images, num_classes
from wasser_tf.models.step_checks import check_step_labels
from wasser_tf.runtime.arguments import check_bool, check_number, is_whole
from wasser_tf.training.curriculum import MOST
from wasser_tf.training.schedules import check_schedule
from wasser_tf.training.warm_start import Numbers

_INPUTS = ({"image"}, {"image", "number"}, {"image", "number", "rows", "columns"})


def images_and_numbers(x: Any) -> tuple[Any, Numbers | None]:
    """Splits the input of a step into images and their numbers.

    Args:
      x: Images, or a dict of "image" and, optionally, "number"; of augmented images also "rows" and "columns".

    Returns:
      The images, and which training images they are, or None.

    Raises:
      ValueError: The dict has other keys.
    """
    if not isinstance(x, dict):
        return x, None
    if set(x) not in _INPUTS:
        raise ValueError(
            f'x must be images, or {{"image": images, "number": numbers}}, of augmented images with "rows" and '
            f'"columns" (wasser_tf.data.pixel_sources), got the keys {sorted(x)}.'
        )
    if "number" not in x:
        return x["image"], None
    return x["image"], Numbers(x["number"], PixelSources(x["rows"], x["columns"]) if "rows" in x else None)


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
    *, attack: Any, omega: Any, epsilon: Any, attack_chunk: Any, random_radius: Any, trades_beta: Any, matching: Any
) -> None:
    """Checks the settings of `WasserTrain` that can be changed at any time; see there for their meaning.

    Raises:
      ValueError: A setting is out of its range, or the attack does not support another setting.
    """
    if not isinstance(attack, Attack):
        raise ValueError(
            f"attack must be a wasser_tf.attacks.Attack such as WasserAttack(ThreatModel()), got {attack!r}."
        )
    if callable(omega):
        check_schedule("omega", omega, most=MOST["omega"])
    else:
        check_number("omega", omega, least=0, most=1)
    check_epsilon(epsilon, attack)
    if attack_chunk is not None and not is_whole(attack_chunk, 1):
        raise ValueError(f"attack_chunk must be a whole number of at least 1, or None, got {attack_chunk!r}.")
    check_bool("random_radius", random_radius)
    if random_radius and attack.schedule is not None:
        raise ValueError("random_radius needs an attack without a schedule, which sets the radius itself.")
    check_has_radius(random_radius, attack)
    check_number("trades_beta", trades_beta, least=0)
    check_number("matching", matching, least=0)


def check_epsilon(epsilon: Any, attack: Attack) -> None:
    """Checks the radius of training, if it is not the attack's.

    Raises:
      ValueError: It is not a number or schedule of at least 0, or the attack does not take a radius.
    """
    if epsilon is None:
        return
    if callable(epsilon):
        check_schedule("epsilon", epsilon, most=MOST["epsilon"])
    else:
        check_number("epsilon", epsilon, least=0)
    if not attack.has_radius or attack.schedule is not None:
        why = "sets the radius itself" if attack.has_radius else "has no radius"
        raise ValueError(f"epsilon needs an attack with a radius, and {attack.name} {why}: leave epsilon out.")


def check_steps_per_epoch(steps_per_epoch: Any) -> None:
    """Raises an error unless a number of steps of an epoch is valid.

    Raises:
      ValueError: It is not a whole number of at least 1, nor None.
    """
    if steps_per_epoch is not None and not is_whole(steps_per_epoch, 1):
        raise ValueError(f"steps_per_epoch must be a whole number of at least 1, or None, got {steps_per_epoch!r}.")


def check_scope(model: keras.Model) -> None:
    """Checks that a model was made in the scope of the distribution strategy that it is compiled for.

    Raises:
      ValueError: A weight was not.
    """
    strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else model.distribute_strategy
    if strategy is None:
        return
    outside = [weight.path for weight in model.weights if not strategy.extended.variable_created_in_scope(weight.value)]
    if outside:
        raise ValueError(
            f"The weight {outside[0]!r} was made outside the scope of the {type(strategy).__name__} that the model is "
            "compiled in: build or load the classifier, and make WasserTrain, within `with strategy.scope():`."
        )


def can_perturb(attack: Attack, epsilon: Any) -> bool:
    """Returns whether an attack can change an image, at a radius or schedule in the place of its own, or None."""
    if epsilon is None:
        return attack.can_perturb
    return attack.iterations > 0 and (callable(epsilon) or epsilon > 0)


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


def checked_dataset(model: Any, data: Any) -> Any:
    """Returns a dataset that raises the errors of `check_images` and `check_step_labels` itself, where no step can.

    Args:
      model: The WasserTrain.
      data: The argument x of `fit`. If XLA compiles the steps and it is a `tf.data.Dataset` of (images, labels) or
        (images, labels, sample weights), its batches are checked; anything else is returned as it is.
    """
    if not isinstance(data, tf.data.Dataset) or not model.compiled or not model.jit_compile:
        return data
    classes = num_classes(model.classifier)

    def check(x: Any, y: Any, *rest: Any) -> Any:
        image = check_images(images_and_numbers(x)[0])
        return {**x, "image": image} if isinstance(x, dict) else image, check_step_labels(y, classes), *rest

    element = data.element_spec
    # Others are refused by the step.
    return data.map(check) if isinstance(element, tuple) and len(element) in (2, 3) else data
