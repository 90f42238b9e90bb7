"""Marginals, costs and budgets of plans, computed by hand."""

import numpy as np
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan, image_mass, row_sums, transport_budget, transport_cost

SUPPORT = make_support(ThreatModel(kernel_size=3, p=2.0), (2, 2, 2))


def test_marginals_and_cost_are_of_each_image():
    plan = np.zeros((2, 9, 2, 2, 2), np.float32)
    plan[1, 8, 0, 0, 1] = 0.5  # down and right: distance² 2
    plan[1, 4, 0, 0, 1] = 0.25  # stays
    plan[1, 5, 0, 0, 0] = 2.0  # right: distance² 1
    expected = np.zeros((2, 2, 2, 2), np.float32)
    expected[1, 0, 0] = 2.0, 0.75
    np.testing.assert_array_equal(row_sums(tf.constant(plan)), expected)
    np.testing.assert_allclose(transport_cost(tf.constant(plan), SUPPORT), [0, 0.5 * 2 + 2.0])
    np.testing.assert_array_equal(image_mass(tf.constant(expected)), [0, 2.75])


def test_row_sums_of_few_and_of_many_targets_are_alike():
    plan = np.random.default_rng(0).uniform(size=(2, 100, 3, 2, 3)).astype(np.float32)
    for count in (1, 25, 100):
        np.testing.assert_allclose(row_sums(tf.constant(plan[:, :count])), plan[:, :count].sum(axis=1), rtol=1e-5)


def test_the_budget_is_the_radius_times_the_mass_or_the_radius_itself():
    images = tf.constant(np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
    assert transport_budget(images, 0.5, ThreatModel()).numpy().tolist() == [14, 46]
    assert transport_budget(images, tf.constant([0.5, 2.0]), ThreatModel()).numpy().tolist() == [14, 184]
    absolute = ThreatModel(normalize_mass=False)
    assert transport_budget(images, 0.5, absolute).numpy().tolist() == [0.5, 0.5]


def test_the_identity_plan_holds_the_image_at_home_and_nothing_elsewhere():
    images = tf.constant(np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
    plan = identity_plan(images, SUPPORT).numpy()
    np.testing.assert_array_equal(plan[:, 4], images)
    assert not np.delete(plan, 4, axis=1).any()
