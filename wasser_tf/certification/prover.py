"""`certify`: deterministic certificates of a Keras classifier on images."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.certification.arguments import METHODS, check_ball, check_batch_size, check_method, radii_of
from wasser_tf.certification.bounds import Batch, Bounds
from wasser_tf.certification.network import Network
from wasser_tf.certification.output_checks import check_against_bounds, check_repeated
from wasser_tf.certification.result import CertificationResult
from wasser_tf.certification.smoothed import Smoothed
from wasser_tf.models.classifier import Classifier
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch
from wasser_tf.models.layered import as_layers
from wasser_tf.runtime.arguments import check_number
from wasser_tf.runtime.progress import Bar
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.support_function import largest_cost

# The method of a `Smoothed` classifier.
SMOOTHING = "smoothing"
# CROWN holds a functional of every unit for every image of a batch.
_CROWN_BATCH = 8
# "auto" tries CROWN on so many images, and takes it where it proves this much more than IBP.
_PROBES, _WORTHWHILE = 8, 1.1
# Beyond so many numbers in one image's functionals, "auto" does not try CROWN: it would take minutes an image.
_MOST_CROWN_ENTRIES = 2**24
# The radius is bisected to this share of ε, or of the largest cost of a plan where ε is 0.
_RESOLUTION, _FINE_RESOLUTION = 1 / 200, 2.0**-14
# The smallest ε: below, the rounding of float32 is larger than what can be moved.
_LEAST_EPSILON = 1e-9


def certify(
    classifier: Any,
    images: np.ndarray,
    labels: np.ndarray,
    threat_model: ThreatModel,
    *,
    method: str = "auto",
    batch_size: int = 256,
    resolution: float | None = None,
    radii: Sequence[float] = (),
    progress: Callable[[str], None] | None = None,
) -> CertificationResult:
    """Proves that no feasible transport plan of small cost changes a classifier's answer.

    A `Smoothed` classifier is certified by votes on noisy images, and each certificate holds with the probability
    `confidence`, 1 − alpha. Any other is certified by bounds through its layers, with confidence 1. These bounds are
    those of a larger ball, without the capacity, and of what the classifier computes in float32; see
    docs/design/certification.md for what is proved and how.

    Args:
      classifier: A keras.Model made of layers that have a rule (wasser_tf.certification.rules), from images [n, H, W,
        C] in [0, 1] to logits or, by a softmax, probabilities [n, classes]; or a `wasser_tf.Classifier` around a model
        of another range, order or output. Radii are those of images in [0, 1].
      images: Float [n, H, W, C] in [0, 1], or as the classifier takes them.
      labels: Class indices [n], or one-hot [n, classes].
      threat_model: The ball, and ε.
      method: "ibp" (intervals: fast, tight on networks trained by it), "crown" (linear bounds: tighter on others, and
        hundreds of times as slow), "smoothing" (of a `Smoothed` classifier), or "auto": smoothing for a `Smoothed`
        classifier; else CROWN where it proves more on the first images and the network is small, or IBP.
      batch_size: Images at a time; it bounds memory and does not change the result.
      resolution: How far the radius may be below the largest provable one, > 0; by default a 200th of ε (of the largest
        cost of a plan, if ε is larger), or for ε = 0 2⁻¹⁴ of that cost. Not of smoothing, whose radius is a formula.
      radii: Radii, each ≥ 0, at which every image is tried itself, so that the share certified there does not depend on
        the resolution; ε always is one. Smoothing does not need them.
      progress: Is given a line for each batch.

    Returns:
      The certificates.

    Raises:
      ValueError: A layer has no rule, the classifier is not deterministic, an answer is not finite, or an argument is
        not what is needed; the message says how to correct it.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = wasser_tf.load_pretrained("digits_certified")
    >>> ball = wasser_tf.ThreatModel(epsilon=0.05)
    >>> result = wasser_tf.certify(classifier, test.images[:8], test.labels[:8], ball)
    >>> result.method, int(result.correct.sum()), int(result.certified.sum())
    ('ibp', 8, 8)
    """
    if method not in (*METHODS, SMOOTHING, "auto"):
        raise ValueError(f"method must be ibp, crown, smoothing or auto, got {method!r}.")
    if isinstance(classifier, Smoothed):
        return _by_votes(classifier, images, labels, threat_model, method, batch_size, resolution, progress)
    if method == SMOOTHING:
        raise ValueError(
            f"method={method!r} needs a wasser_tf.Smoothed classifier, which specifies the noise, got a "
            f"{type(classifier).__name__}: wrap it in wasser_tf.Smoothed."
        )
    classifier = getattr(classifier, "classifier", classifier)
    if isinstance(classifier, (keras.Model, Classifier)):
        seen = prepare_images(classifier, images)
        classifier, images = as_layers(seen.classifier), seen.images
    prover = Prover(classifier, threat_model, batch_size=batch_size)
    images, labels = prover.check(images, labels)
    chosen = prover.choose(images, labels) if method == "auto" else method
    return prover.certify(images, labels, chosen, resolution, progress, radii)


def _by_votes(
    classifier: Smoothed,
    images: np.ndarray,
    labels: np.ndarray,
    threat_model: ThreatModel,
    method: str,
    batch_size: int,
    resolution: float | None,
    progress: Callable[[str], None] | None,
) -> CertificationResult:
    if method not in (SMOOTHING, "auto"):
        raise ValueError(
            f"A Smoothed classifier has no bounds by {method}: give method={SMOOTHING!r}, or certify its "
            "base_classifier, which is another classifier."
        )
    if resolution is not None:
        raise ValueError(f"resolution is for deterministic methods, got {resolution!r} with smoothing: leave it out.")
    return classifier.certify(images, labels, threat_model, batch_size=batch_size, progress=progress)


class Prover:
    """Certifies any number of images with one classifier: weights are read, and functions compiled, once.

    Attributes:
      bounds: Of the classifier.
      threat_model: The ball, and ε.

    Raises:
      ValueError: As `certify`.
    """

    def __init__(
        self, classifier: Any, threat_model: ThreatModel, *, batch_size: int = 256, dtype: tf.DType = tf.float64
    ):
        check_ball(threat_model)
        check_batch_size(batch_size)
        self._classifier = getattr(classifier, "classifier", classifier)
        self.threat_model = threat_model
        self.bounds = Bounds(Network(self._classifier), threat_model, dtype)
        self._batch_size = batch_size
        self._prepare = tf.function(self.bounds.prepare, autograph=False)
        self._margins = tf.function(self.bounds.margins, autograph=False)
        self._logits = tf.function(self.bounds.logits, autograph=False)
        most = largest_cost(threat_model, self.bounds.network.image_shape)
        if threat_model.epsilon and not _LEAST_EPSILON <= threat_model.epsilon < 1e9:
            raise ValueError(
                f"epsilon must be 0 or from {_LEAST_EPSILON:g} to 1e9 to be certified, got {threat_model.epsilon:g}: "
                f"below, float32's rounding outweighs it, and no plan of this ball moves mass further than {most:g}."
            )

    def check(self, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns images as float32 [n, H, W, C] and labels as int32 [n].

        Raises:
          ValueError: They are not what the classifier takes.
        """
        return check_batch(self._classifier, images, labels)

    def choose(self, images: np.ndarray, labels: np.ndarray) -> str:
        """Returns "crown" where it proves more than IBP on the first images that are classified right, else "ibp"."""
        network = self.bounds.network
        sizes = [math.prod(node.shape) for node in network.nodes if not node.affine_in_image]
        widest = max(math.prod(node.shape) for node in network.nodes)
        if not sizes or sum(sizes) * widest > _MOST_CROWN_ENTRIES:
            return "ibp"
        images, labels = images[: 4 * _PROBES], labels[: 4 * _PROBES]
        right = np.flatnonzero(self._predict(images)[1] == labels)[:_PROBES]
        if not len(right):
            return "ibp"
        images, labels = images[right], labels[right]
        radius = self.certify(images, labels, "ibp").radius
        finite = np.where(np.isfinite(radius), radius, 0.0)
        tried = np.maximum(_WORTHWHILE * finite, (self.threat_model.epsilon or 1.0) * _RESOLUTION)
        better = self.margins(images, labels, tried, "crown") > 0
        return "crown" if better[np.isfinite(radius)].mean() > 0.5 else "ibp"

    def certify(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        method: str,
        resolution: float | None = None,
        progress: Callable[[str], None] | None = None,
        radii: Sequence[float] = (),
    ) -> CertificationResult:
        """Certifies checked images by "ibp" or "crown"; see the function `certify`."""
        check_method(method)
        if resolution is not None:
            check_number("resolution", resolution, above=0)
        for given in radii:
            check_number("radii", given, least=0)
        if not len(images):
            raise ValueError("images must hold at least one image, got none.")
        size, parts = self._size(len(images), method), []
        with Bar(len(images), "image", "Certification", log=progress, seconds_between_lines=math.inf) as bar:
            for start in range(0, len(images), size):
                stop = min(start + size, len(images))
                rows = np.minimum(np.arange(start, start + size), len(images) - 1)
                found = self._certify_batch(images[rows], labels[rows], method, resolution, radii)
                parts.append([field[: stop - start] for field in found])
                bar.update(stop)
                if progress and not bar.drawn:
                    progress(f"{stop} of {len(images)} images, {sum(part[0].sum() for part in parts)} certified")
        fields = [np.concatenate(field) for field in zip(*parts, strict=True)]
        certified, radius, margin, predicted, correct = fields
        return CertificationResult(certified, radius, margin, predicted, correct, method, 1.0)

    def margins(self, images: np.ndarray, labels: np.ndarray, epsilon: Any, method: str) -> np.ndarray:
        """Returns lower bounds of the margins of checked images at a radius, or one for each, float64 [n]."""
        check_method(method)
        epsilon = radii_of(epsilon, len(images))
        size, parts = self._size(len(images), method), []
        for start in range(0, len(images), size):
            rows = np.minimum(np.arange(start, start + size), len(images) - 1)
            batch = self._prepare(tf.constant(images[rows]))
            parts.append(self._bounded(batch, tf.constant(labels[rows]), epsilon[rows], method))
        return np.concatenate(parts)[: len(images)]

    def _size(self, count: int, method: str) -> int:
        size = min(self._batch_size, _CROWN_BATCH) if method == "crown" else self._batch_size
        return min(size, 1 << (count - 1).bit_length())

    def _bounded(self, batch: Batch, labels: tf.Tensor, epsilon: np.ndarray, method: str) -> np.ndarray:
        # CROWN's last bound can be looser than that of intervals; both are right.
        epsilon = tf.constant(epsilon)
        found = self._margins(batch, labels, epsilon, "ibp").numpy().astype(np.float64)
        if method == "crown":
            found = np.maximum(found, self._margins(batch, labels, epsilon, "crown").numpy())
        return found

    def _certify_batch(
        self, images: np.ndarray, labels: np.ndarray, method: str, resolution: float | None, radii: Sequence[float]
    ) -> tuple[np.ndarray, ...]:
        batch, answers = self._prepare(tf.constant(images)), tf.constant(labels)
        predicted = self._predict(images, batch)[1]
        correct = predicted == labels

        def holds(epsilon: np.ndarray) -> np.ndarray:
            return correct & (self._bounded(batch, answers, epsilon, method) > 0)

        epsilon = self.threat_model.epsilon
        margin = self._bounded(batch, answers, np.full(len(images), epsilon), method)
        certified = correct & (margin > 0)
        radius = self._radii(images, certified, holds, resolution, radii)
        return certified, radius, margin, predicted, correct

    def _radii(
        self,
        images: np.ndarray,
        certified: np.ndarray,
        holds: Callable,
        resolution: float | None,
        radii: Sequence[float],
    ) -> np.ndarray:
        """Returns the largest radius proved for each image, by doubling and bisection, of all images at once."""
        epsilon = self.threat_model.epsilon
        mass = images.sum(axis=(1, 2, 3), dtype=np.float64)
        # A budget of this binds no plan, and a certificate at it is one at every radius.
        most = largest_cost(self.threat_model, self.bounds.network.image_shape) * (1 + 1e-6)
        most = np.maximum(np.full(len(images), most) if self.threat_model.normalize_mass else most * mass, 0.0)
        largest = float(most.max())
        resolution = resolution or min(epsilon, largest) * _RESOLUTION or largest * _FINE_RESOLUTION or _RESOLUTION
        low = np.where(certified, np.minimum(epsilon, most), 0.0)
        high = np.where(certified, np.inf, min(epsilon, float("inf")))
        # Whoever is certified at ε goes on to what binds nothing.
        at_most = holds(most)
        low, high = np.where(at_most, np.inf, low), np.where(np.isinf(high), most, np.minimum(high, most))
        if epsilon == 0:
            high = most
        # Where nothing holds at 0, for rounding or a wrong answer, nothing is to be found.
        open_ones = ~at_most & (certified | holds(np.zeros(len(images))))
        for given in sorted(radii):
            if np.any(within := open_ones & (low < given) & (given < high)):
                good = holds(np.where(within, given, 0.0))
                low, high = np.where(within & good, given, low), np.where(within & ~good, given, high)
        while np.any(open_ones := open_ones & (high - low > resolution)):
            middle = 0.5 * (low + high)
            # From ε upwards by doubling, since most radii are not far above.
            tried = np.where((low > 0) & (high >= most), np.minimum(2 * low, middle), middle)
            tried = np.where(open_ones, tried, 0.0)
            good = holds(tried)
            low = np.where(open_ones & good, tried, low)
            high = np.where(open_ones & ~good, tried, high)
        return np.where(certified | (low > 0), low, 0.0)

    def _predict(self, images: np.ndarray, batch: Batch | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the classifier's outputs and classes, and checks that they are those that are proved about.

        Raises:
          ValueError: They are not finite, change from call to call, or differ from those of the layers' rules.
        """
        outputs, again = (
            np.asarray(self._classifier(tf.constant(images), training=False), np.float64) for _ in range(2)
        )
        check_repeated(outputs, again)
        if batch is not None:
            found = self._logits(batch, tf.zeros(len(outputs), tf.float64))
            low, high = (side.numpy().astype(np.float64) for side in found)
            check_against_bounds(outputs, low, high, softmax=self.bounds.network.softmax)
        return outputs, outputs.argmax(axis=1)
