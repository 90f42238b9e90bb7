"""The certified radius of each image as a graph: no plan within it changes the class the served classifier returns."""

import dataclasses
from typing import Any

import tensorflow as tf

from wasser_tf.certification.arguments import METHODS
from wasser_tf.certification.bounds import Bounds
from wasser_tf.certification.network import Network
from wasser_tf.runtime.arguments import check_number, is_whole
from wasser_tf.threat_model import ThreatModel

# Numbers in the tables of first layers, which the export holds as constants.
_TABLE_ENTRIES = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertifiedProbe:
    """What the signature `certified` proves.

    Attributes:
      threat_model: The rules of the ball; its epsilon is not used.
      method: "ibp" or "crown".
      largest: The largest radius that is tried, > 0; what is certified there gets it.
      rounds: How often the radius is halved: it is at most largest / 2^rounds below the one that could be proved.

    Raises:
      ValueError: A field is out of its range.
    """

    threat_model: ThreatModel
    method: str = "ibp"
    largest: float = 1.0
    rounds: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.threat_model, ThreatModel):
            raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {self.threat_model!r}.")
        if self.method not in METHODS:
            raise ValueError(f"method must be {' or '.join(METHODS)}, got {self.method!r}.")
        check_number("largest", self.largest, above=0)
        if not is_whole(self.rounds, 1):
            raise ValueError(f"rounds must be a whole number of at least 1, got {self.rounds!r}.")

    def get_config(self) -> dict[str, Any]:
        """Returns the fields as plain Python values."""
        return dataclasses.asdict(self)

    def bounds(self, classifier: Any) -> Bounds:
        """Returns the bounds of a classifier, with small tables.

        Raises:
          ValueError: A layer has no rule.
        """
        return Bounds(Network(classifier), self.threat_model, table_entries=_TABLE_ENTRIES)


def certified_radius(probe: CertifiedProbe, bounds: Bounds, images: tf.Tensor, class_id: tf.Tensor) -> tf.Tensor:
    """Bisects the radius within which the answer is proved not to change.

    Args:
      probe: How.
      bounds: Of the classifier.
      images: float32 [n, H, W, C] in [0, 1].
      class_id: The class that the classifier gives each, int [n].

    Returns:
      float32 [n], rounded down; 0 where nothing is proved.
    """
    batch = bounds.prepare(images)
    zero = tf.zeros([tf.shape(images)[0]], tf.float64)

    def holds(radius: tf.Tensor) -> tf.Tensor:
        return bounds.margins(batch, class_id, radius, probe.method) > 0

    def halve(count: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, ...]:
        middle = 0.5 * (low + high)
        good = holds(middle)
        return count + 1, tf.where(good, middle, low), tf.where(good, high, middle)

    largest = zero + probe.largest
    start = (tf.constant(0), tf.where(holds(largest), largest, zero), largest)
    _, low, _ = tf.while_loop(lambda count, low, high: count < probe.rounds, halve, start)
    return tf.cast(low * (1.0 - 2.0**-22), tf.float32)
