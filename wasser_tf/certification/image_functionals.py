"""Exact bounds of what is affine in the image: the support function of many functionals on many images.

Each unit k of the first layers is a functional a_k of the image, composed of all affine layers before it. Its bounds
over the ball are a_k · x + b_k ± h(±a_k; x, ρ), and for a fixed λ the sum in h over a batch is a product of matrices,
x · G_λ (transport/support_function.py). Each unit gets the λ = τ Lip(a_k) for a few τ, once for all images and radii; a
radius then costs one minimum over them.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.certification import arithmetic
from wasser_tf.certification.network import Network
from wasser_tf.certification.transforms import Affine, Interval
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.support_function import c_transform, largest_cost, lipschitz

# λ as shares of Lip(a), the best first; 1 itself needs no table. Of more units than that, only the first three.
_SHARES = (0.5, 0.75, 0.25, 0.9, 0.1, 0.0)
_MANY_UNITS = 256
# Numbers in the tables of one node, and in the functionals at work.
_TABLE_ENTRIES = 2**26
_CHUNK_ENTRIES = 2**22
# XLA takes seconds to compile, and is not worth it for functionals of fewer numbers.
SMALL = 2**16


class PreparedBatch(NamedTuple):
    """What bounds of a node need of a batch, whatever the radius.

    Attributes:
      value: The node itself, [B, K].
      magnitude: The sum of the magnitudes it is made of, [B, K].
      sums: x · G for each λ, upwards and downwards, [T, 2, B, K].
    """

    value: tf.Tensor
    magnitude: tf.Tensor
    sums: tf.Tensor


class ImageFunctionals:
    """The units of one node that is affine in the image.

    Attributes:
      node: Its number in the network.
      lipschitz: Lip(a_k), [K].
      absolute_lipschitz: The same of the functionals of absolute weights, which bound the rounding, [K].
      multipliers: λ, [T, K].
      tables: G_λ of a and of −a, [T, 2, H·W·C, K].
    """

    def __init__(
        self, network: Network, node: int, threat_model: ThreatModel, dtype: tf.DType, table_entries: int | None = None
    ):
        self._network = network
        self._threat_model = threat_model.rules
        self._dtype = dtype
        self.node = node
        self.units = math.prod(network.nodes[node].shape)
        pixels = math.prod(network.image_shape)
        room = _TABLE_ENTRIES if table_entries is None else table_entries
        most = len(_SHARES) if self.units <= _MANY_UNITS else 3
        self._shares = _SHARES[: min(most, room // (2 * pixels * self.units))]
        chunk = max(1, min(self.units, _CHUNK_ENTRIES // pixels))
        parts = []
        for start in range(0, self.units, chunk):
            found = self._measure(tf.constant(start), chunk)
            parts.append([part.numpy()[..., : self.units - start] for part in found])
        joined = [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]
        self.lipschitz, self.absolute_lipschitz, tables = (tf.constant(each, dtype) for each in joined)
        shares = tf.constant(self._shares, dtype)
        self.multipliers = shares[:, None] * self.lipschitz
        self.tables = tf.reshape(tables, [len(self._shares), 2, pixels, self.units])

    def prepare(self, images: tf.Tensor, mass: tf.Tensor) -> PreparedBatch:
        """Returns what does not depend on the radius, for images [B, H, W, C] and their masses [B]."""
        value = self._forward(images, mass, absolute=False)
        magnitude = self._forward(images, mass, absolute=True)
        if self._network.nodes[self.node].divided:
            images = images / mass[:, None, None, None]
        flat = tf.reshape(images, [-1, math.prod(self._network.image_shape)])
        sums = tf.einsum("bn,tsnk->tsbk", flat, self.tables)
        return PreparedBatch(value, magnitude, sums)

    def interval(self, prepared: PreparedBatch, budget: tf.Tensor, mass: tf.Tensor) -> Interval:
        """Returns bounds of the units [B, *shape] over the ball of each budget [B], as float32 computes them."""
        budget = budget / mass if self._network.nodes[self.node].divided else budget
        rise = fall = budget[:, None] * self.lipschitz
        for number in range(len(self._shares)):
            spent = budget[:, None] * self.multipliers[number]
            rise = tf.minimum(rise, spent + prepared.sums[number, 0])
            fall = tf.minimum(fall, spent + prepared.sums[number, 1])
        error = self._error(prepared, budget) + self._cancellation(mass)
        shape = [-1, *self._network.nodes[self.node].shape]
        return Interval(
            tf.reshape(prepared.value - fall - error, shape), tf.reshape(prepared.value + rise + error, shape)
        )

    def error(self, prepared: PreparedBatch, budget: tf.Tensor, mass: tf.Tensor) -> tf.Tensor:
        """Returns the most by which float32 is off anywhere in the ball, [B, *shape]."""
        budget = budget / mass if self._network.nodes[self.node].divided else budget
        return tf.reshape(self._error(prepared, budget), [-1, *self._network.nodes[self.node].shape])

    def _error(self, prepared: PreparedBatch, budget: tf.Tensor) -> tf.Tensor:
        # The magnitude is a functional too, and so rises by at most ρ Lip.
        node = self._network.nodes[self.node]
        terms = (node.terms or 1) + math.prod(self._network.image_shape)
        own = arithmetic.unit(self._dtype)
        relative = arithmetic.gamma(node.terms or 1, self._dtype) + 4 * terms * own
        size = prepared.magnitude + budget[:, None] * self.absolute_lipschitz
        return relative * size + terms * arithmetic.TINY * (1.0 + size)

    def _cancellation(self, mass: tf.Tensor) -> tf.Tensor:
        """Returns what the differences a_j − a_i − λC lose in our own arithmetic, [B, K]."""
        if self._network.nodes[self.node].divided:
            mass = tf.ones_like(mass)
        farthest = largest_cost(self._threat_model, self._network.image_shape)
        return 8 * arithmetic.unit(self._dtype) * farthest * mass[:, None] * self.lipschitz

    def _forward(self, images: tf.Tensor, mass: tf.Tensor, absolute: bool) -> tf.Tensor:
        known: dict[int, tf.Tensor] = {0: images}

        def value(number: int) -> tf.Tensor:
            if number not in known:
                node = self._network.nodes[number]
                inputs = [value(read) for read in node.inputs]
                assert isinstance(node.transform, Affine)  # noqa: S101 (for mypy: `affine_in_image` says so)
                apply = node.transform.apply_absolute if absolute else node.transform.apply
                known[number] = apply(inputs, mass)
            return known[number]

        return tf.reshape(value(self.node), [-1, self.units])

    def _measure(self, start: tf.Tensor, chunk: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns Lip, Lip of absolute weights, and the tables [T · 2 · H·W·C, chunk], of units from `start` on."""
        node = self._network.nodes[self.node]
        units = tf.reshape(tf.one_hot(start + tf.range(chunk), self.units, dtype=self._dtype), [chunk, *node.shape])
        potential = pull_back_to_image(self._network, {self.node: units}, tf.ones([chunk], self._dtype))
        absolute = pull_back_to_image(self._network, {self.node: units}, tf.ones([chunk], self._dtype), absolute=True)
        compiled = potential.shape.num_elements() > SMALL
        return (_compiled_tables if compiled else _tables)(potential, absolute, self._threat_model, self._shares)


