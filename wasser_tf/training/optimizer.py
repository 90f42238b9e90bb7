"""The optimiser of a training, out of its config."""

import keras

from wasser_tf.training.config import TrainConfig

# Of Keras' layers: nothing is to be gained where a weight is no direction but a size.
_NOT_DECAYED = ["bias", "gamma", "beta"]


def make_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimiser of a training of so many steps.

    Its learning rate is a function of the step alone, so that it resumes with the optimiser's count of steps: it rises
    evenly from 0 for the first `config.warmup` of them, then falls to 0 along a cosine.
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
