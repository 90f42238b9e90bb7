"""Bad input to the parts of the room: each gets a sentence, and none a certificate in doubt."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import Smoothed, ThreatModel, models
from wasser_tf.certification.bounds import Bounds
from wasser_tf.certification.differentiable import DifferentiableBounds
from wasser_tf.certification.flow_noise import FlowNoise
from wasser_tf.certification.network import Network
from wasser_tf.certification.prover import Prover, certify
from wasser_tf.certification.smoothing import certify_smoothed

BALL = ThreatModel(epsilon=0.05)
IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(4, dtype=np.int32)


@pytest.fixture(scope="module")
def mlp():
    return models.build("mlp", (8, 8, 1), 10, seed=0)


@pytest.fixture(scope="module")
def prover(mlp):
    return Prover(mlp, BALL)


def one_output():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES, LABELS, "milp"), "method must be ibp or crown, got 'milp'"),
        ((IMAGES[:0], LABELS[:0], "ibp"), "images must hold at least one image"),
        ((IMAGES, LABELS, "ibp", float("nan")), "resolution must be a finite number above 0"),
        ((IMAGES, LABELS, "ibp", 0.0), "resolution must be a finite number above 0"),
    ],
)
def test_the_prover_checks_what_it_certifies(prover, arguments, message):
    with pytest.raises(ValueError, match=message):
        prover.certify(*arguments)


@pytest.mark.parametrize(
    ("epsilon", "method", "message"),
    [
        (float("nan"), "ibp", "epsilon must be at least 0, got nan"),
        (-1.0, "ibp", "epsilon must be at least 0, got -1.0"),
        ([0.1, 0.2], "ibp", "epsilon must be one radius or 4, one for each image"),
        (0.1, "milp", "method must be ibp or crown"),
    ],
)
def test_margins_check_radii_and_method(prover, epsilon, method, message):
    with pytest.raises(ValueError, match=message):
        prover.margins(IMAGES, LABELS, epsilon, method)


def test_no_rounding_is_bounded_in_other_types(mlp):
    # The unit roundoff of float16 is 8,000 times that of float32: its bounds would not be sound.
    for dtype in (tf.float16, tf.bfloat16, "float64x"):
        with pytest.raises(ValueError, match="dtype must be tf.float32 or tf.float64"):
            Prover(mlp, BALL, dtype=dtype)


def test_bounds_check_their_ball_and_tables(mlp):
    network = Network(mlp)
    with pytest.raises(ValueError, match="threat_model must be a wasser_tf.ThreatModel, got 0.1"):
        Bounds(network, 0.1)
    with pytest.raises(ValueError, match="table_entries must be None or a whole number"):
        Bounds(network, BALL, table_entries=-1)


def test_one_output_has_no_margin():
    for make in (lambda: Prover(one_output(), BALL), lambda: DifferentiableBounds(one_output(), BALL)):
        with pytest.raises(ValueError, match="has one output, which has no margin over another class"):
            make()


def test_bounds_of_training_check_ball_and_box(mlp):
    with pytest.raises(ValueError, match="threat_model must be a wasser_tf.ThreatModel"):
        DifferentiableBounds(mlp, None)
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="box_fraction must lie above 0 and be at most 1"):
            DifferentiableBounds(mlp, BALL).worst_logits(IMAGES, LABELS, 0.1, box_fraction=fraction)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 10, "labels must be 0 to 9"),
        (LABELS - 1, "labels must be 0 to 9"),
        (LABELS + 0.5, "labels must be whole numbers"),
        (LABELS[:2], r"labels must have shape \[4\]"),
    ],
)
def test_labels_out_of_range_are_refused_by_every_method(mlp, labels, message):
    with pytest.raises(ValueError, match=message):
        certify(mlp, IMAGES, labels, BALL, method="ibp")
    with pytest.raises(ValueError, match=message):
        certify_smoothed(mlp, IMAGES, labels, BALL, noise="laplace", scale=0.1, num_samples=10, num_votes=5)


def test_images_that_are_not_finite_are_refused_by_smoothing(mlp):
    with pytest.raises(ValueError, match="images must be finite"):
        Smoothed(mlp, "laplace", scale=0.1).certify(IMAGES * np.nan, LABELS, BALL)


def test_probabilities_of_noise_lie_in_0_to_1():
    for probability in (np.array([1.5]), np.array([-0.1]), np.array([np.nan])):
        with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]"):
            FlowNoise(kind="laplace", scale=0.1).radius(probability)


def test_epsilon_0_certifies_what_rounding_cannot_change(prover, mlp):
    right = mlp.predict(IMAGES, verbose=0).argmax(axis=1).astype(np.int32)
    result = certify(mlp, IMAGES, right, ThreatModel(epsilon=0.0), method="ibp")
    # Radii are found on a finer grid than a 200th of the largest cost of a plan.
    assert result.certified.all() and (result.radius > 0).all() and (result.radius < 0.014).any()
    wrong = certify(mlp, IMAGES, (right + 1) % 10, ThreatModel(epsilon=0.0), method="ibp")
    assert not wrong.certified.any() and (wrong.radius == 0).all()


def test_an_epsilon_beyond_all_plans_leaves_the_radii_fine(mlp):
    # The largest cost of a plan in a 5×5 window is √8, and a 200th of it is the resolution.
    prover = Prover(mlp, ThreatModel(epsilon=1000.0))
    radius = prover._radii(IMAGES, np.zeros(4, bool), lambda epsilon: epsilon <= 0.5, None, ())
    assert ((radius <= 0.5) & (radius >= 0.5 - 8**0.5 / 200 - 1e-6)).all()
