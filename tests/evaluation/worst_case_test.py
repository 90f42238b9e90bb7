import numpy as np
import pytest

from wasser_tf.evaluation.examples import keep_images, take
from wasser_tf.evaluation.worst_case import least_costs, update_worst_case, worst_case


def test_success_is_preferred_and_then_loss(make_examples):
    # Image 0: only the first fools. 1: both, the second at a larger loss. 2: none. 3: only the second, at a small loss.
    one = make_examples([True, True, False, False], [1, 2, 5, 9])
    two = make_examples([False, True, False, True], [8, 3, 4, 1])
    worst = worst_case([one, two])
    assert worst.result.success.tolist() == [True, True, False, True]
    assert worst.result.loss.tolist() == [1, 3, 5, 1]
    np.testing.assert_allclose(worst.result.adversarial[:, 0, 0, 0], [0.01, 0.03, 0.05, 0.01])
    assert worst.result.iterations.tolist() == [14] * 4
    assert worst.result.feasibility.cost.shape == (4,)


def test_raw_examples_are_chosen_independently(make_examples):
    one = make_examples([True, False], [1, 1], raw_success=[False, False])
    two = make_examples([False, False], [2, 2], raw_success=[True, False])
    worst = worst_case([one, two]).result
    assert worst.success.tolist() == [True, False] and worst.loss.tolist() == [1, 2]
    assert worst.raw_success.tolist() == [True, False] and worst.raw_loss.tolist() == [2, 2]


def test_a_nan_loss_is_not_the_largest(make_examples):
    worst = worst_case([make_examples([True], [np.nan]), make_examples([True], [1])])
    assert worst.result.loss.tolist() == [1]


def test_runs_must_be_on_the_same_images(make_examples):
    with pytest.raises(ValueError, match="same images"):
        worst_case([make_examples([True], [1]), make_examples([True, True], [1, 1])])
    with pytest.raises(ValueError, match="at least one attack"):
        worst_case([])


def test_least_costs(make_examples):
    wrong = [True, False, False, False]
    small = make_examples([True, True, False, False], [1] * 4, wrong=wrong, radius=0.1, cost=0.100001)
    large = make_examples([True, True, True, False], [1] * 4, wrong=wrong, radius=0.3, cost=0.2)
    np.testing.assert_allclose(least_costs([small, large]), [0, 0.1, 0.2, np.inf], rtol=1e-6)


def test_later_results_replace_earlier_ones_where_they_are_worse(make_examples):
    so_far = make_examples([False, True, False, False], [1, 5, 2, 3])
    rows = np.array([0, 2, 3])
    worst = update_worst_case(so_far, take(make_examples([True] * 4, [0.5, 9, 1, 4]), rows), rows).result
    np.testing.assert_array_equal(worst.success, True)
    np.testing.assert_array_equal(worst.loss, np.float32([0.5, 5, 1, 4]))
    np.testing.assert_array_equal(worst.iterations, [14, 7, 14, 14])
    # Of images only the first two are kept.
    few = update_worst_case(
        keep_images(so_far, 2), take(keep_images(make_examples([True] * 4, [8, 8, 8, 8]), 2), rows), rows
    )
    np.testing.assert_allclose(few.result.adversarial[:, 0, 0, 0], [0.08, 0.05])
