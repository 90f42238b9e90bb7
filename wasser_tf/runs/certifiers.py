"""How a saved classifier is certified: by bounds through its layers, or by votes on noisy images."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from wasser_tf.certification import votes
from wasser_tf.certification.flow_noise import FlowNoise
from wasser_tf.certification.prover import SMOOTHING, Prover
from wasser_tf.certification.result import CertificationResult
from wasser_tf.certification.smoothed import Smoothed
from wasser_tf.certification.smoothing import certify_smoothed
from wasser_tf.models import as_layers
from wasser_tf.models.classifier import CanonicalClassifier
from wasser_tf.models.inputs import check_batch
from wasser_tf.threat_model import ThreatModel

_DEFAULTS: dict[str, Any] = {
    "noise": "laplace",
    "scale": 0.01,
    "num_samples": 10_000,
    "num_votes": 100,
    "alpha": 0.05,
    "seed": 0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothingSettings:
    """Settings of randomised smoothing. None: that of a `Smoothed` classifier, or its default for another.

    Attributes:
      noise: "laplace" or "uniform".
      scale: In units of the image's mass: the standard deviation σ for Laplace noise, the half-width λ for uniform.
      num_samples: N, the votes that bound the probability of the class.
      num_votes: The votes that choose the class.
      alpha: The probability that a certificate is wrong, at most.
      seed: Of the noise.

    Raises:
      ValueError: A field is out of its range.
    """

    noise: str | None = None
    scale: float | None = None
    num_samples: int | None = None
    num_votes: int | None = None
    alpha: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        self.complete(None)

    def complete(self, classifier: Any) -> dict[str, Any]:
        """Returns all settings for a classifier; those that are None are its own or the defaults."""
        found = dict(_DEFAULTS)
        if isinstance(classifier, Smoothed):
            own = {name: getattr(classifier, name) for name in ("num_samples", "num_votes", "alpha", "seed")}
            found |= {**own, "noise": classifier.noise.kind, "scale": classifier.noise.scale}
        found |= {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        FlowNoise(kind=found["noise"], scale=found["scale"])
        votes.check_vote_settings(found["num_votes"], found["num_samples"], found["alpha"], found["seed"])
        return found


class Certifier(Protocol):
    """Certifies the images of one classifier, some at a time.

    Attributes:
      settings: Everything that the certificates depend on, apart from the classifier, the images and the ball.
    """

    settings: dict[str, Any]

    def check(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images as float32 [n, H, W, C] and labels as int32 [n]."""

    def choose(self, images: np.ndarray, labels: np.ndarray) -> str:
        """Returns the method, which may depend on the first of the images."""

    def certify(self, images: np.ndarray, labels: np.ndarray, index: np.ndarray, method: str) -> CertificationResult:
        """Certifies checked images; `index` holds the position of each image in its split."""


class ByBounds:
    """Deterministic certificates."""

    def __init__(
        self,
        classifier: Any,
        threat_model: ThreatModel,
        method: str,
        resolution: float | None,
        radii: Sequence[float],
        size: int,
    ):
        self._prover = Prover(classifier, threat_model, batch_size=size)
        self._method, self._resolution, self._radii = method, resolution, radii
        self.settings = {"method": method, "resolution": resolution, "radii": list(radii)}

    def check(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns checked images and labels."""
        return self._prover.check(images, labels)

    def choose(self, images: np.ndarray, labels: np.ndarray) -> str:
        """Returns the method."""
        return self._prover.choose(images, labels) if self._method == "auto" else self._method

    def certify(self, images: np.ndarray, labels: np.ndarray, index: np.ndarray, method: str) -> CertificationResult:
        """Certifies checked images."""
        del index
        return self._prover.certify(images, labels, method, self._resolution, radii=self._radii)


class ByVotes:
    """Certificates that hold with a probability of 1 − α. The votes of each image are stored in a folder."""

    def __init__(
        self, classifier: Any, threat_model: ThreatModel, given: SmoothingSettings, name: str, folder: pathlib.Path
    ):
        smoothing = given.complete(classifier)
        self._classifier = classifier.base_classifier if isinstance(classifier, Smoothed) else classifier
        self._threat_model, self._smoothing = threat_model, smoothing
        self._name, self._folder = name, folder
        self.settings = {"method": SMOOTHING, **smoothing}

    def check(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns checked images and labels."""
        return check_batch(self._classifier, images, labels)

    def choose(self, images: np.ndarray, labels: np.ndarray) -> str:
        """Returns the method."""
        del images, labels
        return SMOOTHING

    def certify(self, images: np.ndarray, labels: np.ndarray, index: np.ndarray, method: str) -> CertificationResult:
        """Certifies checked images."""
        del method
        return certify_smoothed(
            self._classifier,
            images,
            labels,
            self._threat_model,
            **self._smoothing,
            index=index,
            name=self._name,
            folder=self._folder,
        )


def make_certifier(
    classifier: Any,
    threat_model: ThreatModel,
    *,
    name: str,
    mark: str,
    method: str,
    resolution: float | None,
    radii: Sequence[float],
    smoothing: SmoothingSettings,
    batch_size: int,
    folder: pathlib.Path,
) -> Certifier:
    """Returns what certifies a classifier.

    Args:
      classifier: From `load_checked`.
      threat_model: The ball; its epsilon is where the search for deterministic radii starts.
      name: What messages call the classifier.
      mark: The fingerprint of the classifier and of what was given about it; votes are stored under it.
      method: "auto", "ibp", "crown" or "smoothing". A `Smoothed` classifier is certified by smoothing.
      resolution: Of deterministic radii.
      radii: Where deterministic methods try each image itself.
      smoothing: The settings of smoothing.
      batch_size: Images at a time.
      folder: Of the votes.

    Raises:
      ValueError: The classifier cannot be certified by this method.
    """
    model = classifier.model if isinstance(classifier, CanonicalClassifier) else classifier
    smoothed = isinstance(model, Smoothed)
    if smoothed and model is not classifier:
        raise ValueError(
            f"{name} is a Smoothed classifier, which takes images in [0, 1] and returns shares of votes: leave out "
            "what is given about its input and output."
        )
    if method == SMOOTHING or (smoothed and method == "auto"):
        return ByVotes(classifier, threat_model, smoothing, mark, folder)
    if smoothed:
        raise ValueError(f"{name} is a Smoothed classifier, which has no bounds by {method}: give --method=smoothing.")
    return ByBounds(as_layers(classifier), threat_model, method, resolution, radii, batch_size)
