"""What every prover returns, deterministic or randomised."""

from typing import NamedTuple

import numpy as np


class CertificationResult(NamedTuple):
    """Certificates for a batch of n images.

    Attributes:
      certified: Whether the answer is right and proved to stay right in the whole ball of radius ε, bool [n].
      radius: The largest radius that was proved, in the units of the threat model's epsilon, float64 [n]: 0 where the
        answer is wrong or the prover abstains; infinite where no radius, however large, can change the answer.
      margin: A lower bound, over the ball of radius ε, of z_y − max_{j≠y} z_j, the logit of the label less the largest
        other one, float64 [n]. An image is certified where it is above 0. NaN of methods that do not bound logits.
      predicted: The class of the image itself, int64 [n].
      correct: Whether that class is the label, bool [n].
      method: How it was proved: "ibp", "crown" or the name of a randomised method with its noise.
      confidence: The probability with which each certificate holds: 1.0 for a deterministic method, 1 − α otherwise.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = wasser_tf.load_pretrained("digits_certified")
    >>> ball = wasser_tf.ThreatModel(epsilon=0.05)
    >>> result = wasser_tf.certify(classifier, test.images[:8], test.labels[:8], ball)
    >>> bool((result.radius[result.certified] >= 0.05).all()), result.confidence
    (True, 1.0)
    """

    certified: np.ndarray
    radius: np.ndarray
    margin: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    method: str
    confidence: float
