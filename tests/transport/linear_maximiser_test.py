"""Linear maximisation at a temperature and without one are the same problem."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.linear_maximiser import DualPoint, entropic_maximiser, halve, meet_tangents, search_multiplier
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import transport_cost
from wasser_tf.transport.support_function import support_function

SHAPE = (6, 7, 2)


@pytest.mark.parametrize(("kernel_size", "p"), [(3, 1.0), (5, 2.0), (None, 1.0)])
def test_the_plan_at_a_low_temperature_attains_the_support_function(kernel_size, p):
    rng = np.random.default_rng(0)
    images = rng.random((4, *SHAPE)).astype(np.float32)
    functional = rng.normal(size=(4, *SHAPE)).astype(np.float32)
    threat_model = ThreatModel(kernel_size=kernel_size, p=p, capacity=None)
    support, temperature = make_support(threat_model, SHAPE), 1e-3
    budget = tf.constant([0.0, 0.1, 1.0, 200.0], tf.float32) * images.sum(axis=(1, 2, 3))
    plan = entropic_maximiser(functional, images, budget, tf.constant(temperature), support, 50, 1e-6)
    risen = tf.reduce_sum(functional * (support.push_forward(plan) - images), [1, 2, 3]).numpy()
    exact = support_function(
        tf.constant(functional[:, None], tf.float64),
        tf.constant(images, tf.float64),
        tf.cast(budget, tf.float64),
        threat_model,
    )[:, 0].numpy()
    # The entropy of a row is at most the logarithm of its targets.
    gap = temperature * np.log(support.num_targets) * images.sum(axis=(1, 2, 3))
    rounding = 1e-5 * images.sum(axis=(1, 2, 3))
    assert (risen <= exact + rounding).all()
    assert (risen >= exact - gap - rounding)[1:].all()
    assert (transport_cost(plan, support) <= budget * (1 + 1e-4) + 1e-5).numpy().all()


@pytest.mark.parametrize("propose", [halve, meet_tangents])
def test_the_search_finds_the_kink_and_leaves_narrow_brackets(propose):
    # φ(λ) = max(−λ, 2 (λ − kink)) with its least value at two thirds of the kink.
    kink = tf.constant([0.3, 3.0, 30.0])

    def dual(multiplier):
        falling, rising = -multiplier, 2.0 * (multiplier - kink)
        return DualPoint(
            multiplier, tf.where(falling > rising, -1.0, 2.0) + 0 * multiplier, tf.maximum(falling, rising)
        )

    ends = dual(tf.zeros(3)), dual(tf.fill([3], 100.0))
    low, high = search_multiplier(dual, propose, *ends, 40)
    np.testing.assert_allclose(tf.minimum(low.value, high.value), -2.0 / 3.0 * kink, rtol=1e-4)
    low, high = search_multiplier(dual, halve, *ends, 40, tolerance=1.0)
    width = (high.multiplier - low.multiplier).numpy()
    assert (width < 1.0).all() and (width > 0.4).all()
