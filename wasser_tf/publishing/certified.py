"""Certified accuracies of leaderboard entries: how they are made, checked and shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf.reporting.bracket import Bracket
from wasser_tf.reporting.certification import Certification, Certified
from wasser_tf.threat_model import ThreatModel

# Another machine rounds differently, and so may classify an image in a thousand differently.
_SAME_ACCURACY = 1e-3


def certified_part(certified: Certified, radii: Sequence[float]) -> dict[str, Any]:
    """Returns the "certified" part of an entry: the certified accuracy at each radius, and how it was proved.

    Args:
      certified: The certificates of the images of the entry.
      radii: The radii of the entry's robust accuracies.
    """
    bracket = Bracket(certified.radius)
    return {
        "accuracy": {f"{radius:g}": bracket.certified_share(radius) for radius in radii},
        "median_radius": float(np.quantile(certified.radius, 0.5, method="inverted_cdf")),
        "method": certified.method,
        "confidence": certified.confidence,
    }


def check_certified(entry: Mapping[str, Any]) -> None:
    """Checks that no certified accuracy of an entry is above the robust accuracy at the same radius.

    Raises:
      ValueError: One is, so the certificates or the attack are wrong.
    """
    for radius, share in entry.get("certified", {}).get("accuracy", {}).items():
        robust = entry["robust_accuracy"].get(radius)
        if robust is not None and share > robust:
            raise ValueError(
                f"The certified accuracy of {entry['name']} at ε = {radius} is {100 * share:g} %, above its robust "
                f"accuracy of {100 * robust:g} % on the same images: an attack fooled certified images, so one of the "
                "two is wrong. Report it, and do not publish this entry."
            )


def add_certified(entry: Mapping[str, Any], certification: Certification) -> dict[str, Any]:
    """Returns a stored entry with the certified accuracies of a certification of the same images.

    Args:
      entry: The entry; its classifier must be one of the certification's.
      certification: The certificates.

    Raises:
      ValueError: The certificates are those of another classifier, of other images or of another ball, or one of the
        certified accuracies is above the robust accuracy.
    """
    certified = certification.classifiers.get(entry["fingerprint"])
    if certified is None:
        raise ValueError(f"{certification.folder} does not certify {entry['name']}: add it to bin/certify.py --models.")
    certification.check_ball(ThreatModel.from_config({**entry["threat_model"], "epsilon": 0.0}))
    difference = _difference(entry, certified, certification)
    if difference:
        raise ValueError(
            f"{certification.folder} certifies other images than those on which {entry['name']} was attacked "
            f"({difference}): certify the same ones."
        )
    found = {**entry, "certified": certified_part(certified, [float(radius) for radius in entry["robust_accuracy"]])}
    check_certified(found)
    return found


def _difference(entry: Mapping[str, Any], certified: Certified, certification: Certification) -> str:
    """Returns how the images differ; empty if they do not."""
    if certification.images != entry["dataset"]:
        return f"{certification.images}, and the entry has {entry['dataset']}"
    if len(certified.radius) != entry["num_images"]:
        return f"{len(certified.radius):,}, and the entry has {entry['num_images']:,}"
    # Entries of older versions have no digest. The order does not change a share, but it changes the digest.
    if entry.get("images_digest", certification.images_digest) != certification.images_digest:
        return "of the same number, but with another digest: the same images in another order have another one too"
    if abs(certified.natural_accuracy - entry["natural_accuracy"]) > _SAME_ACCURACY:
        return (
            f"natural accuracy {100 * certified.natural_accuracy:g} %, and the entry has "
            f"{100 * entry['natural_accuracy']:g} %"
        )
    return ""


def certified_by(entry: Mapping[str, Any]) -> str:
    """Describes how an entry was certified, in words; empty without certificates.

    Example:
    >>> certified_by({"certified": {"method": "ibp", "confidence": 1.0, "median_radius": 0.12}})
    'ibp, median certified radius 0.12'
    """
    part = entry.get("certified")
    if part is None:
        return ""
    words = f"{part['method']}, median certified radius {float(part['median_radius']):.3g}"
    if part["confidence"] < 1:
        words += f", each certificate with a probability of {part['confidence']:g}"
    return words
