"""Properties of every attack: feasibility, determinism, batching and errors.

What is about the Wasserstein ball holds of those that transport; what the others do in its place is in
pixel_attacks_test.py.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import attacks
from wasser_tf.transport.exact import linear_optimum, wasserstein_distance

THREAT_MODEL = wasser_tf.ThreatModel(epsilon=0.4, kernel_size=3)
# Enough to distinguish an attack from the control, and no more: near the optimum two wrong classes are level, and
# rounding decides which of them is climbed.
ITERATIONS = {
    "wasser_attack": 100,
    "mirror_ascent": 20,
    "ensemble": 20,
    "dual_projection": 60,
    "projected_sinkhorn": 60,
    "constrained_sinkhorn": 60,
}
WASSERSTEIN = sorted(name for name, attack in attacks.ATTACKS.items() if attack.in_wasserstein_ball)


@pytest.fixture(scope="module", params=sorted(attacks.ATTACKS))
def any_attack(request):
    """Every attack of the registry, one object a module so that its compiled function is shared."""
    name = request.param
    settings = {"iterations": ITERATIONS[name]} if name in ITERATIONS else {}
    if name == "ensemble":
        # Its own members are thirteen ascents to compile; ensemble_test.py runs them.
        ascent = attacks.MirrorAscent(THREAT_MODEL, **settings, restarts=2)
        settings["members"] = [ascent, attacks.WasserAttack(THREAT_MODEL, **settings)]
    return attacks.make(name, THREAT_MODEL, **settings)


@pytest.fixture
def attack(any_attack):
    """Every attack that moves mass."""
    if not any_attack.in_wasserstein_ball:
        pytest.skip("not in the Wasserstein ball")
    return any_attack


def test_only_pixel_space_attacks_leave_the_wasserstein_ball():
    assert set(attacks.ATTACKS) - set(WASSERSTEIN) == {"linf_pgd", "distributional"}


def mean_margin_gain(classifier, images, adversarial, labels):
    def margin(values):
        logits = np.asarray(classifier(values))
        own = logits[np.arange(len(labels)), labels]
        logits[np.arange(len(labels)), labels] = -np.inf
        return logits.max(axis=1) - own

    return (margin(adversarial) - margin(images)).mean()


def test_examples_are_feasible_and_the_exact_distance_agrees(attack, linear_classifier, images, labels):
    result = attack(linear_classifier, images, labels)
    assert result.adversarial.shape == images.shape and result.adversarial.dtype == np.float32
    assert result.feasibility.feasible().all(), result.feasibility
    for image, target, cost in zip(images, result.adversarial, result.feasibility.cost, strict=True):
        assert wasserstein_distance(image, target, THREAT_MODEL) <= cost * (1 + 1e-4) + 1e-6
    assert np.isfinite(result.raw).all() and np.isfinite(result.loss).all()
    np.testing.assert_allclose(result.radius, 0.4)
    predictions = linear_classifier.predict(result.adversarial, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(result.success, predictions != labels)


def test_the_printed_description_is_short(linear_classifier, images, labels):
    attack = attacks.RandomPlan(THREAT_MODEL)
    result = attack(linear_classifier, images, labels)
    assert repr(attack) == f"<RandomPlan: {THREAT_MODEL}; {attack.iterations} iterations>"
    assert f"{images.shape}: {result.success.sum()} successful" in repr(result) and len(repr(result)) < 200
    assert f"of {len(images)}: {len(images)} feasible, cost to " in repr(result.feasibility)


def test_a_black_image_is_returned_unchanged(attack, linear_classifier, images, labels):
    result = attack(linear_classifier, images, labels)
    np.testing.assert_array_equal(result.adversarial[7], np.zeros((8, 8, 1)))


def test_a_batch_of_one_and_a_ragged_last_batch_give_the_same_examples(any_attack, linear_classifier, images, labels):
    # One more image than a batch, the third again, so that both are one compiled function.
    more, index = np.append(np.arange(8), 2), [*range(8), 2]
    result = any_attack(linear_classifier, images[more], labels[more], batch_size=8, index=index)
    whole = any_attack(linear_classifier, images, labels)
    np.testing.assert_allclose(result.adversarial, whole.adversarial[more], atol=2e-3)


def test_radius_zero_returns_the_image(attack, linear_classifier, images, labels):
    result = attack(linear_classifier, images, labels, radius=0.0)
    np.testing.assert_array_equal(result.adversarial, images)
    assert result.feasibility.feasible().all()


def test_configs_round_trip(any_attack):
    config = attacks.serialize(any_attack)
    again = attacks.deserialize(config)
    assert type(again) is type(any_attack) and attacks.serialize(again) == config


def test_a_larger_radius_raises_the_loss_on_a_linear_classifier(attack, linear_classifier, images, labels):
    small = attack(linear_classifier, images, labels, radius=0.1).loss.mean()
    large = attack(linear_classifier, images, labels, radius=0.4).loss.mean()
    if attack.name == "random_plan":
        pytest.skip("the control does not follow the loss")
    assert large > small


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_no_iterations_return_the_image(name, linear_classifier, images, labels):
    attack = attacks.make(name, THREAT_MODEL, iterations=0)
    result = attack(linear_classifier, images[:2], labels[:2])
    np.testing.assert_array_equal(result.adversarial, images[:2])
    np.testing.assert_array_equal(result.iterations, [0, 0])


@pytest.mark.parametrize(("name", "share"), [("wasser_attack", 0.9), ("mirror_ascent", 0.97)])
def test_the_share_of_the_exact_optimum_on_linear_classifiers(name, share):
    size = 12
    rng = np.random.default_rng(size)
    shape = (size, size, 1)
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)])
    weights = rng.normal(size=(size * size, 2)).astype(np.float32)
    model.set_weights([weights, np.zeros(2, np.float32)])
    # Strokes and greys, as images are; a third of the pixels saturated.
    images = np.clip(rng.uniform(-1, 1.5, size=(6, *shape)), 0, 1).astype(np.float32)
    labels = np.zeros(6, np.int32)
    threat_model = wasser_tf.ThreatModel(epsilon=0.3, kernel_size=5)
    result = attacks.make(name, threat_model)(model, images, labels)
    direction = (weights[:, 1] - weights[:, 0]).reshape(shape).astype(float)
    shares = []
    for image, target in zip(images, result.adversarial, strict=True):
        best, _ = linear_optimum(image, direction, threat_model)
        start = (direction * image).sum()
        shares.append(((direction * target).sum() - start) / (best - start))
    assert max(shares) <= 1 + 1e-4
    assert np.mean(shares) >= share, shares


def test_a_targeted_attack_reaches_its_target_or_reports_failure(linear_classifier, images, labels):
    attack = attacks.make("mirror_ascent", wasser_tf.ThreatModel(epsilon=1.0, kernel_size=3), iterations=20)
    targets = (labels + 1) % 3
    result = attack(linear_classifier, images, labels, targets=targets)
    predicted = np.asarray(linear_classifier(result.adversarial)).argmax(axis=1)
    np.testing.assert_array_equal(result.success, predicted == targets)
    assert result.success.sum() >= 5 and result.feasibility.feasible().all()
    with pytest.raises(ValueError, match="0 to 2"):
        attack(linear_classifier, images, labels, targets=np.full(len(labels), 3))


def test_one_hot_labels_and_probabilities_give_the_same_examples(linear_classifier, images, labels):
    attack = attacks.make("mirror_ascent", THREAT_MODEL, iterations=20)
    expected = attack(linear_classifier, images, labels).adversarial
    one_hot = np.eye(3)[labels]
    np.testing.assert_array_equal(attack(linear_classifier, images, one_hot).adversarial, expected)
    softmax = keras.Sequential([linear_classifier, keras.layers.Softmax()])
    result = attack(softmax, images, labels)
    np.testing.assert_allclose(result.loss, attack(linear_classifier, images, labels).loss, rtol=1e-2, atol=1e-3)


def test_an_image_stops_when_it_is_fooled(linear_classifier, images, labels):
    schedule = wasser_tf.RadiusSchedule(start=0.05, factor=1.5, every=2, minimum=0.05, maximum=2.0)
    attack = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=30, schedule=schedule)
    result = attack(linear_classifier, images[:7], labels[:7])
    assert result.success.all() and result.feasibility.feasible().all()
    assert len(set(result.iterations)) > 1 and result.iterations.max() < 30
    allowed = 0.05 * 1.5 ** (np.maximum(result.iterations - 1, 0) // 2)
    np.testing.assert_allclose(result.radius, np.minimum(allowed, 2.0), rtol=1e-5)


def test_a_misclassified_clean_image_counts_as_success(any_attack, linear_classifier, images, labels):
    assert any_attack(linear_classifier, images, (labels + 1) % 3).success.all()


# What flags and JSON make of 3000 is an int.
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_real_settings_accept_integers(name, linear_classifier, images, labels):
    usual = attacks.serialize(attacks.make(name, THREAT_MODEL))["config"]
    whole = {key: max(round(value), 1) for key, value in usual.items() if isinstance(value, float)}
    attack = attacks.make(name, THREAT_MODEL, iterations=2, **whole)

    def run(images, labels):
        return attack.run(lambda images: linear_classifier(images, training=False), images, labels).adversarial

    # Traced, not compiled.
    traced = tf.function(run, autograph=False).get_concrete_function(images[:2], labels[:2])
    assert traced.structured_outputs.shape == images[:2].shape


def bad(images, **changes):
    return {"images": images, "labels": np.zeros(len(images), int), **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: bad(x * 255), r"\[0, 1\]"),
        (lambda x: bad(x - 0.5), r"\[0, 1\]"),
        (lambda x: bad((x * 255).astype(np.uint8)), "divide"),
        (lambda x: bad(np.where(x > 0.9, np.nan, x)), "finite"),
        (lambda x: bad(np.where(x > 0.9, np.inf, x)), "finite"),
        (lambda x: bad(x[0]), "shape"),
        (lambda x: bad(x[:0]), "empty"),
        (lambda x: bad(x.transpose(0, 3, 1, 2)), "channels last"),
        (lambda x: bad(x[:, :4]), "takes images of shape"),
        (lambda x: bad(x, labels=np.zeros(3, int)), "labels"),
        (lambda x: bad(x, labels=np.full(len(x), 3)), "0 to 2"),
        (lambda x: bad(x, labels=np.full(len(x), -1)), "0 to 2"),
        (lambda x: bad(x, labels=np.zeros((len(x), 4))), "3 columns"),
        (lambda x: bad(x, labels=np.full((len(x), 3), 0.3)), "one-hot"),
        (lambda x: bad(x, labels=np.full(len(x), 0.5)), "whole"),
        (lambda x: bad(x, radius=-0.1), "radius"),
        (lambda x: bad(x, radius=[0.1, 0.2]), "radius"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, message, linear_classifier, images):
    attack = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=1)
    with pytest.raises(ValueError, match=message):
        attack(linear_classifier, **change(images))


def test_bad_settings_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="Unknown attack 'nothing'; there are wasser_attack"):
        attacks.make("nothing", THREAT_MODEL)
    with pytest.raises(ValueError, match="does not take"):
        attacks.make("wasser_attack", THREAT_MODEL, bananas=3)
    with pytest.raises(ValueError, match="iterations"):
        attacks.make("wasser_attack", THREAT_MODEL, iterations=-1)
    with pytest.raises(ValueError, match="Unknown attack loss"):
        attacks.make("mirror_ascent", THREAT_MODEL, loss="hinge")
    with pytest.raises(ValueError, match="ThreatModel"):
        wasser_tf.MirrorAscent(0.5)


def test_user_callables_may_contain_tensor_dependent_branches(images, labels, linear_classifier):
    def classifier(given, training=False):
        logits = linear_classifier(given, training=training)
        if tf.reduce_max(given) > 1e6:
            logits = -logits
        return logits

    attack = attacks.MirrorAscent(THREAT_MODEL, iterations=2)
    found = attack(classifier, images, labels, from_logits=True)
    wanted = attack(linear_classifier, images, labels, from_logits=True)
    np.testing.assert_allclose(found.adversarial, wanted.adversarial, atol=1e-6)