def _tables(
    potential: tf.Tensor, absolute: tf.Tensor, threat_model: ThreatModel, shares: tuple[float, ...]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    steepest = lipschitz(potential, threat_model)
    found = [tf.zeros([0, potential.shape[0]], potential.dtype)]
    for share in shares:
        for signed in (potential, -potential):
            best, _ = c_transform(signed, share * steepest, threat_model)
            found.append(tf.transpose(tf.reshape(best - signed, [potential.shape[0], -1])))
    return steepest, lipschitz(absolute, threat_model), tf.concat(found, axis=0)


_compiled_tables = tf.function(_tables, jit_compile=True, autograph=False)


def pull_back_to_image(
    network: Network, functionals: dict[int, tf.Tensor], mass: tf.Tensor, *, absolute: bool = False
) -> tf.Tensor:
    """Returns the functional of the image, [N, H, W, C], that functionals of affine nodes, [N, …], are together.

    Args:
      network: The network.
      functionals: By the number of the node.
      mass: m(x), [N].
      absolute: Whether all weights are taken absolute.
    """
    open_ones = dict(functionals)
    for number in reversed(range(1, max(open_ones) + 1)):
        if number not in open_ones:
            continue
        node, functional = network.nodes[number], open_ones.pop(number)
        assert isinstance(node.transform, Affine)  # noqa: S101 (for mypy: `affine_in_image` says so)
        shapes = [network.nodes[read].shape for read in node.inputs]
        found = node.transform.pull_back_exactly(functional, shapes, mass, absolute=absolute)
        for read, part in zip(node.inputs, found, strict=True):
            open_ones[read] = open_ones[read] + part if read in open_ones else part
    return open_ones[0]
