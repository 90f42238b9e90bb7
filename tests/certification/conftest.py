"""Feasible images to hold bounds against, and small classifiers."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import transport_budget, transport_cost


def feasible_images(image, threat_model, count, seed=0):
    """Returns images [count, H, W, C] of random feasible plans that spend all of the budget, without a capacity."""
    rng = np.random.default_rng(seed)
    support = make_support(threat_model, image.shape)
    shape = (count, support.num_targets, *image.shape)
    # From all mass moving to a few pixels moving.
    share = rng.random((count, 1, 1, 1, 1)) ** 3
    weights = tf.constant(rng.exponential(size=shape) ** 3 * (rng.random(shape) < share), tf.float32)
    weights = tf.where(support.valid & ~support.home, weights, 0.0)
    sent = image * (rng.random((count, *image.shape)) < share[:, 0])
    plan = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True)) * sent[:, None].astype(np.float32)
    budget = transport_budget(tf.constant(image[None]), threat_model.epsilon, threat_model)
    spent = transport_cost(plan, support)
    scale = np.minimum(1.0, np.divide(budget, spent, out=np.ones(count, np.float32), where=spent.numpy() > 0))
    plan = plan * scale[:, None, None, None, None]
    return (image - tf.reduce_sum(plan, 1) + support.push_forward(plan)).numpy()


@pytest.fixture
def sample():
    return feasible_images


@pytest.fixture(scope="session")
def ball():
    return ThreatModel(epsilon=0.3, kernel_size=3, capacity=None)
