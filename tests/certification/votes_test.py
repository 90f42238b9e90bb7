import numpy as np
import pytest
import scipy.stats

from wasser_tf.certification import votes


@pytest.mark.parametrize("successes, trials", [(0, 10), (1, 10), (7, 10), (99, 100), (10_000, 10_000)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_clopper_pearson_equals_that_of_scipy(successes, trials, alpha):
    interval = scipy.stats.binomtest(successes, trials, alternative="greater").proportion_ci(1 - alpha, method="exact")
    assert votes.lower_confidence_bound(np.array([successes]), trials, alpha)[0] == pytest.approx(interval.low)


def test_clopper_pearson_has_known_values():
    # All of n: α^(1/n). None: 0. One: 1 − (1 − α)^(1/n).
    bound = votes.lower_confidence_bound(np.array([100, 0, 1]), 100, 0.05)
    np.testing.assert_allclose(bound, [0.05**0.01, 0, 1 - 0.95**0.01], rtol=1e-9)


def test_clopper_pearson_covers():
    counts = np.arange(51)
    for probability in (0.3, 0.9, 0.99):
        above = votes.lower_confidence_bound(counts, 50, 0.05) > probability
        assert scipy.stats.binom.pmf(counts, 50, probability)[above].sum() <= 0.05


def test_majority_abstains_where_votes_are_close():
    counts = np.array([[60, 40, 0], [95, 5, 0], [50, 50, 0], [0, 0, 100]])
    np.testing.assert_array_equal(votes.majority(counts, 0.05), [-1, 0, -1, 2])
    assert votes.majority(counts[:1], 0.06)[0] == 0
