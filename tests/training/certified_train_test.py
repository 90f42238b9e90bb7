"""CertifiedTrain: bounds, metrics, saving, resumption, options, and certificates of the trained classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import CertifiedTrain, LinearRamp, MirrorAscent, ThreatModel, attacks, certify, data
from wasser_tf.certification.differentiable import DifferentiableBounds
from wasser_tf.certification.prover import Prover
from wasser_tf.models import build
from wasser_tf.models.provable import IBPNormal, adapt_potentials, build_provable
from wasser_tf.training.loss import GeneralizedCrossEntropy

BALL = ThreatModel(epsilon=0.05, kernel_size=3)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", splits=("train", "test"))


def new_classifier(digits, potentials=16):
    classifier = build_provable((8, 8, 1), 10, BALL, potentials=potentials, hidden=(32,), seed=0)
    adapt_potentials(classifier, digits.train.images[:200])
    return classifier


def trainer(digits, **settings):
    model = CertifiedTrain(new_classifier(digits), BALL, **{"kappa": 0.5, **settings})
    model.compile(keras.optimizers.Adam(1e-2), LOSS, metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    model = CertifiedTrain(new_classifier(digits, 64), BALL, 0.3, epsilon=LinearRamp(0.0, 0.06, epochs=8))
    model.compile(keras.optimizers.Adam(4e-3), LOSS, metrics=["accuracy"])
    history = model.fit(digits.train.images, digits.train.labels, epochs=16, batch_size=64, verbose=0)
    return model, history.history


@pytest.mark.parametrize("name", ["provable", "mlp", "lenet"])
def test_bounds_of_training_are_those_of_the_prover_or_looser(name, digits):
    images, labels = digits.test.images[:4], digits.test.labels[:4]
    classifier = new_classifier(digits) if name == "provable" else build(name, (8, 8, 1), 10, seed=0, width=0.25)
    worst = DifferentiableBounds(classifier, BALL).worst_logits(images, labels, tf.fill([4], 0.02)).numpy()
    rows = np.arange(4)
    np.testing.assert_allclose(worst[rows, labels], 0, atol=1e-6)
    worst[rows, labels] = -np.inf
    proved = Prover(classifier, BALL).margins(images, labels, 0.02, "ibp")
    assert (-worst.max(axis=1) <= proved + 1e-4 * (1 + np.abs(proved))).all()
    exact = DifferentiableBounds(classifier, BALL).worst_logits(images, labels, tf.zeros([4])).numpy()
    logits = classifier(images).numpy()
    np.testing.assert_allclose(exact, logits - logits[rows, labels][:, None], atol=2e-5)


def test_small_boxes_lie_within_the_box(digits):
    images, labels = digits.test.images[:4], digits.test.labels[:4]
    bounds = DifferentiableBounds(new_classifier(digits), BALL)
    whole, half, none = (bounds.worst_logits(images, labels, 0.05, share).numpy() for share in (1.0, 0.5, 1e-6))
    other = np.arange(10) != labels[:, None]
    assert (half[other] < whole[other]).all() and (none[other] < whole[other]).all()
    assert not np.allclose(half, none)


def test_training_proves_what_standard_training_does_not(trained, digits):
    model, history = trained
    assert history["epsilon"][-1] == pytest.approx(0.06) and history["epsilon"][0] < 0.02
    assert history["certified_accuracy"][-1] > 0.5 and history["accuracy"][-1] > 0.8
    images, labels = digits.test.images[:100], digits.test.labels[:100]
    scores = model.evaluate(images, labels, verbose=0, return_dict=True)
    found = certify(model.classifier, images, labels, BALL, method="ibp")
    # The support function is a little tighter than the bound by Lip, the allowance for rounding a little looser.
    assert found.certified.mean() >= scores["certified_accuracy"] - 0.011
    assert found.certified.mean() <= scores["certified_accuracy"] + 0.1
    assert found.correct.mean() == pytest.approx(scores["accuracy"])
    assert found.certified.mean() > 0.5


def test_no_attack_succeeds_within_the_certified_radius(trained, digits):
    images, labels = digits.test.images[:64], digits.test.labels[:64]
    radius = certify(trained[0].classifier, images, labels, BALL, method="ibp").radius
    proved = radius > 0
    attack = MirrorAscent(BALL, iterations=20, restarts=2)
    found = attack(trained[0].classifier, images[proved], labels[proved], radius=radius[proved], from_logits=True)
    assert proved.sum() > 32 and not found.success.any()


def test_a_saved_and_loaded_training_continues_identically(digits, tmp_path):
    images, labels = digits.train.images[:128], digits.train.labels[:128]
    settings = {"epsilon": LinearRamp(0.0, 0.1, steps=6), "kappa": LinearRamp(1.0, 0.2, steps=4)}
    whole = trainer(digits, **settings)
    whole.fit(images, labels, epochs=2, batch_size=64, shuffle=False, verbose=0)
    part = trainer(digits, **settings)
    part.fit(images, labels, epochs=1, batch_size=64, shuffle=False, verbose=0)
    part.save(tmp_path / "part.keras")
    resumed = keras.saving.load_model(tmp_path / "part.keras")
    history = resumed.fit(images, labels, epochs=1, batch_size=64, shuffle=False, verbose=0).history
    assert history["epsilon"] == pytest.approx([0.05]) and history["kappa"] == pytest.approx([0.4])
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    resumed.classifier.save(tmp_path / "classifier.keras")
    loaded = keras.saving.load_model(tmp_path / "classifier.keras")
    np.testing.assert_array_equal(loaded(images[:4]), resumed.classifier(images[:4]))


def test_every_option_changes_the_step(digits):
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    attack = attacks.make("linf_pgd", BALL, iterations=2)
    options = [{}, {"kappa": 0.1}, {"epsilon": 0.2}, {"random_radius": True}, {"box_fraction": 0.5}]
    options += [{"attack": attack}, {"attack": attack, "attack_weight": 0.9}, {"exponent": 0.5}]
    losses = []
    for option in options:
        logs = trainer(digits, **option).train_on_batch(images, labels, return_dict=True)
        losses.append(float(logs["loss"]))
        assert ("adversarial_accuracy" in logs) == ("attack" in option)
    assert len({round(loss, 5) for loss in losses}) == len(options)


def test_the_generalized_cross_entropy_is_bounded_and_tends_to_the_cross_entropy():
    labels, logits = np.array([0, 1, 2]), np.array([[3.0, 0, -1], [80.0, 0, 0], [0, 0, 0]], np.float32)
    probability = np.exp(logits[range(3), labels]) / np.exp(logits.astype(np.float64)).sum(axis=1)
    each = GeneralizedCrossEntropy(0.7, reduction="none")(labels, logits)
    np.testing.assert_allclose(each, (1 - probability**0.7) / 0.7, rtol=1e-5)
    wanted = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    np.testing.assert_allclose(GeneralizedCrossEntropy(0.0, reduction="none")(labels, logits), wanted, rtol=0.05)
    loaded = keras.losses.deserialize(keras.losses.serialize(GeneralizedCrossEntropy(0.7)))
    assert loaded.exponent == 0.7 and loaded.from_logits


def test_a_scheduled_exponent_gives_the_loss_of_its_value(digits):
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    logs = [
        trainer(digits, exponent=exponent).train_on_batch(images, labels, return_dict=True)
        for exponent in (0.5, LinearRamp(0.5, 1.0, steps=10))
    ]
    assert float(logs[0]["loss"]) == pytest.approx(float(logs[1]["loss"]), rel=1e-5)
    assert logs[1]["exponent"] == pytest.approx(0.5) and "exponent" not in logs[0]
    # At most 1 / q.
    assert 0 < logs[0]["certified_loss"] <= 2


@pytest.mark.parametrize("weights", [None, np.float32([2.0, 0.0] * 4)], ids=["even", "weighted"])
def test_scores_are_the_weighted_sums_of_both_losses(digits, weights):
    images, labels = digits.test.images[:8], digits.test.labels[:8]
    model = trainer(digits, kappa=0.25)
    logits = model.classifier(images)
    worst = model._bounds.worst_logits(images, labels, BALL.epsilon)
    natural, certified = (float(LOSS(labels, found, sample_weight=weights)) for found in (logits, worst))
    scores = model.evaluate(images, labels, sample_weight=weights, batch_size=8, verbose=0, return_dict=True)
    assert scores["natural_loss"] == pytest.approx(natural, rel=1e-5)
    assert scores["certified_loss"] == pytest.approx(certified, rel=1e-5) and certified > natural
    assert scores["loss"] == pytest.approx(0.25 * natural + 0.75 * certified, rel=1e-5)
    assert scores["accuracy"] == pytest.approx(np.mean(logits.numpy().argmax(axis=1) == labels))
    assert scores["certified_accuracy"] == pytest.approx(np.mean(worst.numpy().argmax(axis=1) == labels))


def test_one_hot_labels_give_the_scores_of_class_indices(digits):
    images, labels = digits.test.images[:8], digits.test.labels[:8]
    expected = trainer(digits).evaluate(images, labels, verbose=0, return_dict=True)
    model = CertifiedTrain(new_classifier(digits), BALL, kappa=0.5)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    found = model.evaluate(images, np.eye(10, dtype=np.float32)[labels], verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_certified_weight_a_step_is_that_of_keras(digits):
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    model = trainer(digits, kappa=1.0)
    plain = new_classifier(digits)
    plain.compile(keras.optimizers.Adam(1e-2), LOSS)
    model.train_on_batch(images, labels)
    plain.train_on_batch(images, labels)
    for one, two in zip(model.classifier.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_initial_weights_keep_intervals_from_growing():
    weights = np.asarray(IBPNormal(seed=0)((400, 300)))
    assert weights.std() == pytest.approx(np.sqrt(2 * np.pi) / 400, rel=0.02)
    assert np.abs(weights).sum(axis=0).mean() == pytest.approx(2.0, rel=0.02)
    np.testing.assert_array_equal(weights, IBPNormal(seed=0)((400, 300)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kappa": 1.5}, "kappa"),
        ({"kappa": LinearRamp(0, 2, epochs=1)}, "kappa"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"box_fraction": 0.0}, "box_fraction"),
        ({"attack": "pgd"}, "attack"),
        ({"attack_weight": 2.0}, "attack_weight"),
        ({"random_radius": 1}, "random_radius"),
    ],
)
def test_settings_out_of_range(settings, words, digits):
    with pytest.raises(ValueError, match=words):
        CertifiedTrain(new_classifier(digits), BALL, **settings)


def test_mixed_precision_has_bounds_in_float32(digits):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = trainer(digits)
        assert model.classifier.get_layer("dense1").compute_dtype == "bfloat16"
        worst = model._bounds.worst_logits(digits.train.images[:8], digits.train.labels[:8], 0.05)
        logs = model.train_on_batch(digits.train.images[:64], digits.train.labels[:64], return_dict=True)
    finally:
        keras.config.set_dtype_policy("float32")
    usual = DifferentiableBounds(new_classifier(digits), BALL)
    expected = usual.worst_logits(digits.train.images[:8], digits.train.labels[:8], 0.05)
    assert worst.dtype == tf.float32 and np.isfinite(logs["certified_loss"])
    np.testing.assert_allclose(worst, expected, atol=1e-5)
