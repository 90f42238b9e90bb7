"""`certify`: radii, consistency with attacks, and validation of its input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import MirrorAscent, ThreatModel, certify, data
from wasser_tf.certification.prover import Prover
from wasser_tf.models import build

BALL = ThreatModel(epsilon=0.05)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", splits=("train", "test"))


@pytest.fixture(scope="module")
def classifier(digits):
    keras.utils.set_random_seed(0)
    model = build("mlp", (8, 8, 1), 10, seed=0)
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(digits.train.images, digits.train.labels, epochs=12, verbose=0, batch_size=64)
    return model


@pytest.fixture(scope="module")
def certified(classifier, digits):
    return certify(classifier, digits.test.images[:32], digits.test.labels[:32], BALL, method="crown", batch_size=8)


def test_fields_agree_with_each_other(certified, classifier, digits):
    predicted = classifier.predict(digits.test.images[:32], verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(certified.predicted, predicted)
    np.testing.assert_array_equal(certified.correct, predicted == digits.test.labels[:32])
    np.testing.assert_array_equal(certified.certified, certified.correct & (certified.margin > 0))
    np.testing.assert_array_equal(certified.certified, certified.correct & (certified.radius >= BALL.epsilon))
    assert (certified.radius[~certified.correct] == 0).all()
    assert 0.2 < certified.certified.mean() < 1
    assert (certified.method, certified.confidence) == ("crown", 1.0)
    assert isinstance(certified, wasser_tf.CertificationResult)


def test_no_attack_succeeds_within_a_certified_radius(certified, classifier, digits):
    proved = certified.radius > 0
    attack = MirrorAscent(BALL, restarts=4)
    found = attack(
        classifier, digits.test.images[:32][proved], digits.test.labels[:32][proved], radius=certified.radius[proved]
    )
    assert proved.sum() > 20
    assert not found.success.any()


def test_an_attack_succeeds_slightly_beyond_the_certified_radius(certified, classifier, digits):
    # Otherwise the radii would be sound and useless.
    attack = MirrorAscent(BALL)
    found = attack(
        classifier, digits.test.images[:32], digits.test.labels[:32], radius=2 * np.maximum(certified.radius, 0.005)
    )
    assert found.success.mean() > 0.7


def test_the_radius_is_the_largest_provable_one_up_to_the_resolution(certified, classifier, digits):
    prover = Prover(classifier, BALL, batch_size=8)
    images, labels = prover.check(digits.test.images[:8], digits.test.labels[:8])
    right = certified.correct[:8]
    assert (prover.margins(images, labels, certified.radius[:8], "crown")[right] > 0).all()
    beyond = prover.margins(images, labels, certified.radius[:8] + 2 * BALL.epsilon / 200, "crown")
    assert (beyond[right] < 0).mean() > 0.7


def test_shares_at_given_radii_do_not_depend_on_the_resolution(classifier, digits):
    images, labels = digits.test.images[:32], digits.test.labels[:32]
    radii = (0.0, 0.004, 0.011, 0.02, 0.1)
    found = certify(classifier, images, labels, BALL, method="ibp", resolution=0.5, radii=radii)
    without = certify(classifier, images, labels, BALL, method="ibp", resolution=0.5)
    prover = Prover(classifier, BALL)
    checked = prover.check(images, labels)
    for radius in radii[1:]:
        holds = found.correct & (prover.margins(*checked, radius, "ibp") > 0)
        np.testing.assert_array_equal(found.radius >= radius, holds)
    assert (without.radius <= found.radius).all() and (without.radius < found.radius).any()
    with pytest.raises(ValueError, match="radii must be a finite number of at least 0"):
        certify(classifier, images, labels, BALL, method="ibp", radii=(0.1, -0.1))


def test_auto_chooses_the_cheaper_method_unless_the_other_proves_more(classifier, digits):
    prover = Prover(classifier, BALL)
    assert prover.choose(*prover.check(digits.test.images[:16], digits.test.labels[:16])) == "crown"
    linear = Prover(build("linear", (8, 8, 1), 10, seed=0), BALL)
    assert linear.choose(*linear.check(digits.test.images[:16], digits.test.labels[:16])) == "ibp"


def test_the_batch_size_changes_nothing(classifier, digits):
    found = [
        certify(classifier, digits.test.images[:7], digits.test.labels[:7], BALL, method="ibp", batch_size=size)
        for size in (2, 64)
    ]
    np.testing.assert_allclose(found[0].radius, found[1].radius, atol=1e-12)


def test_answers_that_no_plan_can_change_have_an_infinite_radius():
    # Reads the mass alone, which no plan changes; and a black image, which has no mass to move.
    inputs = keras.Input((4, 4, 1))
    mass = keras.layers.GlobalAveragePooling2D()(inputs)
    of_mass = keras.Model(inputs, keras.layers.Dense(2)(mass))
    of_mass.set_weights([np.array([[1.0, -1.0]]), np.array([0.0, 0.1])])
    images = np.stack([np.full((4, 4, 1), 0.5), np.zeros((4, 4, 1))]).astype(np.float32)
    for threat_model in (BALL, ThreatModel(epsilon=0.3, normalize_mass=False)):
        result = certify(of_mass, images, np.array([0, 1]), threat_model, method="ibp")
        assert np.isinf(result.radius).all()
        assert result.certified.all()


def test_a_classifier_of_probabilities_is_certified_by_its_logits(classifier, digits):
    probabilities = keras.Sequential([classifier, keras.layers.Softmax()])
    images, labels = digits.test.images[:8], digits.test.labels[:8]
    logits = certify(classifier, images, labels, BALL, method="ibp")
    found = certify(probabilities, images, labels, BALL, method="ibp")
    np.testing.assert_allclose(found.margin, logits.margin, atol=2e-6)


def test_a_layer_that_deviates_from_its_rule_is_detected(digits):
    class Odd(keras.layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs), seed=None)

    from wasser_tf.certification.rules import RULES
    from wasser_tf.certification.transforms import Affine

    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(Odd()(inputs)))
    RULES[Odd] = lambda call: [Affine(lambda inputs, absolute, mass: inputs[0], terms=0)]
    try:
        with pytest.raises(ValueError, match="differently each time"):
            certify(keras.Model(inputs, outputs), digits.test.images[:4], digits.test.labels[:4], BALL)

        class Shifting(keras.layers.Layer):
            def call(self, inputs):
                return inputs + 0.5

        RULES[Shifting] = RULES[Odd]
        shifted = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(Shifting()(inputs))))
        with pytest.raises(ValueError, match="are not those that its layers should give"):
            certify(shifted, digits.test.images[:4], digits.test.labels[:4], BALL, method="ibp")
    finally:
        RULES.pop(Odd, None)
        RULES.pop(Shifting, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 11])}, "labels must be 0 to 9"),
        ({"images": np.full((2, 8, 8, 1), 1.5)}, r"images must lie in \[0, 1\]"),
        ({"images": np.full((2, 8, 8, 1), np.nan)}, "images must be finite"),
        ({"images": np.zeros((2, 6, 6, 1))}, "takes images of shape"),
        ({"method": "milp"}, "method must be ibp, crown, smoothing or auto"),
        ({"method": "smoothing"}, "method='smoothing' needs a wasser_tf.Smoothed classifier"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"resolution": -1.0}, "resolution must be a finite number above 0"),
        ({"threat_model": 0.1}, "threat_model must be a wasser_tf.ThreatModel"),
        ({"threat_model": ThreatModel(epsilon=1e-30)}, "epsilon must be 0 or from 1e-09"),
        ({"threat_model": ThreatModel(epsilon=1e300)}, "epsilon must be 0 or from 1e-09"),
        ({"classifier": lambda images, training: images}, "must be a keras.Model made of layers"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(classifier, digits, change, message):
    given = {
        "classifier": classifier,
        "images": digits.test.images[:2],
        "labels": digits.test.labels[:2],
        "threat_model": BALL,
    }
    with pytest.raises(ValueError, match=message):
        certify(**{**given, **change})


def test_weights_that_are_not_finite_prove_nothing(digits):
    model = build("linear", (8, 8, 1), 10, seed=0)
    model.layers[-1].bias.assign(tf.fill([10], float("nan")))
    with pytest.raises(ValueError, match="outputs are not finite"):
        certify(model, digits.test.images[:2], digits.test.labels[:2], BALL)
