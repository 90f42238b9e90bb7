"""The step that mirror ascent and WasserAttack share where the user gives none.

The price of the budget is what a step must be measured by: where λ is large, a step of the same size changes the plan
more. It is not known before the gradient, but the multiplier of the plan of largest entropy, λ_0, goes with it. Steps
are multiples of the image's largest gradient, which stands out more where there are more pixels, so large images need
longer ones (docs/log/mirror_ascent.md).
"""

import math

import tensorflow as tf

from wasser_tf.transport.gibbs import guess_multiplier

# Without these, fewer than 10 iterations would take steps that are too long.
_MORE_ITERATIONS = 10
_LEAST_MULTIPLIER = 0.3
# Values of an image above which the step grows with their number.
_GROWS_ABOVE = 3072


def relative_step(
    iterations: int, images: tf.Tensor, budget: tf.Tensor, steeper_below: float | None = None
) -> tf.Tensor:
    """Returns 1 / √((iterations + 10) λ_0) with λ_0 at least 0.3, [B, 1, 1, 1].

    For images of n > 3,072 values it is (n / 3072)^¼ times as long.

    Args:
      iterations: The number of iterations of the attack.
      images: float32 in [0, 1], [B, H, W, C].
      budget: The largest ⟨Π, C⟩ of each image, [B].
      steeper_below: Below this, b, a λ_0 counts as λ_0 (λ_0 / b)², so that the step grows faster with the budget.
    """
    multiplier = guess_multiplier(images, budget)
    if steeper_below is not None:
        multiplier *= tf.minimum(multiplier / steeper_below, 1.0) ** 2
    multiplier = tf.maximum(multiplier, _LEAST_MULTIPLIER)
    longer = max(math.prod(images.shape[1:]) / _GROWS_ABOVE, 1.0) ** 0.25
    return longer * tf.math.rsqrt((iterations + _MORE_ITERATIONS) * multiplier)
