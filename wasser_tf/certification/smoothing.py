"""Certificates for the Wasserstein ball by randomised smoothing (Levine and Feizi, 2020), for any classifier."""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from wasser_tf.certification import votes
from wasser_tf.certification.flow_noise import FlowNoise, flow_per_cost
from wasser_tf.certification.result import CertificationResult
from wasser_tf.models.classifier import CanonicalClassifier
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch, check_labels
from wasser_tf.runtime import interruption, storage
from wasser_tf.runtime.arguments import as_path, check_fits, is_whole
from wasser_tf.runtime.progress import Bar
from wasser_tf.threat_model import ThreatModel

# A part in 10⁹ of a radius is given away for what float64 rounds in it, and at its very end a vote may be a tie.
_INWARD = 1 - 1e-9
_IMAGES_A_LINE = 64
# The noise, the noisy images, and what makes them.
_COPIES_AT_ONCE = 3


def certify_smoothed(
    classifier: Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    threat_model: ThreatModel,
    *,
    noise: str = "laplace",
    scale: float = 0.01,
    num_samples: int = 10_000,
    num_votes: int = 100,
    alpha: float = 0.05,
    seed: int = 0,
    index: np.ndarray | None = None,
    batch_size: int = 1024,
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> CertificationResult:
    """Certifies the classifier that answers with the majority of a base classifier's votes on noisy images.

    What is certified is that majority in the limit of many votes, not the base classifier. Of each image, num_votes
    samples choose the class, and num_samples others bound its probability from below (Clopper–Pearson). Where that
    bound is not above ½ there is no answer: `predicted` is −1. `margin` is NaN, for logits are not bounded.

    Any window, p, capacity and either budget of the threat model is taken: see docs/design/smoothing.md.

    Args:
      classifier: The base classifier: a Keras model, or any callable (images, training=False) -> [n, classes] that
        takes negative pixels too. It must answer for each image alone, and equally each time it is asked.
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      threat_model: The ball; `certified` is about its epsilon, `radius` in the epsilon's units.
      noise: "laplace" or "uniform".
      scale: Of the noise in units of the image's mass, see `FlowNoise`.
      num_samples: N, the samples that bound the probability. No radius is larger than N samples can prove.
      num_votes: The samples that choose the class.
      alpha: Each certificate is wrong with a probability of at most α.
      seed: Of the noise.
      index: A number for each image, whole numbers of at least 0 [n], on which its noise depends; 0 to n − 1 by
        default.
      batch_size: The most noisy images at a time, no fewer than 64 are taken; it changes no result.
      folder: Where the votes of each image are stored as soon as they are counted. A second call takes those that are
        there, at any α and any threat model.
      name: A name that distinguishes this classifier from others in the folder. A Keras model needs none, because its
        weights distinguish it.
      progress: Takes a line for every 64 images.

    Returns:
      The certificates, each with confidence 1 − α.

    Raises:
      ValueError: The input is not what is needed, or the classifier is random or returns what is not finite.
      Interrupted: The run was asked to stop; the image at work is stored.
    """
    flow_noise = FlowNoise(kind=noise, scale=scale)
    votes.check_vote_settings(num_votes, num_samples, alpha, seed)
    if not isinstance(threat_model, ThreatModel):
        raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {threat_model!r}.")
    if not is_whole(batch_size, 1):
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    seen = prepare_images(classifier, images)
    classifier = seen.classifier
    images, labels = check_batch(classifier, seen.images, labels)
    check_fits(
        _COPIES_AT_ONCE * batch_size * images[0].nbytes,
        f"{batch_size} noisy images of {'×'.join(map(str, images.shape[1:]))}",
        "give a smaller batch_size",
    )
    _check_classifier(classifier, images, labels)
    numbers = _check_index(index, len(images))
    settings = {"noise": noise, "scale": flow_noise.scale, "seed": seed, "votes": num_votes, "samples": num_samples}
    store = None if folder is None else _Store(as_path("folder", folder), _digest_of(classifier, name), settings)
    voter = votes.Voter(classifier, flow_noise, int(seed), int(batch_size))
    predicted, successes = [], []
    with Bar(len(images), "image", "Votes", log=progress, seconds_between_lines=math.inf) as bar:
        for image, number in zip(images, numbers, strict=True):
            counts = None if store is None else store.read(image, number)
            if counts is None:
                counts = (
                    voter.counts(image, number, votes.SELECTION, num_votes),
                    voter.counts(image, number, votes.ESTIMATION, num_samples),
                )
                if store is not None:
                    store.write(image, number, counts)
                interruption.raise_if_requested()
            predicted.append(int(counts[0].argmax()))
            successes.append(int(counts[1][predicted[-1]]))
            bar.update(len(successes))
            if progress and not bar.drawn and (len(successes) % _IMAGES_A_LINE == 0 or len(successes) == len(images)):
                progress(f"{len(successes)} of {len(images)} images voted on")
    return _result(
        flow_noise, threat_model, images, labels, np.array(predicted), np.array(successes), num_samples, alpha
    )


def _result(
    noise: FlowNoise,
    threat_model: ThreatModel,
    images: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    successes: np.ndarray,
    num_samples: int,
    alpha: float,
) -> CertificationResult:
    """Returns what the votes prove.

    Args:
      noise: The noise.
      threat_model: The ball.
      images: [n, H, W, C].
      labels: [n].
      chosen: The classes that the first samples chose, [n].
      successes: How many of the other samples voted for them, [n].
      num_samples: How many of those there were.
      alpha: α.
    """
    probability = votes.lower_confidence_bound(successes, num_samples, alpha)
    predicted = np.where(probability > 0.5, chosen, -1).astype(np.int64)
    correct = predicted == labels
    height, width, channels = images.shape[1:]
    flow = flow_per_cost(threat_model, (height, width, channels))
    masses = images.sum(axis=(1, 2, 3), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.float64(_INWARD) * noise.radius(probability) / np.float64(flow)
    if not threat_model.normalize_mass:
        radius = radius * masses
    # Nothing moves where there is no mass.
    radius = np.where(correct, np.where(masses > 0, radius, np.inf), 0.0)
    return CertificationResult(
        certified=correct & (radius >= threat_model.epsilon),
        radius=radius,
        margin=np.full(len(images), np.nan),
        predicted=predicted,
        correct=correct,
        method=f"randomised smoothing ({noise.kind} {noise.scale:g}, N = {num_samples}, alpha = {alpha:g})",
        confidence=1 - float(alpha),
    )


def _check_classifier(classifier: Callable[..., Any], images: np.ndarray, labels: np.ndarray) -> None:
    """Refuses a classifier that is random, or whose outputs are no logits or probabilities of the labels' classes."""
    some = images[:8]
    try:
        outputs, again = (np.asarray(classifier(some, training=False)) for _ in range(2))
    except TypeError as error:
        raise ValueError(f"The classifier must take (images, training=False), but: {error}.") from error
    if outputs.ndim != 2 or len(outputs) != len(some) or outputs.shape[1] < 2:
        raise ValueError(
            f"The classifier must return [n, classes] with at least 2 classes, got {outputs.shape} for {len(some)} "
            "images."
        )
    if not np.isfinite(outputs).all():
        raise ValueError("The classifier must return finite logits or probabilities, got NaN or Inf.")
    if not np.allclose(outputs, again, rtol=1e-3, atol=1e-5):
        raise ValueError(
            "The classifier must be deterministic, but answers the same images differently each time: votes would not "
            "be independent. Turn its own randomness off with training=False."
        )
    check_labels(labels, len(labels), outputs.shape[1])


def _check_index(index: Any, count: int) -> list[int]:
    numbers = np.arange(count) if index is None else np.asarray(index)
    if numbers.shape != (count,) or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"index must be {count} whole numbers, one for each image, got {index!r}.")
    if numbers.min() < 0 or numbers.max() >= 2**31:
        raise ValueError(f"index must lie from 0 to 2**31 − 1, got {numbers.min()} to {numbers.max()}.")
    return [int(number) for number in numbers]


def _digest_of(classifier: Callable[..., Any], name: str | None) -> str:
    """Returns what tells a classifier from others: its name, and a Keras model's architecture and weights."""
    conversions = ""
    if isinstance(classifier, CanonicalClassifier):
        conversions, classifier = str(classifier.description), classifier.model
    if name is None and not isinstance(classifier, keras.Model):
        raise ValueError("A folder needs a name for a classifier that is no Keras model: give name.")
    digest = hashlib.sha256(f"{name}{conversions}".encode())
    if isinstance(classifier, keras.Model):
        digest.update(json.dumps(keras.saving.serialize_keras_object(classifier), sort_keys=True, default=str).encode())
        for variable in classifier.variables:
            digest.update(np.asarray(variable).tobytes())
    return digest.hexdigest()


class _Store:
    """The votes of images in a folder: a JSON file for each image, which is whole or not there."""

    def __init__(self, folder: pathlib.Path, classifier: str, settings: dict[str, Any]) -> None:
        self._folder, self._classifier, self._settings = folder, classifier, settings
        storage.make_folder(folder)
        storage.remove_leftovers(folder, below=False)

    def read(self, image: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the votes that choose the class and those that bound its probability, or None.

        Raises:
          ValueError: The file holds something else.
        """
        path = self._path(image, index)
        if not path.exists():
            return None
        record = storage.read_json(path)
        try:
            counts = tuple(np.array(record[key], np.int64) for key in ("selection_counts", "estimation_counts"))
        except (KeyError, TypeError, ValueError):
            counts = ()
        wanted = (self._settings["votes"], self._settings["samples"])
        # One that was changed by hand must not become a certificate.
        if [(part.ndim, int(part.sum()), bool((part < 0).any())) for part in counts] != [(1, n, False) for n in wanted]:
            raise ValueError(f"{path} does not hold {wanted[0]} and {wanted[1]} votes: delete it, it is made again.")
        return counts[0], counts[1]

    def write(self, image: np.ndarray, index: int, counts: tuple[np.ndarray, np.ndarray]) -> None:
        """Stores the votes of an image."""
        selection, estimation = (part.tolist() for part in counts)
        record = {"index": index, **self._settings, "selection_counts": selection, "estimation_counts": estimation}
        storage.write_json(self._path(image, index), record)

    def _path(self, image: np.ndarray, index: int) -> pathlib.Path:
        content = json.dumps([self._classifier, self._settings, image.shape], sort_keys=True).encode()
        key = hashlib.sha256(content + np.ascontiguousarray(image).tobytes()).hexdigest()[:16]
        return self._folder / f"{index:06d}-{key}.json"
