"""The state of a training whose ε or ω follow a schedule: the step it is at, and the values there."""

import math
from typing import Any

import keras
import tensorflow as tf

from wasser_tf.training.schedules import check_scheduled_value, counts_epochs, schedule_value

STEPS_NEEDED = (
    "The schedule of {} counts epochs, but the number of steps of an epoch is not known (single batches and data of "
    "unknown length have none): pass steps_per_epoch to WasserTrain, or give the schedule a length in steps."
)
# The largest value of each setting that may follow a schedule.
MOST = {"epsilon": math.inf, "omega": 1.0, "kappa": 1.0, "exponent": 1.0}


class Curriculum(keras.Layer):
    """Scalars that are saved with the model: so a training that is resumed goes on at the step where it was.

    The graph of a training step reads them, and so is traced once.

    Attributes:
      step: The number of steps that were trained, int64.
      steps_per_epoch: The number of steps of an epoch, int64; 0 as long as it is not known.
      epsilon: ε of the last step, float32.
      omega: ω of the last step, float32.
      kappa: κ of the last step, float32; only with a schedule of it.
      exponent: q of the last step, float32; only with a schedule of it.
    """

    def __init__(self, schedules: dict[str, Any], steps_per_epoch: int | None, **kwargs: Any):
        """Makes the scalars.

        Args:
          schedules: The schedules, by the name of the setting.
          steps_per_epoch: The number of steps of an epoch, if it is known.
          **kwargs: Arguments of `keras.Layer`.
        """
        super().__init__(trainable=False, autocast=False, **kwargs)
        step = tf.constant(0, tf.int64)
        first = {name: float(schedule_value(one, step, step + 1)) for name, one in schedules.items()}
        self.step = self._scalar("step", "int64", 0)
        self.steps_per_epoch = self._scalar("steps_per_epoch", "int64", steps_per_epoch or 0)
        self.epsilon = self._scalar("epsilon", "float32", first.get("epsilon", 0.0))
        self.omega = self._scalar("omega", "float32", first.get("omega", 0.0))
        for name in ("kappa", "exponent"):
            if name in first:
                setattr(self, name, self._scalar(name, "float32", first[name]))
        self.built = True

    def _scalar(self, name: str, dtype: str, value: float) -> Any:
        start = keras.initializers.Constant(value)
        # All replicas have the same values.
        return self.add_weight(name=name, shape=(), dtype=dtype, initializer=start, aggregation="only_first_replica")

    def values(self, schedules: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the values of schedules at the present step, by the name of the setting.

        Args:
          schedules: The schedules, by the name of the setting.
        """
        step, steps_per_epoch = (tf.convert_to_tensor(variable) for variable in (self.step, self.steps_per_epoch))
        return {name: schedule_value(one, step, steps_per_epoch) for name, one in schedules.items()}

    def advance(self, schedules: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the values of the present step, keeps them, and goes on to the next step. Graph code.

        Raises:
          ValueError: A schedule counts epochs, and the number of steps of an epoch is not known.
        """
        if counting := [name for name, one in schedules.items() if counts_epochs(one)]:
            # Outside the graph that is being traced.
            with tf.init_scope():
                known = int(self.steps_per_epoch.numpy()) > 0
            if not known:
                raise ValueError(STEPS_NEEDED.format(" and ".join(counting)))
        values = self.values(schedules)
        for name, value in values.items():
            getattr(self, name).assign(value)
        self.step.assign_add(1)
        return values

    def last_values(self, schedules: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the values of the last step, by the name of the setting."""
        return {name: tf.convert_to_tensor(getattr(self, name)) for name in schedules}

    def callback(self, schedules: dict[str, Any], steps_per_epoch: int | None) -> keras.callbacks.Callback:
        """Returns what `fit` needs; see `CurriculumCallback`."""
        return CurriculumCallback(self, schedules, steps_per_epoch)


class CurriculumCallback(keras.callbacks.Callback):
    """What a curriculum needs within `fit`: the number of steps of an epoch, and a look at the values of callables."""

    def __init__(self, curriculum: Curriculum, schedules: dict[str, Any], steps_per_epoch: int | None):
        """Makes the callback.

        Args:
          curriculum: The state.
          schedules: The schedules, by the name of the setting.
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
            raise ValueError(STEPS_NEEDED.format(" and ".join(counting)))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the values of the step that follows.

        Raises:
          ValueError: One is out of its range.
        """
        del epoch, logs
        self._check(self._curriculum.values(self._schedules))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the values of the last step of the epoch, as `on_epoch_begin` does."""
        del epoch, logs
        self._check(self._curriculum.last_values(self._schedules))

    def _check(self, values: dict[str, tf.Tensor]) -> None:
        for name, value in values.items():
            check_scheduled_value(name, float(value), MOST[name], self._schedules[name])
