"""Checks of attacks: whether their examples can be scored, and whether their plans fit into memory."""

from typing import Any

from wasser_tf.runtime.arguments import check_fits
from wasser_tf.transport.neighbourhood import Support

# Tensors of a plan's size that an attack holds at once: its state, the feasible plan, and intermediate values.
_PLANS_AT_ONCE = 4


def check_in_wasserstein_ball(attack: Any) -> None:
    """Checks that the examples of an attack may be scored as examples in a Wasserstein ball.

    Raises:
      ValueError: It is not an attack, or does not move mass by a plan.
    """
    if not hasattr(attack, "in_wasserstein_ball"):
        raise ValueError(f"attack must be a wasser_tf.attacks.Attack, got {attack!r}.")
    if not attack.in_wasserstein_ball:
        raise ValueError(
            f"{attack.name} is not a Wasserstein attack ({attack.ball()}), so its examples cannot be scored in "
            "a Wasserstein ball: train on it, or call it in your own code, and evaluate with another attack."
        )


def check_memory(support: Support, count: int) -> None:
    """Checks that this machine can hold the plans of a batch, before they are built.

    Args:
      support: The targets to which mass may move.
      count: The number of images that are attacked at a time.

    Raises:
      ValueError: The plans need more than the machine's memory.
    """
    height, width, channels = support.image_shape
    check_fits(
        _PLANS_AT_ONCE * count * support.plan_bytes_per_image,
        f"Plans of {support.num_targets} targets a pixel for {count} images of {height}×{width}×{channels}",
        "give a smaller batch_size (or attack_chunk, in training), or a kernel_size that keeps mass near (5 is usual)",
    )
