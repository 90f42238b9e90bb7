"""How far what is computed may be from what is proved: a rigorous bound of all rounding, part of every certificate.

A classifier runs in float32, and a proof about real numbers says nothing about its answer by itself. A sum of n
products in any order is off by at most γ_n Σ|products|, γ_n = nu / (1 − nu), with the unit roundoff u (Higham,
"Accuracy and stability of numerical algorithms", section 3.1). So each affine layer of the classifier returns

    W x + b + δ,    |δ| ≤ γ (|W| |x| + |b|),

and δ is treated as one more thing that may vary: bounds hold for what the classifier computes, not only for the network
it stands for. The same γ, with the unit of the bounds' own type (float64 by default) added to u, covers the arithmetic
of the bounds: whatever they round is a sum of the same magnitudes |W| |x|. First layers and linear functionals are
computed in float64, intervals of later layers by two float32 products, so that γ is that of 2u there.

Not covered: convolutions by transforms (Winograd, FFT), which TensorFlow takes on no CPU, and libraries that are told
to be inaccurate.
"""

import math

import tensorflow as tf

# What underflows is lost, for TensorFlow flushes it to 0: at most the smallest normal number, 2^-126, doubled.
TINY = 2.0**-125
# Elementary functions (tanh, exp, erf, …) are taken to be right to 16 units in the last place of float32.
ELEMENTARY = 2.0**-19
# The relative excess of the budget: for costs of plans in float32, in which attacks and examples are measured.
BUDGET_EXCESS = 1e-6
# Two probabilities differ in float32 if their logits do by so much.
SOFTMAX_MARGIN = 2.0**-20
_FLOAT32_UNIT = 2.0**-24
_TF32_PRODUCT = 2.0**-10


def unit(dtype: tf.DType) -> float:
    """Returns the unit roundoff of float32 or float64."""
    return 2.0**-53 if tf.as_dtype(dtype) == tf.float64 else _FLOAT32_UNIT


def gamma(terms: int, dtype: tf.DType) -> float:
    """Returns the relative error of a sum of so many products, in float32 by the classifier and in `dtype` by us.

    Args:
      terms: The most roundings between an input and the result; 0 for what only copies.
      dtype: What the bounds are computed in.

    Returns:
      γ; infinite where there are too many terms for any bound.
    """
    if not terms:
        return 0.0
    # Ours are a few more: the centre and radius of an interval, the magnitude, the sum of parts.
    rounded = (terms + 8) * (_FLOAT32_UNIT + unit(dtype))
    if rounded >= 0.5:
        return math.inf
    reduced = _TF32_PRODUCT if _uses_tf32() else 0.0
    return 1.01 * (rounded / (1.0 - rounded) + reduced)


def _uses_tf32() -> bool:
    return bool(tf.config.list_physical_devices("GPU")) and tf.config.experimental.tensor_float_32_execution_enabled()
