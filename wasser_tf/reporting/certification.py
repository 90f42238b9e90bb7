"""The stored results of bin/certify.py: the certified radius of each image, and how it was proved."""

import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.fingerprint import array_digest
from wasser_tf.runtime.run_files import REPORT, Schema, read_document
from wasser_tf.threat_model import ThreatModel


class Certified(NamedTuple):
    """The certificates of one classifier.

    Attributes:
      radius: The certified radius of each image, [n]: 0 where the answer is wrong.
      natural_accuracy: The share of images that the classifier answers correctly.
      method: "ibp", "crown", or a randomised method with its noise, N and α.
      confidence: The probability with which each certificate holds: 1 for a deterministic method.
    """

    radius: np.ndarray
    natural_accuracy: float
    method: str
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Returns plain Python values."""
        return {**self._asdict(), "radius": [float(radius) for radius in self.radius]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Certified":
        """Returns the certificates that `to_json` described."""
        return cls(**{**values, "radius": np.array(list(map(float, values["radius"])))})


@dataclasses.dataclass(frozen=True, eq=False)
class Certification:
    """The certificates of a run.

    Attributes:
      folder: Where they are stored.
      images: The name of the images, such as "mnist test".
      images_digest: A hash of the images and labels, in their order.
      threat_model: The ball; its epsilon is not used.
      classifiers: The certificates, by the fingerprint of the classifier's file.
    """

    folder: str
    images: str
    images_digest: str
    threat_model: ThreatModel
    classifiers: dict[str, Certified]

    def check(self, images: Selection, threat_model: ThreatModel) -> None:
        """Checks that the certificates are those of some images and of a ball.

        Raises:
          ValueError: They are not.
        """
        if self.images_digest != array_digest(images.images, images.labels):
            raise ValueError(
                f"{self.folder} certifies other images than these {len(images.labels)} of {images.name}: give "
                "bin/certify.py the same flags of images as here."
            )
        self.check_ball(threat_model)

    def check_ball(self, threat_model: ThreatModel) -> None:
        """Checks that the certificates are those of a ball.

        Raises:
          ValueError: They are not.
        """
        if self.threat_model.rules != threat_model.rules:
            raise ValueError(
                f"{self.folder} certifies another ball ({self.threat_model.rules}), and {threat_model.rules} is "
                "needed: give bin/certify.py the same flags of the ball as here."
            )


def read_certification(folder: str | os.PathLike[str]) -> Certification:
    """Reads the certificates of a run.

    Args:
      folder: The output_dir of bin/certify.py.

    Raises:
      ValueError: The folder holds no certification.
    """
    path = pathlib.Path(folder).expanduser() / REPORT
    if not path.exists():
        raise ValueError(f"{folder} holds no certification, for {REPORT} is missing: run bin/certify.py first.")
    stored = read_document(path, Schema.CERTIFICATION_REPORT)
    return Certification(
        str(folder),
        stored["images"],
        stored["images_digest"],
        ThreatModel.from_config({**stored["config"]["threat_model"], "epsilon": 0.0}),
        {values["fingerprint"]: _certified(values) for values in stored["models"].values()},
    )


def _certified(values: dict[str, Any]) -> Certified:
    radius = np.array(list(map(float, values["radius"])))
    return Certified(radius, float(np.mean(values["correct"])), values["method"], float(values["confidence"]))
