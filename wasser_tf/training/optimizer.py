"""The optimizer of a training run."""

import keras

from wasser_tf.training.config import TrainConfig

# Names in Keras' layers of offsets and scales, which weight decay does not regularize.
_NOT_DECAYED = ["bias", "gamma", "beta"]


def make_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that a config describes.

    The learning rate rises linearly from 0 over the fraction `config.warmup` of the steps, then decays to 0 along a
    cosine. It depends on the step only and so resumes with the optimizer's count of steps.

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
    schedule = keras.optimizers.schedules.CosineDecay
    if rising > 0:
        optimizer.learning_rate = schedule(0.0, steps - rising, warmup_target=config.learning_rate, warmup_steps=rising)
    else:
        optimizer.learning_rate = schedule(config.learning_rate, max(1, steps))
    return optimizer
