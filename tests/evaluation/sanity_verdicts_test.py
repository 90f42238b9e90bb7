"""Every sanity check passes and fails where it should, with attacks of a given success."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import ThreatModel, attacks
from wasser_tf.evaluation import sanity
from wasser_tf.evaluation.check import Check, gradient_masking
from wasser_tf.evaluation.sanity import SanityChecker
from wasser_tf.evaluation.surrogate import train_surrogate

_COUNT = 20
# One image of twenty, and a point.
_TOLERANCE = 0.06


def _linear(images, training=False):
    """Two classes; of the images of value v the logits are v and 1 − v."""
    value = tf.reduce_mean(images, axis=(1, 2, 3))
    return 4 * tf.stack([value, 1 - value], axis=1)


@dataclasses.dataclass(frozen=True)
class _Fake:
    """An attack that fools as many images as `fooled` says of (radius, iterations, seed, name, threat_model)."""

    fooled: object
    iterations: int = 8
    seed: int = 3
    name: str = "fake"
    uses_gradients: bool = True
    threat_model: ThreatModel = dataclasses.field(default_factory=lambda: ThreatModel(kernel_size=3))
    schedule: object = None
    calls: list = dataclasses.field(default_factory=list)

    def __call__(self, classifier, images, labels, *, radius, batch_size, from_logits=None):
        self.calls.append((classifier, len(images), radius, batch_size, from_logits, self))
        first = self.fooled(radius, self)
        success = np.isin(np.arange(len(images)), np.arange(first) if isinstance(first, int) else list(first))
        # Images that are fooled are turned over.
        adversarial = np.where(success[:, None, None, None], 1 - images, images).astype(np.float32)
        return types.SimpleNamespace(success=success, adversarial=adversarial)


@pytest.fixture
def make():
    def checker(fooled, radii=(0.1,), classifier=_linear, wrong=0, images=None, **options):
        fields = {key: options.pop(key) for key in ("iterations", "threat_model") if key in options}
        images = np.full([_COUNT, 4, 4, 1], 0.25, np.float32) if images is None else images
        labels = (np.arange(len(images)) >= wrong).astype(np.int32)
        by_call = fooled if callable(fooled) else (lambda radius, attack: fooled)
        return SanityChecker(classifier, _Fake(by_call, **fields), images, labels, radii, **options)

    return checker


def test_the_tolerance_is_one_image_plus_one_percentage_point(make):
    checker = make(3, radii=(0.3, 0.1))
    assert checker.tolerance == pytest.approx(_TOLERANCE) and checker.radii == (0.1, 0.3)
    assert checker.from_logits and checker.attack.schedule is None


@pytest.mark.parametrize(
    "fooled, radius",
    [((0, 9, 20), 0.2), ((2, 4, 5), 0.3), ((5, 15, 20), 0.2), ((10, 10, 10), 0.3), ((12, 15, 18), 0.1)],
)
def test_the_radius_of_most_checks_is_where_half_are_fooled(make, fooled, radius):
    by_radius = dict(zip((0.1, 0.2, 0.3), fooled, strict=True))
    checker = make(lambda at, attack: by_radius[at], radii=(0.1, 0.2, 0.3))
    assert checker.radius == radius


def test_the_attack_runs_once_a_radius_and_misclassified_clean_images_count_as_fooled(make):
    checker = make([0, 1, 5], radii=(0.1,), wrong=4, batch_size=7)
    assert np.flatnonzero(checker._success(0.1)).tolist() == [0, 1, 2, 3, 5]
    checker._success(0.1)
    ((classifier, count, radius, batch_size, from_logits, _),) = checker.attack.calls
    assert (classifier, count, radius, batch_size, from_logits) == (_linear, _COUNT, 0.1, 7, True)
    assert np.flatnonzero(checker._success(0.1, attack=checker.attack, rows=np.arange(2, 6))).tolist() == [0, 1]
    assert checker.attack.calls[-1][1:4] == (4, 0.1, 4)


@pytest.mark.parametrize("noise, passed", [(0.0, True), (5e-5, True), (2e-4, False), (1.0, False)])
def test_deterministic(make, noise, passed):
    asked = []

    def drifting(images, training=False):
        asked.append(training)
        # The largest output is 1, the first time.
        return tf.one_hot(tf.zeros(len(images), tf.int32), 2) * (1 + noise * (len(asked) - 2))

    made = make(0, classifier=_linear)
    made.classifier = drifting
    asked.append(None)
    check = made.deterministic()
    assert check.passed is passed and check.masking and not any(asked)
    assert check.name == "the classifier is deterministic" and check.needed == "at most 1e-4 of the largest output"
    assert "(largest output 1)" in check.measured and (noise or " up to 0 " in check.measured)


@pytest.mark.parametrize("shift, passed", [(0.0, True), (8e-4, True), (2e-3, False)])
def test_independent_of_batch(make, shift, passed):
    made = make(0)
    asked = []

    def crowded(images, training=False):
        asked.append(len(images))
        return tf.ones([len(images), 2]) * (1.0 if len(images) > 1 else 1 + shift)

    made.classifier = crowded
    check = made.independent_of_batch()
    assert check.passed is passed and check.masking and asked == [_COUNT, 1, 1, 1, 1]
    assert check.name == "outputs do not depend on the batch" and "(largest output 1)" in check.measured


@pytest.mark.parametrize("blind, passed", [(0, True), (1, True), (2, False), (20, False)])
def test_gradients(make, blind, passed):
    def partly(images, training=False):
        flat = tf.cast(tf.range(len(images)) < blind, tf.float32)[:, None]
        logits = _linear(images)
        return flat * tf.stop_gradient(logits) + (1 - flat) * logits

    check = make(0, classifier=partly).gradients()
    assert check.passed is passed and check.masking and check.name == "the margin has a gradient"
    assert check.measured == f"{5 * blind:.1f} % of the images have no gradient"


def test_no_gradient_at_all_fails_and_no_attack_is_run(make):
    def rounded(images, training=False):
        return _linear(tf.cast(tf.cast(100 * images, tf.int32), tf.float32) / 100)

    made = make(20, classifier=rounded, wrong=2)
    check = made.gradients()
    assert check.passed is False and check.masking and check.measured == "the outputs are not differentiable"
    assert made._success(0.1).sum() == 2 and not made.attack.calls
    # But a plan that needs no gradient is tried.
    plan = dataclasses.replace(made.attack, uses_gradients=False)
    assert made._success(0.1, attack=plan).sum() == 20


@pytest.mark.parametrize(
    "rates, passed", [((4, 4, 9), True), ((5, 4, 9), True), ((4, 9, 7), False), ((6, 4, 9), False)]
)
def test_grows_with_radius(make, rates, passed):
    by_radius = dict(zip((0.1, 0.2, 0.3), rates, strict=True))
    check = make(lambda at, attack: by_radius[at], radii=(0.1, 0.2, 0.3)).grows_with_radius()
    assert check.passed is passed and check.masking and check.name == "success grows with ε"
    assert check.measured.startswith(f"{5 * rates[0]:.1f} % at 0.1, ")


@pytest.mark.parametrize(
    "found, random, passed",
    [
        (range(10), range(5), True),
        (range(5), range(5), False),  # As strong.
        (range(5), range(8), False),
        (range(20), range(20), True),  # All are fooled.
        (range(10), [18], True),  # One that only the random plan fools.
        (range(10), [18, 19], False),
        ([], [], False),
    ],
)
def test_stronger_than_random(make, monkeypatch, found, random, passed):
    made = make(lambda at, attack: list(found))
    asked = []

    def control(name, threat_model, **settings):
        asked.append((name, threat_model, settings))
        return _Fake(lambda at, attack: list(random), name=name)

    monkeypatch.setattr(attacks, "make", control)
    check = made.stronger_than_random()
    assert check.passed is passed and check.masking and check.name == "the attack is stronger than a random plan"
    assert asked == [("random_plan", made.attack.threat_model, {"seed": 3})]
    share = f"{5 * len(list(found)):.1f} % against {5 * len(list(random)):.1f} % at ε = 0.1 (0.0 % misclassified clean)"
    assert check.measured == share


@pytest.mark.parametrize(
    "rates, passed",
    [
        ((4, 8, 8), True),
        ((8, 8, 10), True),  # 10 points more: 5 and the tolerance are 11.
        ((8, 8, 11), False),
        ((9, 8, 8), True),
        ((10, 8, 8), False),
        ((8, 8, 6), False),
    ],
)
def test_more_iterations(make, rates, passed):
    by_count = dict(zip((2, 8, 16), rates, strict=True))
    made = make(lambda at, attack: by_count[attack.iterations])
    check = made.more_iterations()
    assert check.passed is passed and not check.masking
    assert check.name == "more iterations do not hurt, and converge"
    low, usual, high = (f"{5 * rate:.1f} %" for rate in rates)
    assert check.measured == f"{low} with 2, {usual} with 8, {high} with 16 at ε = 0.1"


def test_an_attack_of_one_iteration_cannot_have_more(make):
    check = make(8, iterations=1).more_iterations()
    assert check.passed is None and check.measured == "the attack has 1 iterations"
    by_count = {1: 4, 2: 8, 4: 8}
    assert make(lambda at, attack: by_count[attack.iterations], iterations=2).more_iterations().passed is True


@pytest.mark.parametrize(
    "found, passed, rates",
    [
        (([0], [1], [2]), True, "5.0 % with 1, 10.0 % with 2, 15.0 % with 3"),
        (([0], [1], [2, 3]), True, "5.0 % with 1, 10.0 % with 2, 20.0 % with 3"),
        (([0], [1], [2, 3, 4]), False, "5.0 % with 1, 10.0 % with 2, 25.0 % with 3"),
        # The union counts: one that finds less does not take away.
        (([0, 1, 2], [3], []), True, "15.0 % with 1, 20.0 % with 2, 20.0 % with 3"),
    ],
)
def test_restarts(make, found, passed, rates):
    made = make(lambda at, attack: found[attack.seed - 3])
    check = made.restarts()
    assert check.passed is passed and not check.masking and check.measured == f"{rates} at ε = 0.1"
    assert made._success(0.1).sum() == len(found[0])


def test_restarts_of_a_deterministic_attack_are_skipped(make):
    check = make(4).restarts()
    assert check.passed is None and check.measured == "nothing in the attack is random"
    assert check.name == "restarts converge" and check.needed == "at most 5 points more from the third"


def test_huge_radius(make):
    tried = []

    def only_beyond(radius, attack):
        tried.append((radius, attack.threat_model.kernel_size))
        return 20 if radius >= 2 else 3

    check = make(only_beyond, radii=(0.3, 0.5)).huge_radius()
    # 4×4 images have few enough plans to let mass go anywhere: √18 at most.
    assert tried == [(0.3, 3), (0.5, 3), (1.0, None), (2.0, None)]
    assert check.passed is True and check.masking and check.name == "a huge ε fools every image"
    assert check.measured == "100.0 % of 20 images up to ε = 2, mass may move anywhere"
    tried.clear()
    check = make(lambda at, attack: tried.append((at, None)) or 19, radii=(0.5,)).huge_radius()
    assert [at for at, _ in tried] == [0.5, 1, 2, 4, np.sqrt(18)] and check.passed is False
    assert check.measured == "95.0 % of 20 images up to ε = 4.24, mass may move anywhere"
    # Those that a smaller ball fools count.
    assert make(lambda at, attack: range(10) if at < 1 else range(10, 20)).huge_radius().passed is True
    assert make(20).huge_radius().measured == "100.0 % of 20 images up to ε = 0.1"


def test_huge_radius_starts_anywhere_and_follows_the_threat_model(make):
    tried = []

    def none(radius, attack):
        tried.append(radius)
        return 0

    assert make(none, radii=(0.0,)).huge_radius().passed is False
    assert tried == [0.0, np.sqrt(18)]
    tried.clear()
    make(none, radii=(10.0,), threat_model=ThreatModel(p=2.0, kernel_size=3)).huge_radius()
    assert tried == pytest.approx([10.0, 18.0])
    tried.clear()
    # Without normalisation the mass counts: 16 pixels of a quarter, but for one image of twice that.
    images = np.full([4, 4, 4, 1], 0.25, np.float32)
    images[1] *= 2
    ball = ThreatModel(normalize_mass=False, kernel_size=3)
    make(none, radii=(20.0,), threat_model=ball, images=images).huge_radius()
    assert tried == pytest.approx([20.0, 8 * np.sqrt(18)])


@pytest.mark.parametrize(
    "most, size, used, reach, few",
    [
        (256, 3, None, "anywhere", 1),
        (2560, 3, None, "anywhere", 10),
        (255, 3, 9, "within 9×9 pixels", 1),
        (255, 11, 11, "within 11×11 pixels", 1),
        (255, None, None, "anywhere", 1),
        (10**9, 3, None, "anywhere", 20),
    ],
)
def test_huge_radius_fits_into_memory(make, monkeypatch, most, size, used, reach, few):
    monkeypatch.setattr(sanity, "_LARGEST_PLANS", most)
    sizes = set()
    made = make(
        lambda at, attack: sizes.add(attack.threat_model.kernel_size) or 0, threat_model=ThreatModel(kernel_size=size)
    )
    made._fooled[0.1] = np.zeros(_COUNT, bool)
    check = made.huge_radius()
    assert sizes == {used} and check.measured.endswith(f"mass may move {reach}")
    assert f" of {few} images" in check.measured and {call[1] for call in made.attack.calls} == {few}
    largest = {None: np.sqrt(18), 9: np.sqrt(32), 11: np.sqrt(50)}[used]
    assert made.attack.calls[-1][2] == pytest.approx(largest)


@pytest.mark.parametrize("direct, by_transfer, passed", [(5, 5, True), (5, 6, True), (5, 7, False), (9, 2, True)])
def test_transfer(make, direct, by_transfer, passed):
    def surrogate(images, training=False):
        raise AssertionError("Only the attack asks it.")

    made = make(by_transfer, surrogate=surrogate, wrong=1)
    made._fooled[0.1] = np.arange(_COUNT) < direct
    check = made.transfer()
    # The image that is wrong clean is turned over by the transfer, and still counts.
    assert check.passed is passed and check.masking and check.name == "white-box beats transfer"
    assert check.measured == f"{5 * direct:.1f} % white-box, {5 * by_transfer:.1f} % by transfer at ε = 0.1"
    (call,) = made.attack.calls
    assert call[0] is surrogate and call[2] == 0.1 and call[3] == made.batch_size


def test_transfer_needs_another_classifier(make):
    check = make(5).transfer()
    assert check.passed is None and check.measured == "no other classifier was given"


def test_all_checks_are_run_in_turn_and_reported(make, monkeypatch):
    names = [
        "deterministic", "independent_of_batch", "gradients", "grows_with_radius", "stronger_than_random",
        "more_iterations", "restarts", "huge_radius", "transfer",
    ]  # fmt: skip
    made, states = make(5), (True, False, None)
    for place, name in enumerate(names):
        check = Check(name=name, passed=states[place % 3], measured="1", needed="2", masking=place < 5)
        monkeypatch.setattr(made, name, lambda check=check: check)
    told = []
    checks = made.run(told.append)
    assert [check.name for check in checks] == names
    assert [line.partition(";")[0] for line in told[:3]] == [
        "[1/9] deterministic: passed, 1", "[2/9] independent_of_batch: FAILED, 1", "[3/9] gradients: skipped, 1",
    ]  # fmt: skip
    assert gradient_masking(checks) == ["independent_of_batch", "stronger_than_random"]
    assert made.run() == checks


def test_the_surrogate_learns_from_answers_in_parts(monkeypatch):
    asked, fitted = [], {}

    def classifier(images, training=False):
        asked.append((len(images), training))
        return _linear(images)

    def fit(model, images, classes, **options):
        fitted.update(options, shape=images.shape, classes=classes, outputs=model.output_shape)

    monkeypatch.setattr(keras.Model, "fit", fit)
    images = np.repeat(np.float32([0.1, 0.9]), 400)[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32)
    train_surrogate(classifier, images, epochs=3)
    assert asked == [(500, False), (300, False)]
    np.testing.assert_array_equal(fitted["classes"], np.repeat([1, 0], 400))
    assert (fitted["epochs"], fitted["outputs"], fitted["shape"]) == (3, (None, 2), (800, 2, 2, 1))
