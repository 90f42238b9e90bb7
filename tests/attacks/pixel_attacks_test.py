"""LinfPGD and Distributional, which are no Wasserstein attacks: their optima, constraints and reports."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import attacks
from wasser_tf.attacks import Distributional, LinfPGD
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.minimal_radius import minimal_radii
from wasser_tf.evaluation.record import evaluate_attack, make_record
from wasser_tf.evaluation.sweep import Sweep
from wasser_tf.reporting import drawing, figures
from wasser_tf.runs.attack import AttackRun

BALL = wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3)
SHAPE = (8, 8, 1)
NAMES = ("linf_pgd", "distributional")
WEIGHTS = np.random.default_rng(3).normal(size=(64, 2)).astype("float32")
# Of the margin z₁ − z₀, which is linear, so that optima of images of class 0 are known.
SLOPE = (WEIGHTS[:, 1] - WEIGHTS[:, 0]).reshape(SHAPE)


def two_classes(images, training=False):
    return tf.reshape(images, [-1, 64]) @ WEIGHTS


@pytest.fixture(scope="module", params=NAMES)
def attack(request):
    """Each with its defaults, one object a module so that its compiled function is shared."""
    return attacks.make(request.param, BALL)


@pytest.fixture(scope="module")
def result(attack, linear_classifier, images, labels):
    return attack(linear_classifier, images, labels)


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_linf_reaches_the_optimum_of_a_linear_classifier(images, random_start, loss):
    attack = LinfPGD(BALL, iterations=6, loss=loss, random_start=random_start)
    radius = np.linspace(0.05, 0.4, 8, dtype="float32")
    result = attack(two_classes, images, np.zeros(8, int), radius=radius, from_logits=True)
    optimum = np.clip(images + radius[:, None, None, None] * np.sign(SLOPE), 0, 1)
    np.testing.assert_array_equal(result.adversarial, optimum)
    np.testing.assert_allclose(result.radius, radius)


@pytest.mark.parametrize("iterations", [1, 5])
def test_distributional_reaches_the_optimum_of_a_linear_loss(images, iterations):
    # x + w/(2γ) within [0, 1]; the first step, of length 1, is there, and the others stay.
    attack = Distributional(BALL, iterations=iterations, gamma=4.0, loss="margin")
    result = attack(two_classes, images, np.zeros(8, int), from_logits=True)
    optimum = np.clip(images + SLOPE / 8, 0, 1)
    np.testing.assert_allclose(result.adversarial, optimum, atol=1e-6)
    assert ((optimum > 0) & (optimum < 1)).mean() > 0.4  # Not all is the clip's doing.


def test_distributional_climbs_to_a_stationary_point_of_a_curved_loss(images):
    gamma = 20.0
    attack = Distributional(BALL, iterations=60, gamma=gamma)
    grey = 0.3 + 0.4 * images
    found = attack(two_classes, grey, np.zeros(8, int), from_logits=True).adversarial
    assert found.min() > 0 and found.max() < 1
    # ∇loss(x̃) = p₁(x̃) w, so x̃ − x = p₁(x̃) w / (2γ).
    p1 = np.asarray(tf.nn.softmax(two_classes(found)))[:, 1, None, None, None]
    np.testing.assert_allclose(found - grey, p1 * SLOPE / (2 * gamma), atol=1e-3)


def test_distributional_steps_equal_those_of_the_authors_code(linear_classifier, images, labels):
    # Their code, eps = 0.5 / γ: a first step along eps ∇loss, then 1/√(t+2) (eps ∇loss − (x̃ − x)) for t = 0, 1, ….
    gamma = 2.0
    adversarial = tf.constant(images)
    for length in (1, 1 / np.sqrt(2), 1 / np.sqrt(3)):
        with tf.GradientTape() as tape:
            tape.watch(adversarial)
            logits = linear_classifier(adversarial)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        ascent = 0.5 / gamma * tape.gradient(loss, adversarial) - (adversarial - images)
        adversarial = tf.clip_by_value(adversarial + length * ascent, 0, 1)
    found = Distributional(BALL, iterations=3, gamma=gamma)(linear_classifier, images, labels).adversarial
    np.testing.assert_allclose(found, adversarial, atol=1e-5)


def test_examples_keep_to_their_own_constraints(attack, result, linear_classifier, images, labels):
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    np.testing.assert_array_equal(result.adversarial, result.raw)
    change = np.abs(result.adversarial - images).max(axis=(1, 2, 3))
    np.testing.assert_array_equal(result.feasibility.column_error, change)
    if attack.name == "linf_pgd":
        assert (change <= 0.3 * (1 + 1e-6)).all() and (change > 0.29).all()
    predictions = linear_classifier.predict(result.adversarial, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(result.success, predictions != labels)
    clean = keras.losses.sparse_categorical_crossentropy(labels, linear_classifier(images), from_logits=True)
    assert (result.loss > clean.numpy()).all()


def test_examples_are_not_reported_as_feasible_in_the_wasserstein_ball(attack, result):
    for feasibility in (result.feasibility, result.raw_feasibility):
        assert not feasibility.feasible().any() and not feasibility.feasible(capacity=None).any()
        assert np.isposinf(feasibility.cost).all()
    np.testing.assert_array_equal(result.radius, np.full(8, 0.3 if attack.name == "linf_pgd" else np.inf, "float32"))
    assert "Wasserstein" not in attack.ball()


def test_changes_below_rounding_are_not_reported_as_feasible(images):
    result = Distributional(BALL, gamma=1e7, loss="margin")(two_classes, images, np.zeros(8, int), from_logits=True)
    assert 0 < result.feasibility.column_error.max() < 1e-6
    assert not result.feasibility.feasible()[result.feasibility.column_error > 0].any()


def test_a_black_image_is_in_the_ball_and_finite(attack, result):
    assert np.isfinite(result.adversarial[7]).all() and np.isfinite(result.loss[7])
    # Mass out of nothing, which no transport makes.
    assert result.adversarial[7].max() > 0.1 and np.isposinf(result.feasibility.mass_error[7])


def test_linf_of_radius_0_is_the_image(linear_classifier, images, labels):
    result = LinfPGD(BALL)(linear_classifier, images, labels, radius=0.0)
    np.testing.assert_array_equal(result.adversarial, images)
    assert result.feasibility.feasible().all()


def test_random_starts_come_from_seed_and_index(linear_classifier, images, labels):
    def once(seed, **options):
        # One step that is too short to matter.
        attack = LinfPGD(BALL, iterations=1, step_size=1e-6, seed=seed)
        return attack(linear_classifier, np.full_like(images, 0.5), labels, **options).adversarial

    first = once(0)
    np.testing.assert_array_equal(once(0), first)
    assert np.abs(once(1) - first).max() > 0.1 and np.abs(first[0] - first[1]).max() > 0.1
    np.testing.assert_allclose(once(0, index=np.arange(8)[::-1]), first[::-1], atol=3e-6)
    # All of the ball, and evenly.
    assert np.abs(first - 0.5).max() > 0.28 and abs(first.mean() - 0.5) < 0.03


def test_towards_a_target(linear_classifier, images, labels):
    targets = (labels + 1) % 3
    for name in NAMES:
        result = attacks.make(name, BALL)(linear_classifier, images, labels, targets=targets)
        predicted = np.asarray(linear_classifier(result.adversarial)).argmax(axis=1)
        np.testing.assert_array_equal(result.success, predicted == targets)
        assert result.success.sum() >= 6


def test_linf_grows_its_radius_until_an_image_is_fooled(linear_classifier, images, labels):
    schedule = wasser_tf.RadiusSchedule(start=0.01, factor=1.5, every=2, minimum=0.01, maximum=1.0)
    result = LinfPGD(BALL, iterations=30, schedule=schedule)(linear_classifier, images[:6], labels[:6])
    assert result.success.all() and len(set(result.radius)) > 1
    assert (result.feasibility.column_error <= result.radius * (1 + 1e-5)).all()


@pytest.mark.parametrize("name", NAMES)
def test_wasser_train_learns_from_these_examples(name, linear_classifier, images, labels):
    # No random start, for the numbers of a training step are its own. ε = 0 stops only the attack that has an ε.
    settings = {"random_start": False} if name == "linf_pgd" else {}
    attack = attacks.make(name, wasser_tf.ThreatModel(epsilon=0.1 if settings else 0.0), iterations=4, **settings)
    learner, expected = keras.models.clone_model(linear_classifier), keras.models.clone_model(linear_classifier)
    for model in (learner, expected):
        model.set_weights(linear_classifier.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained = wasser_tf.WasserTrain(learner, attack, omega=1.0)
    trained.compile(keras.optimizers.SGD(0.1), loss)
    logs = trained.train_on_batch(images, labels, return_dict=True)
    found = attack(linear_classifier, images, labels)
    assert logs["adversarial_loss"] == pytest.approx(found.loss.mean(), rel=1e-4)
    assert logs["adversarial_loss"] > logs["natural_loss"] + 0.1
    expected.compile(keras.optimizers.SGD(0.1), loss)
    expected.train_on_batch(found.adversarial, labels)
    for one, two in zip(learner.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_can_perturb_is_false_at_epsilon_0_or_without_iterations():
    assert not LinfPGD(wasser_tf.ThreatModel(epsilon=0.0)).can_perturb and LinfPGD(BALL).can_perturb
    assert not Distributional(BALL, iterations=0).can_perturb


@pytest.mark.parametrize(
    "made",
    [
        LinfPGD(BALL, iterations=7, step_size=0.01, loss="dlr", random_start=False, stop_when_fooled=True, seed=3),
        LinfPGD(BALL, schedule=wasser_tf.RadiusSchedule()),
        Distributional(BALL, iterations=7, gamma=0.04, loss="margin", stop_when_fooled=True, seed=3),
    ],
)
def test_serialisation_keeps_every_setting(made):
    config = json.loads(json.dumps(attacks.serialize(made)))
    again = attacks.deserialize(config)
    assert type(again) is type(made) and again.get_config() == made.get_config()
    assert again == made and vars(again) == vars(made)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("linf_pgd", {"step_size": 0.0}, "step_size must be a finite number above 0"),
        ("linf_pgd", {"random_start": 1}, "random_start must be True or False"),
        ("linf_pgd", {"loss": "hinge"}, "Unknown attack loss"),
        ("distributional", {"gamma": 0.0}, "gamma must be a finite number above 0"),
        ("distributional", {"gamma": np.inf}, "gamma must be a finite number above 0"),
        ("distributional", {"schedule": wasser_tf.RadiusSchedule()}, "does not take these settings"),
    ],
)
def test_bad_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        attacks.make(name, BALL, **settings)


def test_evaluations_refuse_them(attack, result, linear_classifier, images, labels, tmp_path):
    source, folder = ImageSource(num_examples=2), str(tmp_path / "run")
    control = attacks.make("random_plan", BALL)
    for refused in (
        lambda: evaluate_attack(linear_classifier, attack, images, labels),
        lambda: make_record(attack, result, None, radius=0.3, model_name="model", dataset_name="digits", seconds=1.0),
        lambda: minimal_radii(attack, linear_classifier, images, labels),
        lambda: AttackRun(model="m.keras", source=source, attack=attack, output_dir=folder),
        lambda: EvaluationRun(
            models={"m": "m.keras"},
            source=source,
            attacks={"random_plan": control, "other": attack},
            radii=(0.1,),
            output_dir=folder,
        ),
        lambda: Sweep(folder, [None], {"other": attack}, [0.1], None),
    ):
        with pytest.raises(
            ValueError, match=f"{attack.name} is not a Wasserstein attack .*evaluate with another attack"
        ):
            refused()


def test_captions_of_examples_name_the_ball_of_the_attack(attack, result, images, labels, monkeypatch):
    written = []
    monkeypatch.setattr(drawing, "save_figure", lambda figure, path, title, caption: written.append(caption))
    figures.save_examples("fig.png", images[:1], result.adversarial, labels, labels, labels, threat_model=attack.ball())
    assert written[0].endswith(attack.ball() + ".")
