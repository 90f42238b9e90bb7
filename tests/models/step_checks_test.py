"""Checks of labels within a training step, eagerly and in a graph."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.models.step_checks import check_label_rows, check_step_labels, failed_requirements, require


@pytest.mark.parametrize(
    "labels",
    [
        np.int32([0, 2, 1]),
        np.float32([0, 2, 1]),
        np.int64([[0], [2], [1]]),
        np.eye(3, dtype=np.float32),
        np.uint8(np.eye(3)),
        np.float32([[0.3, 0.3, 0.4], [0.5, 0.5, 0.0], [0.995, 0, 0]]),
    ],
    ids=["indices", "floats", "column", "one-hot", "integer one-hot", "soft"],
)
@pytest.mark.parametrize("classes", [3, None])
def test_valid_labels_are_returned_unchanged(labels, classes):
    found = check_step_labels(tf.constant(labels), classes)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (np.int32([0, 3]), 3, "whole numbers, 0 to 2, as the classifier has 3 classes"),
        (np.int32([0, -1]), 3, "whole numbers, 0 to 2"),
        (np.int32([0, -1]), None, "whole numbers, 0 or more"),
        (np.float32([0, 0.5]), 3, "whole numbers, 0 to 2"),
        (np.float32([0, 0.5]), None, "whole numbers, 0 or more"),
        (np.float32([[0.5, 0.5, 0.5]]), 3, "that add up to 1"),
        (np.float32([[0.5, 0.4, 0.0]]), None, "that add up to 1"),
        (np.float32([[1.5, -0.5, 0]]), 3, "not negative"),
        (np.int32([[1, 1, 0], [1, 0, 0]]), 3, "multi-label"),
    ],
)
def test_invalid_values_are_refused_eagerly_and_in_a_graph(labels, classes, message):
    compiled = tf.function(lambda y: check_step_labels(y, classes))
    for check in (lambda y: check_step_labels(y, classes), compiled):
        with pytest.raises(ValueError, match=message) as raised, failed_requirements():
            check(tf.constant(labels))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "Labels are needed"),
        ({"a": 1}, "must be one tensor, got dict"),
        (tf.zeros([2, 4]), r"soft rows \[B, 3\], got \(2, 4\)"),
        (tf.zeros([2, 3, 1]), r"got \(2, 3, 1\)"),
        (tf.zeros([]), r"got \(\)"),
    ],
)
def test_labels_of_another_shape_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_step_labels(labels, 3)


def test_the_number_of_columns_is_free_if_the_classes_are_unknown():
    assert check_step_labels(tf.eye(5), None).shape == (5, 5)
    with pytest.raises(ValueError, match=r"soft rows \[B, classes\], got \(1, 2, 3\)"):
        check_step_labels(tf.zeros([1, 2, 3]), None)


def test_label_rows_before_training():
    check_label_rows(np.array([[0.5, 0.505], [1, 0]]))
    for rows in ([[0.5, 0.52]], [[1.5, -0.5]], [[0.5, 0.4]]):
        with pytest.raises(ValueError, match="rank 2 must be one-hot or soft"):
            check_label_rows(np.array(rows))
    with pytest.raises(ValueError, match="rank 2"):
        check_label_rows(np.array([["a", "b"]]))


def test_other_errors_of_a_step_pass_unchanged():
    with pytest.raises(tf.errors.InvalidArgumentError), failed_requirements():
        tf.debugging.Assert(False, ["something else"])
    assert require(tf.constant(True), "sentence", tf.constant(3)) == 3
