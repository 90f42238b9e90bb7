import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from wasser_tf.certification import votes
from wasser_tf.certification.flow_noise import FlowNoise


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


@pytest.mark.parametrize("count", [1, 64, 65, 130])
def test_shares_are_of_the_given_number_of_votes_on_the_noise_of_their_blocks(count):
    noise, seed, calls = FlowNoise(kind="uniform", scale=0.2), tf.constant([3, 4]), []

    def classifier(images, training):
        assert training is False
        calls.append(images)
        return tf.stack([images[:, 0, 0, 0], images[:, 0, 1, 0]], axis=1)

    image = np.array([[[[0.55], [0.45]]]], np.float32)
    found = votes.shares(classifier, noise, seed, tf.constant(image), count).numpy()
    # A whole block of noise at a time, and no block too many.
    assert [len(images) for images in calls] == [64] * -(-count // 64)
    noisy = np.concatenate([images.numpy() for images in calls])[:count]
    drawn = [noise.sample(tf.random.fold_in(seed, block), 64, (1, 2, 1)).numpy() for block in range(len(calls))]
    np.testing.assert_allclose(noisy, image + np.concatenate(drawn)[:count], atol=1e-6)
    first = np.mean(noisy[:, 0, 0, 0] >= noisy[:, 0, 1, 0])
    np.testing.assert_allclose(found, [[first, 1 - first]], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ((0, 10, 0.1, 0), "num_votes"),
        ((10, 0, 0.1, 0), "num_samples"),
        ((1.5, 10, 0.1, 0), "num_votes"),
        ((10, 10, 0.0, 0), "alpha"),
        ((10, 10, 1.0, 0), "alpha"),
        ((10, 10, 0.1, -1), "seed"),
    ],
)
def test_vote_settings_out_of_range_are_refused(settings, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        votes.check_vote_settings(*settings)


def test_vote_settings_at_their_limits_are_valid():
    votes.check_vote_settings(1, 1, 1e-9, 0)
