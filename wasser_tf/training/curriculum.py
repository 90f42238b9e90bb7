"""The state of a training whose ε or ω follow a schedule: the step it is at, and the values there."""

import math
from typing import Any

import keras
import tensorflow as tf

from wasser_tf.training.schedules import check_scheduled_value, counts_epochs, schedule_value

# The largest value of each setting that may follow a schedule.
MOST = {"epsilon": math.inf, "omega": 1.0}


class Curriculum(keras.Layer):
    """Four scalars that are saved with the model: so a training that is resumed goes on at the step where it was.

    The graph of a training step reads them, and so is traced once.

    Attributes:
      step: The number of steps that were trained, int64.
      steps_per_epoch: The number of steps of an epoch, int64; 0 as long as it is not known.
      epsilon: ε of the last step, float32.
      omega: ω of the last step, float32.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(trainable=False, autocast=False, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Makes the scalars."""
        del input_shape
        # All replicas have the same values.
        usual: dict[str, Any] = {"shape": (), "initializer": "zeros", "aggregation": "only_first_replica"}
        self.step = self.add_weight(name="step", dtype="int64", **usual)
        self.steps_per_epoch = self.add_weight(name="steps_per_epoch", dtype="int64", **usual)
        self.epsilon = self.add_weight(name="epsilon", dtype="float32", **usual)
        self.omega = self.add_weight(name="omega", dtype="float32", **usual)
        self.built = True

    def values(self, schedules: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the values of schedules at the present step, by the name of the setting.

        Args:
          schedules: The schedule of "epsilon", of "omega", or of both.
        """
        step, steps_per_epoch = (tf.convert_to_tensor(variable) for variable in (self.step, self.steps_per_epoch))
        return {name: schedule_value(one, step, steps_per_epoch) for name, one in schedules.items()}

    def advance(self, schedules: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the values of the present step, keeps them, and goes on to the next step. Graph code."""
        values = self.values(schedules)
        for name, value in values.items():
            getattr(self, name).assign(value)
        self.step.assign_add(1)
        return values

    def last_values(self, schedules: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the values of the last step, by the name of the setting."""
        return {name: tf.convert_to_tensor(getattr(self, name)) for name in schedules}


class CurriculumCallback(keras.callbacks.Callback):
    """What a curriculum needs within `fit`: the number of steps of an epoch, and a look at the values of callables."""

    def __init__(self, curriculum: Curriculum, schedules: dict[str, Any], steps_per_epoch: int | None):
        """Makes the callback.

        Args:
          curriculum: The state.
          schedules: The schedule of "epsilon", of "omega", or of both.
          steps_per_epoch: The number of steps of an epoch; None for that of `fit`.
        """
        super().__init__()
        self._curriculum, self._schedules, self._steps_per_epoch = curriculum, schedules, steps_per_epoch

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Sets the number of steps of an epoch.

        Raises:
          ValueError: A schedule counts epochs, and `fit` does not know their number of steps.
        """
        del logs
        steps = self._steps_per_epoch or self.params.get("steps")
        if steps:
            self._curriculum.steps_per_epoch.assign(steps)
        elif counting := [name for name, one in self._schedules.items() if counts_epochs(one)]:
            raise ValueError(
                f"The schedule of {' and '.join(counting)} counts epochs, and data of unknown length does not have a "
                "number of steps: pass steps_per_epoch to WasserTrain, or give the schedule a length in steps."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the values of the step that follows.

        Raises:
          ValueError: One is out of its range.
        """
        del epoch, logs
        self.check()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the values of the last step of the epoch, as `on_epoch_begin` does."""
        del epoch, logs
        for name, value in self._curriculum.last_values(self._schedules).items():
            check_scheduled_value(name, float(value), MOST[name], self._schedules[name])

    def check(self) -> None:
        """Does what `on_epoch_begin` does."""
        for name, value in self._curriculum.values(self._schedules).items():
            check_scheduled_value(name, float(value), MOST[name], self._schedules[name])
