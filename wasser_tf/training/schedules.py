"""Schedules of ε and ω over a training: curricula, as functions of the step.

A schedule counts the steps of training from 0, or epochs as step / (steps of an epoch). ε and ω may also follow any
callable, such as one of `keras.optimizers.schedules`: f(step), or f(step, steps_per_epoch).
"""

import abc
import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from typing import Any, Self

import keras
import tensorflow as tf

from wasser_tf.runtime.arguments import check_number

Scheduled = Callable[..., Any]
SPEC = (
    "linear:START:END:LENGTH or cosine:START:END:LENGTH or staircase:VALUE:VALUE:…:LENGTH, where LENGTH is such as "
    "10epochs or 500steps (of a staircase, that of one stair)"
)


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
    """A value that changes over a training. It is immutable and comparable, and a model that has it can be saved.

    Attributes:
      epochs: Its length in epochs, which need not be whole; or None.
      steps: Its length in steps; or None. One of the two is given.
    """

    epochs: float | None = dataclasses.field(default=None, kw_only=True)
    steps: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"{type(self).__name__} needs its length, either epochs=… or steps=…, got epochs={self.epochs!r} and "
                f"steps={self.steps!r}."
            )
        for name in ("epochs", "steps"):
            if (value := getattr(self, name)) is not None:
                check_number(f"{name} of {type(self).__name__}", value, above=0)
        for value in self.values_to_check():
            check_number(f"A value of {type(self).__name__}", value)

    def __call__(self, step: Any, steps_per_epoch: Any) -> tf.Tensor:
        """Returns `value`, as other callables do."""
        return self.value(step, steps_per_epoch)

    @abc.abstractmethod
    def values_to_check(self) -> tuple[float, ...]:
        """Returns values between the smallest and largest of which, both included, all others lie."""

    @abc.abstractmethod
    def at(self, progress: tf.Tensor) -> tf.Tensor:
        """Returns the value after `progress` lengths, a float32 scalar of at least 0. Graph code."""

    @property
    def needs_epochs(self) -> bool:
        """Whether the value depends on the number of steps of an epoch."""
        return self.epochs is not None

    def value(self, step: Any, steps_per_epoch: Any = None) -> tf.Tensor:
        """Returns the value at a step. May be called in a graph.

        Args:
          step: The number of steps before it, an integer scalar.
          steps_per_epoch: The number of steps of an epoch. Only needed where the length is in epochs.

        Returns:
          A float32 scalar.

        Raises:
          ValueError: The length is in epochs, and steps_per_epoch is None.
        """
        length: Any = self.steps
        if self.epochs is not None:
            if steps_per_epoch is None:
                raise ValueError(f"{self!r} counts epochs, and needs steps_per_epoch, the number of steps of one.")
            length = self.epochs * tf.cast(steps_per_epoch, tf.float64)
        # In float32, step 2²⁴ equals the next one, and a stair may end a step late.
        progress = tf.cast(step, tf.float64) / length
        return tf.cast(self.at(progress), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Returns the fields as plain Python values."""
        config = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes the schedule that `get_config` described."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="wasser_tf")
@dataclasses.dataclass(frozen=True)
class LinearRamp(Schedule):
    """A value that moves evenly from `start` to `end`, and stays there.

    Example:
    >>> float(LinearRamp(0.0, 0.3, epochs=10).value(step=500, steps_per_epoch=100))
    0.15000000596046448
    """

    start: float
    end: float

    def values_to_check(self) -> tuple[float, ...]:
        """Returns start and end."""
        return self.start, self.end

    def at(self, progress: tf.Tensor) -> tf.Tensor:
        """Returns start + (end − start) · min(progress, 1)."""
        return self.start + (self.end - self.start) * tf.minimum(progress, 1.0)


@keras.saving.register_keras_serializable(package="wasser_tf")
@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """A value that moves from `start` to `end` along half a period of a cosine, slow at both ends, and stays there.

    Example:
    >>> float(Cosine(0.0, 0.5, epochs=10).value(step=500, steps_per_epoch=100))
    0.25
    """

    start: float
    end: float

    def values_to_check(self) -> tuple[float, ...]:
        """Returns start and end."""
        return self.start, self.end

    def at(self, progress: tf.Tensor) -> tf.Tensor:
        """Returns start + (end − start) · (1 − cos(π · min(progress, 1))) / 2."""
        return self.start + (self.end - self.start) * 0.5 * (1 - tf.cos(math.pi * tf.minimum(progress, 1.0)))


@keras.saving.register_keras_serializable(package="wasser_tf")
@dataclasses.dataclass(frozen=True)
class Staircase(Schedule):
    """A value that is constant on each stair, and stays at the last. The length is that of one stair.

    Attributes:
      values: The value of each stair.

    Example:
    >>> [float(Staircase((0.0, 0.25, 0.5), steps=100).value(step)) for step in (99, 100, 1000)]
    [0.0, 0.25, 0.5]
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "values", tuple(self.values))
        except TypeError as error:
            raise ValueError(f"values of Staircase must be a list of numbers, got {self.values!r}.") from error
        if not self.values:
            raise ValueError("values of Staircase must hold at least one number, got none.")
        super().__post_init__()

    def values_to_check(self) -> tuple[float, ...]:
        """Returns all values."""
        return self.values

    def at(self, progress: tf.Tensor) -> tf.Tensor:
        """Returns the value of stair number ⌊progress⌋, or the last."""
        # Clipped before the cast, which large numbers do not survive.
        stair = tf.cast(tf.minimum(tf.floor(progress), len(self.values) - 1.0), tf.int32)
        return tf.gather(tf.constant(self.values, tf.float64), stair)


