import numpy as np
import pytest

from wasser_tf import ThreatModel
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.verification import summarize_exact_checks, verify


def test_feasible_examples_are_confirmed(classifier, random_plan, digits):
    clean = metrics.predict(classifier, digits.images, digits.labels)
    result = random_plan(classifier, digits.images, digits.labels)
    check = verify(Examples(digits.index, digits.images, digits.labels, clean, result), random_plan.threat_model, 5)
    assert check.num_images == 5
    assert check.within_radius and check.below_cost
    assert 0.1 < check.max_ratio <= 1 + 1e-5


def test_wrong_costs_and_radii_are_detected(make_examples):
    # Half a unit of the four goes one pixel: the distance is 1/8.
    images = np.ones([1, 2, 4, 1], np.float32) / 2
    moved = images.copy()
    moved[0, 0, 0], moved[0, 0, 1] = 0, 1
    examples = make_examples([True], [1], radius=0.1, cost=0.05)._replace(images=images)
    examples = examples._replace(result=examples.result._replace(adversarial=moved))
    check = verify(examples, ThreatModel())
    assert check.max_ratio == pytest.approx(1.25, rel=1e-5)
    assert check.max_excess == pytest.approx(0.125 - 0.05, rel=1e-5)
    assert not check.within_radius and not check.below_cost
    assert summarize_exact_checks([check]).endswith("radius 1.250000, 1 of 1 attacks and radii have examples outside")


def test_radius_0(make_examples):
    examples = make_examples([False], [50], radius=0, cost=0)
    check = verify(examples._replace(images=examples.result.adversarial), ThreatModel())
    assert check.within_radius and check.below_cost and check.max_ratio == 0
