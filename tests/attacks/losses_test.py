"""Losses on logits, compared with values computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.attacks import losses

# Of four classes, in no order: sorted they are 5, 3, 2, −1 and 4, 1, 0, −2.
LOGITS = tf.constant([[2.0, 5.0, -1.0, 3.0], [0.0, -2.0, 4.0, 1.0]])


def test_the_margin_is_the_largest_wrong_logit_less_the_labels():
    np.testing.assert_allclose(losses.margin(LOGITS, tf.constant([1, 2])), [3 - 5, 1 - 4])
    np.testing.assert_allclose(losses.margin(LOGITS, tf.constant([2, 0])), [5 + 1, 4 - 0])
    negative = tf.constant([[-7.0, -3.0]])
    np.testing.assert_allclose(losses.margin(negative, tf.constant([1])), [-7 + 3])


def test_cross_entropy_is_in_nats():
    expected = -np.log([np.exp(3) / np.exp([2.0, 5.0, -1.0, 3.0]).sum(), 1 / np.exp([0.0, -2.0, 4.0, 1.0]).sum()])
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, tf.constant([3, 0])), expected, rtol=1e-6)


def test_dlr_divides_by_the_first_less_the_third_logit():
    np.testing.assert_allclose(losses.dlr(LOGITS, tf.constant([1, 0])), [(3 - 5) / (5 - 2), (4 - 0) / (4 - 0)])
    np.testing.assert_allclose(losses.dlr(LOGITS, tf.constant([2, 3])), [(5 + 1) / (5 - 2), (4 - 1) / (4 - 0)])


def test_dlr_of_two_classes_is_the_sign_of_the_margin_and_of_level_logits_is_0():
    two = tf.constant([[3.0, -1.0], [-4.0, 5.0]])
    np.testing.assert_allclose(losses.dlr(two, tf.constant([0, 0])), [-1, 1])
    np.testing.assert_allclose(losses.dlr(tf.ones([1, 3]), tf.constant([0])), [0])


def test_dlr_does_not_change_with_the_scale_of_small_logits():
    # The floor of the denominator is far below what classifiers give.
    np.testing.assert_allclose(losses.dlr(1e-6 * LOGITS, tf.constant([1, 0])), [-2 / 3, 1], rtol=1e-4)


def test_towards_is_the_logit_of_the_target_less_the_labels():
    loss = losses.towards(tf.constant([3, 1]))
    np.testing.assert_allclose(loss(LOGITS, tf.constant([1, 2])), [3 - 5, -2 - 4])


@pytest.mark.parametrize(
    ("labels", "ranked"),
    [([1, 2], [[3, 3], [0, 0], [2, 1]]), ([2, 0], [[1, 2], [3, 3], [0, 1]]), ([3, 3], [[1, 2], [0, 0], [2, 1]])],
)
def test_wrong_classes_are_ranked_from_1_and_never_the_label(labels, ranked):
    for rank, expected in enumerate(ranked, start=1):
        found = losses.ranked_class(LOGITS, tf.constant(labels), rank)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(losses.ranked_class(LOGITS, tf.constant(labels), tf.constant(rank)), expected)
    np.testing.assert_array_equal(losses.ranked_class(LOGITS, tf.constant(labels), 4), labels)


def test_the_class_of_rank_1_is_the_one_that_the_margin_begins_with():
    labels = tf.constant([1, 0])
    towards_first = losses.towards(losses.ranked_class(LOGITS, labels, 1))(LOGITS, labels)
    np.testing.assert_array_equal(towards_first, losses.margin(LOGITS, labels))


def test_losses_by_name():
    assert losses.get("margin") is losses.margin and losses.get("dlr") is losses.dlr
    assert losses.get("cross_entropy") is losses.cross_entropy
    for unknown in ("hinge", None, ["dlr"]):
        with pytest.raises(ValueError, match="Unknown attack loss .*; there are cross_entropy, margin, dlr"):
            losses.get(unknown)
