import keras
import numpy as np
import pytest

from wasser_tf.evaluation import metrics


def test_a_misclassified_clean_image_is_a_success(make_examples):
    examples = make_examples([True, False, False, False], [4, 0, 1, 3], wrong=[False, True, False, False])
    scores = metrics.score_feasible(examples.result, examples.clean.wrong)
    assert scores.success_rate == 0.5
    assert scores.robust_accuracy == 0.5
    assert scores.cross_entropy == 2
    assert scores.max_cost_ratio == pytest.approx(0.8)
    assert scores.feasible_share == 1


def test_raw_scores_use_the_raw_feasibility(make_examples):
    examples = make_examples([False, False], [0, 0], raw_success=[True, False])
    scores = metrics.score_raw(examples.result, examples.clean.wrong)
    assert scores.success_rate == 0.5
    assert scores.precision_error_mean == scores.precision_error_max == 0.25
    assert scores.max_pixel == 3
    assert scores.feasible_share == 0
    assert metrics.score_feasible(examples.result, examples.clean.wrong).success_rate == 0


def test_cost_ratio_at_radius_0(make_examples):
    feasibility = make_examples([False], [0], radius=0, cost=0).result.feasibility
    assert metrics.cost_ratio(feasibility).tolist() == [0]
    assert metrics.cost_ratio(feasibility._replace(cost=np.array([0.1]))).tolist() == [np.inf]


def test_scoring_nothing_is_refused(make_examples):
    examples = make_examples([], [])
    with pytest.raises(ValueError, match="at least one example"):
        metrics.score_feasible(examples.result, examples.clean.wrong)


def test_predictions_do_not_depend_on_the_batch_size(classifier, digits):
    whole = metrics.predict(classifier, digits.images, digits.labels)
    parts = metrics.predict(classifier, digits.images, digits.labels, batch_size=3)
    np.testing.assert_array_equal(whole.predicted, parts.predicted)
    np.testing.assert_allclose(whole.loss, parts.loss, atol=1e-5)
    np.testing.assert_array_equal(whole.wrong, whole.predicted != digits.labels)
    assert whole.wrong.mean() < 0.3


def test_probabilities_give_the_same_loss(classifier, digits):
    softmax = keras.Sequential([classifier, keras.layers.Softmax()])
    assert metrics.is_from_logits(classifier, digits.images)
    assert not metrics.is_from_logits(softmax, digits.images)
    ours = metrics.predict(softmax, digits.images, digits.labels).loss
    np.testing.assert_allclose(ours, metrics.predict(classifier, digits.images, digits.labels).loss, atol=1e-4)


def test_infeasible_images_are_refused_unless_asked_for(classifier, digits):
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        metrics.predict(classifier, digits.images * 2, digits.labels)
    assert len(metrics.predict_unchecked(classifier, digits.images * 2, digits.labels).loss) == 16
