"""Bounds by intervals (IBP) for training: float32, differentiable, without the allowance for rounding.

They are the bounds of `Bounds` with the method "ibp" in real numbers, except for the first layers: a unit that is
affine in the image gets the radius ρ Lip(a), and not the exact support function, which is smaller and takes several
times as long. They prove nothing by themselves: a trained classifier is certified by `wasser_tf.certify`.
"""

import math
from typing import Any

import tensorflow as tf

from wasser_tf.certification.arguments import check_ball
from wasser_tf.certification.bounds import frontier_of
from wasser_tf.certification.image_functionals import pull_back_to_image
from wasser_tf.certification.network import Network
from wasser_tf.certification.transforms import Affine, Interval
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.support_function import lipschitz


class DifferentiableBounds:
    """Upper bounds of z_j − z_y over balls, as functions of the weights of a classifier. Graph code.

    Args:
      classifier: A keras.Model made of layers that have a rule (wasser_tf.certification.rules).
      threat_model: The ball; its epsilon is not used.

    Raises:
      ValueError: A layer has no rule.
    """

    def __init__(self, classifier: Any, threat_model: ThreatModel):
        check_ball(threat_model)
        # Bounds are float32 whatever the layers compute in.
        self.network = Network(classifier, any_precision=True)
        self._threat_model = threat_model.rules
        self._frontier = frontier_of(self.network)

    def worst_logits(
        self, images: tf.Tensor, labels: tf.Tensor, epsilon: tf.Tensor, box_fraction: float = 1.0
    ) -> tf.Tensor:
        """Returns upper bounds of z_j − z_y, float32 [B, classes]; 0 for y. The label is certified if all are ≤ 0.

        Args:
          images: [B, H, W, C] in [0, 1].
          labels: y, integers [B].
          epsilon: The radius of each image, [B], or of all, [].
          box_fraction: τ in (0, 1]. Below 1 the bounds are those of a part of the box of the first layers' features:
            of the share τ of its radius, around the centre moved by the rest in the direction of the sign of the
            gradient of the cross-entropy (SABR, Müller et al., ICLR 2023). Then they are no upper bounds.
        """
        if not 0 < box_fraction <= 1:
            raise ValueError(f"box_fraction must lie above 0 and be at most 1, got {box_fraction!r}.")
        images = tf.cast(images, tf.float32)
        mass = tf.reduce_sum(images, [1, 2, 3])
        divisor = tf.where(mass > 0, mass, tf.ones_like(mass))
        known = self._first(images, tf.cast(epsilon, tf.float32), mass, divisor)
        classes = self.network.num_classes
        functional = tf.eye(classes)[None] - tf.one_hot(labels, classes)[:, None]
        if box_fraction < 1:
            known = self._small_boxes(known, functional, labels, divisor, box_fraction)
        return self._highest(known, functional, divisor)

    def _first(
        self, images: tf.Tensor, epsilon: tf.Tensor, mass: tf.Tensor, divisor: tf.Tensor
    ) -> dict[int, tuple[tf.Tensor, tf.Tensor]]:
        """Returns centres and radii of the nodes that are affine in the image and read by others, and of the image."""
        budget = epsilon * mass if self._threat_model.normalize_mass else epsilon * tf.ones_like(mass)
        budget = tf.where(mass > 0, budget, tf.zeros_like(mass))
        found = {0: (images, budget[:, None, None, None] * tf.ones_like(images))}
        values: dict[int, tf.Tensor] = {0: images}
        for number in self._frontier:
            node = self.network.nodes[number]
            share = budget / divisor if node.divided else budget
            steepest = self._lipschitz(number)
            radius = tf.reshape(share[:, None] * steepest, [-1, *node.shape])
            found[number] = (self._value(number, values, divisor), radius)
        return found

    def _value(self, number: int, values: dict[int, tf.Tensor], divisor: tf.Tensor) -> tf.Tensor:
        if number not in values:
            node = self.network.nodes[number]
            inputs = [self._value(read, values, divisor) for read in node.inputs]
            values[number] = _affine(node.transform).apply(inputs, divisor)
        return values[number]

    def _lipschitz(self, number: int) -> tf.Tensor:
        """Returns the Lipschitz constant of each unit, [units]; those of `TransportPotentials` are known to be 1."""
        node = self.network.nodes[number]
        transform = _affine(node.transform)
        if node.inputs == (0,) and transform.lipschitz is not None:
            known = transform.lipschitz(self._threat_model, tf.float32)
            if known is not None:
                return known
        units = math.prod(node.shape)
        each = tf.reshape(tf.eye(units), [units, *node.shape])
        functionals = pull_back_to_image(self.network, {number: each}, tf.ones([units]))
        return lipschitz(functionals, self._threat_model)

    def _small_boxes(
        self,
        known: dict[int, tuple[tf.Tensor, tf.Tensor]],
        functional: tf.Tensor,
        labels: tf.Tensor,
        divisor: tf.Tensor,
        fraction: float,
    ) -> dict[int, tuple[tf.Tensor, tf.Tensor]]:
        centres = {number: tf.stop_gradient(centre) for number, (centre, _) in known.items()}
        with tf.GradientTape() as tape:
            tape.watch(centres)
            points = {number: (centre, tf.zeros_like(centre)) for number, centre in centres.items()}
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self._highest(points, functional, divisor))
        slopes = tape.gradient(loss, centres, unconnected_gradients="zero")
        return {
            number: (centre + (1.0 - fraction) * radius * tf.stop_gradient(tf.sign(slopes[number])), fraction * radius)
            for number, (centre, radius) in known.items()
        }

    def _highest(
        self, known: dict[int, tuple[tf.Tensor, tf.Tensor]], functional: tf.Tensor, divisor: tf.Tensor
    ) -> tf.Tensor:
        """Returns the highest value of functionals [B, M, …] of the logits, [B, M], for boxes of the first nodes."""
        intervals = {number: Interval(centre - radius, centre + radius) for number, (centre, radius) in known.items()}

        def box(number: int) -> tuple[tf.Tensor, tf.Tensor]:
            if number in known:
                return known[number]
            low, high = interval(number)
            return 0.5 * (low + high), 0.5 * (high - low)

        def interval(number: int) -> Interval:
            if number not in intervals:
                node = self.network.nodes[number]
                if isinstance(node.transform, Affine):
                    boxes = [box(read) for read in node.inputs]
                    centre = node.transform.apply([each[0] for each in boxes], divisor)
                    radius = node.transform.linear([each[1] for each in boxes], True, divisor)
                    intervals[number] = Interval(centre - radius, centre + radius)
                else:
                    assert node.transform is not None  # noqa: S101 (only the image has none, and it is known)
                    intervals[number] = node.transform.interval([interval(read) for read in node.inputs], divisor)
            return intervals[number]

        # The last affine layers are merged with the functionals, so that what two logits share cancels.
        open_ones, total = {self.network.output: functional}, tf.zeros(tf.shape(functional)[:2])
        for place in reversed(range(self.network.output + 1)):
            if place not in open_ones:
                continue
            node, current = self.network.nodes[place], open_ones.pop(place)
            if place not in known and isinstance(node.transform, Affine):
                total += self._pull_back(node.transform, current, node.inputs, open_ones, divisor)
            else:
                centre, radius = box(place)
                axes = list(range(2, current.shape.rank))
                total += tf.reduce_sum(current * centre[:, None], axes)
                total += tf.reduce_sum(tf.abs(current) * radius[:, None], axes)
        return total

    def _pull_back(
        self,
        transform: Affine,
        functional: tf.Tensor,
        inputs: tuple[int, ...],
        open_ones: dict[int, tf.Tensor],
        divisor: tf.Tensor,
    ) -> tf.Tensor:
        """Adds functionals of the inputs to `open_ones`; returns the constant, [B, M]."""
        count, axes = functional.shape[1], list(range(2, functional.shape.rank))
        flat = tf.reshape(functional, [-1, *functional.shape[2:]])
        shapes = [self.network.nodes[read].shape for read in inputs]
        found = transform.pull_back_exactly(flat, shapes, tf.repeat(divisor, count))
        for read, part in zip(inputs, found, strict=True):
            part = tf.reshape(part, [-1, count, *part.shape[1:]])
            open_ones[read] = open_ones[read] + part if read in open_ones else part
        if transform.offset is None:
            return tf.zeros(tf.shape(functional)[:2])
        return tf.reduce_sum(functional * transform.offset(functional.dtype), axes)


def _affine(transform: Any) -> Affine:
    assert isinstance(transform, Affine)  # noqa: S101 (for mypy: `affine_in_image` says so)
    return transform