def parse_schedule(text: str) -> Schedule:
    """Reads a schedule, as flags have it.

    Raises:
      ValueError: It is not one; the message shows the format.

    Example:
    >>> parse_schedule("linear:0:0.3:10epochs")
    LinearRamp(epochs=10.0, steps=None, start=0.0, end=0.3)
    """
    kind, *values = [part.strip() for part in str(text).split(":")]
    length = values.pop() if values else ""
    found = re.fullmatch(r"([0-9.eE+-]+?) *(epoch|step)s?", length)
    try:
        numbers = [float(value) for value in values]
        given: dict[str, Any] = {f"{found[2]}s": float(found[1])} if found else {}
        if found and kind == "staircase" and numbers:
            return Staircase(tuple(numbers), **given)
        if found and kind in _RAMPS and len(numbers) == 2:
            return _RAMPS[kind](*numbers, **given)
    except ValueError as error:
        raise ValueError(f"A schedule is given as {SPEC}, got {text!r} ({error}).") from error
    raise ValueError(f"A schedule is given as {SPEC}, got {text!r}.")


def check_schedule_text(name: str, text: str | None, *, most: float = math.inf) -> None:
    """Checks a schedule as flags have it, or None.

    Raises:
      ValueError: `parse_schedule` or `check_schedule` refuses it.
    """
    if text is not None:
        check_schedule(name, parse_schedule(text), most=most)


def schedule_value(schedule: Any, step: Any, steps_per_epoch: Any) -> tf.Tensor:
    """Returns the value of a `Schedule` or any other callable at a step, a float32 scalar. May be called in a graph.

    Args:
      schedule: The schedule.
      step: The number of steps before it, an int64 scalar.
      steps_per_epoch: The number of steps of an epoch.
    """
    if isinstance(schedule, Schedule):
        return schedule.value(step, steps_per_epoch)
    arguments = (step, steps_per_epoch)[: _argument_count(schedule)]
    # With autograph, so that Python's `if` and `min` work on the step.
    return tf.cast(tf.reshape(tf.function(schedule)(*map(tf.convert_to_tensor, arguments)), []), tf.float32)


def counts_epochs(schedule: Any) -> bool:
    """Returns whether a schedule needs the number of steps of an epoch. Numbers and None do not."""
    if isinstance(schedule, Schedule):
        return schedule.needs_epochs
    return callable(schedule) and _argument_count(schedule) == 2


def check_schedule(name: str, schedule: Any, *, most: float = math.inf) -> None:
    """Checks that a schedule is one, and that its values are finite and from 0 to `most`.

    Args:
      name: What it is the schedule of.
      schedule: A `Schedule`, or any other callable, of which only the value at step 0 is looked at.
      most: The largest value that is allowed.

    Raises:
      ValueError: It is not.
    """
    if not callable(schedule):
        raise ValueError(
            f"{name} must be a schedule such as wasser_tf.LinearRamp(0, 0.3, epochs=10), or a callable of the step, "
            f"got {schedule!r}."
        )
    if isinstance(schedule, Schedule):
        values = schedule.values_to_check()
    else:
        try:
            values = (float(schedule_value(schedule, tf.constant(0, tf.int64), tf.constant(1, tf.int64))),)
        except Exception as error:
            raise ValueError(
                f"{name} must be a callable of the step, or of the step and steps_per_epoch, that returns one number. "
                f"{schedule!r} at step 0 raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error
    for value in values:
        check_scheduled_value(name, value, most, schedule)


def check_scheduled_value(name: str, value: float, most: float, schedule: Any) -> None:
    """Checks one value of a schedule.

    Raises:
      ValueError: It is not finite, or not from 0 to `most`.
    """
    if not math.isfinite(value) or not 0 <= value <= most:
        allowed = "a finite number of at least 0" if most == math.inf else f"a number from 0 to {most:g}"
        raise ValueError(f"{name} must be {allowed} at every step, got {value:g} from {schedule!r}.")


_RAMPS: dict[str, Callable[..., Schedule]] = {"linear": LinearRamp, "cosine": Cosine}


def _argument_count(schedule: Callable[..., Any]) -> int:
    """Returns how many of (step, steps_per_epoch) a callable takes: two if it requires two, otherwise one."""
    try:
        parameters = inspect.signature(schedule).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(one.kind in positional and one.default is inspect.Parameter.empty for one in parameters)
    return 2 if required >= 2 else 1
