"""The optimizer of a training run."""

from typing import Any

import keras
import tensorflow as tf

from wasser_tf.training.config import TrainConfig

# Names in Keras' layers of offsets and scales, which weight decay does not regularize.
_NOT_DECAYED = ["bias", "gamma", "beta"]


@keras.saving.register_keras_serializable(package="wasser_tf")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that decays to 0 along a line, after an optional warmup: with one, a one-cycle policy.

    Its arguments are those of `keras.optimizers.schedules.CosineDecay`.

    Attributes:
      initial_learning_rate: The learning rate of step 0.
      decay_steps: The number of steps of the decay.
      warmup_target: The learning rate at the end of the warmup, or None for no warmup.
      warmup_steps: The number of steps of the warmup.

    Example:
    >>> rate = LinearDecay(0.0, 8, warmup_target=1.0, warmup_steps=2)
    >>> [float(rate(step)) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        *,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the learning rate of a step, float32 []."""
        step, rising = tf.cast(step, tf.float32), tf.cast(self.warmup_steps, tf.float32)
        peak = self.initial_learning_rate if self.warmup_target is None else self.warmup_target
        left = tf.clip_by_value(1.0 - (step - rising) / tf.cast(self.decay_steps, tf.float32), 0.0, 1.0)
        risen = self.initial_learning_rate + (peak - self.initial_learning_rate) * tf.math.divide_no_nan(step, rising)
        return tf.where(step < rising, risen, peak * left)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            name: getattr(self, name)
            for name in ("initial_learning_rate", "decay_steps", "warmup_target", "warmup_steps")
        }


def make_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that a config describes.

    The learning rate rises linearly from 0 over the fraction `config.warmup` of the steps, then decays to 0 along a
    cosine or a line (`config.decay`). It depends on the step only and so resumes with the optimizer's count of steps.

    Args:
      config: The settings of the run.
      steps: The number of steps of the training.
    """
    settings: dict[str, object] = {}
    if config.optimizer.lower() == "sgd":
        settings = {"momentum": config.momentum, "nesterov": config.momentum > 0}
    if config.weight_decay:
        settings["weight_decay"] = config.weight_decay
    optimizer = keras.optimizers.get({"class_name": config.optimizer, "config": settings})
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    rising = min(round(config.warmup * steps), steps - 1)
    schedule = LinearDecay if config.decay == "linear" else keras.optimizers.schedules.CosineDecay
    if rising > 0:
        optimizer.learning_rate = schedule(0.0, steps - rising, warmup_target=config.learning_rate, warmup_steps=rising)
    else:
        optimizer.learning_rate = schedule(config.learning_rate, max(1, steps))
    return optimizer
