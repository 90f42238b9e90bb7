import numpy as np
import pytest

from wasser_tf.evaluation.worst_case import least_costs, worst_case


def test_success_is_preferred_and_then_loss(make_examples):
    # Image 0: only the first fools. 1: both, the second at a larger loss. 2: none. 3: only the second, at a small loss.
    one = make_examples([True, True, False, False], [1, 2, 5, 9])
    two = make_examples([False, True, False, True], [8, 3, 4, 1])
    worst = worst_case([one, two])
    assert worst.result.success.tolist() == [True, True, False, True]
    assert worst.result.loss.tolist() == [1, 3, 5, 1]
    np.testing.assert_allclose(worst.result.adversarial[:, 0, 0, 0], [0.01, 0.03, 0.05, 0.01])
    assert worst.result.iterations.tolist() == [14] * 4
    assert worst.result.certificate.cost.shape == (4,)


def test_raw_examples_are_chosen_by_themselves(make_examples):
    one = make_examples([True, False], [1, 1], raw_success=[False, False])
    two = make_examples([False, False], [2, 2], raw_success=[True, False])
    worst = worst_case([one, two]).result
    assert worst.success.tolist() == [True, False] and worst.loss.tolist() == [1, 2]
    assert worst.raw_success.tolist() == [True, False] and worst.raw_loss.tolist() == [2, 2]


def test_a_loss_that_is_no_number_is_not_the_largest(make_examples):
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
