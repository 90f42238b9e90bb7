"""Checks that a classifier computes what its layers' rules describe: a certificate holds for nothing else."""

import numpy as np

# Logits further than this below the largest have probabilities of 0 in float32.
_LEAST_LOG_PROBABILITY = -60.0


def check_repeated(outputs: np.ndarray, again: np.ndarray) -> None:
    """Checks that outputs are finite and that a second call returned the same.

    Args:
      outputs: Logits or probabilities of a batch, [n, classes].
      again: Those of a second call with the same images.

    Raises:
      ValueError: They are not.
    """
    if not np.isfinite(outputs).all():
        raise ValueError(
            "The classifier's outputs are not finite for some of the images: correct the classifier, or "
            "leave these out."
        )
    if not np.allclose(outputs, again, rtol=1e-4, atol=1e-4):
        raise ValueError(
            "The classifier answers the same images differently each time, so nothing can be proved about it: "
            "build it without randomness in inference mode, or certify it by smoothing."
        )


def check_against_bounds(outputs: np.ndarray, low: np.ndarray, high: np.ndarray, *, softmax: bool) -> None:
    """Checks that outputs lie in the bounds of the logits at radius 0.

    Args:
      outputs: Logits or, after a softmax, probabilities, float64 [n, classes].
      low: Lower bounds of the logits, [n, classes].
      high: Upper bounds of the logits, [n, classes].
      softmax: Whether the outputs are probabilities.

    Raises:
      ValueError: They do not.
    """
    low, high = np.nan_to_num(low, nan=-np.inf), np.nan_to_num(high, nan=np.inf)
    if softmax:
        # Each probability lies between those of the most unfavourable and the most favourable logits.
        outputs, width = np.log(np.maximum(outputs, 1e-30)), (high - low).max(axis=1, keepdims=True)
        middle = 0.5 * (low + high)
        peak = middle.max(axis=1, keepdims=True)
        log_sum = peak + np.log(np.exp(middle - peak).sum(axis=1, keepdims=True))
        low, high = low - log_sum - width - 1e-3, high - log_sum + width + 1e-3
        low = np.where(low < _LEAST_LOG_PROBABILITY, -np.inf, low)
    if not ((outputs >= low) & (outputs <= high)).all():
        raise ValueError(
            "The classifier's outputs are not those that its layers should give, so nothing is proved about it: it "
            "is not deterministic, or a layer computes something else than its rule in wasser_tf.certification."
        )
