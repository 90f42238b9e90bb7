import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import ThreatModel
from wasser_tf.certification import smoothing
from wasser_tf.certification.smoothing import certify_smoothed
from wasser_tf.runtime import interruption

THRESHOLD = 0.5


def _linear(weights, bias, shape):
    """Logits (w·x + b, 0)."""
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)])
    kernel = np.zeros((len(weights), 2), np.float32)
    kernel[:, 0] = weights
    model.set_weights([kernel, np.array([bias, 0], np.float32)])
    return model


@pytest.fixture(scope="module")
def threshold():
    """Class 0 where the first of two pixels holds more than half of a mass of 1: one flow, known probabilities."""
    return _linear([1, 0], -THRESHOLD, (1, 2, 1))


def _pairs(*first):
    return np.array([[[[value], [1 - value]]] for value in first], np.float32)


@pytest.fixture(scope="module")
def grid_classifier():
    """A linear classifier of 4×4 images with smooth weights."""
    rows, columns = np.mgrid[:4, :4]
    return _linear((rows + 0.5 * columns - 2.25).ravel(), 0.0, (4, 4, 1))


@pytest.fixture(scope="module")
def grid_images():
    return np.random.default_rng(0).uniform(size=(6, 4, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def grid_labels(grid_classifier, grid_images):
    return grid_classifier.predict(grid_images, verbose=0).argmax(axis=1)


def _equal(one, two):
    for name, value in one._asdict().items():
        np.testing.assert_array_equal(value, getattr(two, name), err_msg=name)


@pytest.mark.parametrize("noise, scale", [("laplace", 0.2), ("uniform", 0.3)])
def test_radii_lie_below_the_known_distance_and_near_it(threshold, noise, scale):
    # The smoothed classifier changes its answer exactly where the first pixel crosses the threshold.
    first = np.array([0.55, 0.65, 0.7, 0.4, 0.3])
    labels = (first <= THRESHOLD).astype(int)
    result = certify_smoothed(
        threshold,
        _pairs(*first),
        labels,
        ThreatModel(epsilon=0.1),
        noise=noise,
        scale=scale,
        num_samples=20_000,
        alpha=1e-4,
    )
    distance = np.abs(first - THRESHOLD)
    np.testing.assert_array_equal(result.predicted, labels)
    assert (result.radius < distance).all()
    assert (result.radius > 0.9 * distance - 0.01).all()
    np.testing.assert_array_equal(result.certified, [False, True, True, False, True])
    assert result.confidence == 1 - 1e-4
    assert "N = 20000" in result.method and noise in result.method
    assert np.isnan(result.margin).all()


def test_certificates_are_wrong_no_more_often_than_alpha(threshold):
    # 200 certificates of one image; each is wrong where its radius exceeds the known distance.
    images = np.repeat(_pairs(0.6), 200, axis=0)
    result = certify_smoothed(
        threshold, images, np.zeros(200, int), ThreatModel(), scale=0.2, num_samples=300, alpha=0.2
    )
    assert len(np.unique(result.radius)) > 10
    wrong = int(np.sum(result.radius > 0.1 + 1e-6))
    # Of 200 at α = 0.2: more than 58 have a probability below 0.2 %.
    assert 0 < wrong <= 58


@pytest.mark.parametrize("threat_model", [ThreatModel(), ThreatModel(p=2, kernel_size=None, normalize_mass=False)])
def test_the_smoothed_answer_is_kept_at_the_far_end_of_the_ball(
    grid_classifier, grid_images, grid_labels, threat_model
):
    result = certify_smoothed(grid_classifier, grid_images, grid_labels, threat_model, scale=0.05, num_samples=4000)
    assert (result.radius > 0).sum() >= 3
    slope = grid_classifier.get_weights()[0][:, 0] * np.where(grid_labels == 0, -1, 1)[:, None]
    moved = np.stack([_worst(x, w, r, threat_model) for x, w, r in zip(grid_images, slope, result.radius, strict=True)])
    found = certify_smoothed(
        grid_classifier, moved.clip(0, 1), grid_labels, threat_model, scale=0.05, num_samples=4000, seed=1
    )
    sure = (result.radius > 0) & (moved <= 1).all(axis=(1, 2, 3))
    assert sure.sum() >= 2
    np.testing.assert_array_equal(found.predicted[sure], grid_labels[sure])


def _worst(image, slope, radius, threat_model):
    """Moves mass greedily along the steepest ascent of a linear functional until the budget is spent."""
    places = np.array([(row, column) for row in range(4) for column in range(4)])
    cost = np.linalg.norm(places[:, None] - places[None], axis=2) ** threat_model.p
    reach = 99 if threat_model.kernel_size is None else threat_model.kernel_size // 2
    near = np.abs(places[:, None] - places[None]).max(axis=2) <= reach
    rate = np.where(near & (cost > 0), (slope[None] - slope[:, None]) / np.maximum(cost, 1e-9), -np.inf)
    left = image.ravel().astype(np.float64)
    target, budget = left.copy(), radius * (left.sum() if threat_model.normalize_mass else 1)
    for flat in np.argsort(-rate, axis=None):
        source, sink = np.unravel_index(flat, rate.shape)
        if rate[source, sink] <= 0 or budget <= 0:
            break
        amount = min(left[source], budget / cost[source, sink])
        left[source] -= amount
        target[source] -= amount
        target[sink] += amount
        budget -= amount * cost[source, sink]
    return target.reshape(image.shape).astype(np.float32)


def test_budgets_and_exponents_scale_the_radius(grid_classifier, grid_images, grid_labels):
    def radius(**options):
        return certify_smoothed(
            grid_classifier, grid_images, grid_labels, ThreatModel(**options), scale=0.05, num_samples=500
        ).radius

    plain = radius()
    masses = grid_images.sum(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(radius(normalize_mass=False), plain * masses)
    np.testing.assert_allclose(radius(p=2), plain * np.sqrt(2))
    np.testing.assert_allclose(radius(kernel_size=None, capacity=None), plain)
    assert (radius(kernel_size=1)[plain > 0] == np.inf).all()


def test_images_without_mass_have_an_infinite_radius(grid_classifier):
    result = certify_smoothed(grid_classifier, np.zeros((1, 4, 4, 1), np.float32), [0], ThreatModel(), num_samples=100)
    # Both logits are 0, and the first counts.
    assert result.correct[0] and result.radius[0] == np.inf


def test_it_abstains_where_no_class_has_the_majority(threshold):
    result = certify_smoothed(
        threshold, _pairs(THRESHOLD, 0.9), [0, 1], ThreatModel(epsilon=0), scale=0.1, num_samples=1000
    )
    np.testing.assert_array_equal(result.predicted, [-1, 0])
    # The second is wrong.
    assert not result.correct.any() and not result.certified.any() and (result.radius == 0).all()


def test_colour_images_share_one_budget():
    # Only the second channel counts, which has a quarter of the mass.
    classifier = _linear([0, 0, 1, 0, 0, 0], 0.0, (2, 1, 3))
    kernel, bias = classifier.get_weights()
    bias[0] = -0.5
    # The flatten order is pixel, channel: the first pixel of channel 1 is entry 1.
    kernel[:, 0] = [0, 1, 0, 0, 0, 0]
    classifier.set_weights([kernel, bias])
    image = np.array([[[[1.0, 0.6, 1.0]], [[1.0, 0.4, 0.0]]]], np.float32)
    result = certify_smoothed(classifier, image, [0], ThreatModel(), scale=0.02, num_samples=10_000)
    # 0.1 of mass must move by a pixel, of a mass of 4.
    assert 0.8 * 0.1 / 4 < result.radius[0] < 0.1 / 4


@pytest.fixture(scope="module")
def undisturbed(grid_classifier, grid_images, grid_labels):
    return certify_smoothed(grid_classifier, grid_images, grid_labels, ThreatModel(), scale=0.05, num_samples=700)


def test_neither_batches_nor_the_other_images_change_a_result(undisturbed, grid_classifier, grid_images, grid_labels):
    options = {"scale": 0.05, "num_samples": 700}
    again = certify_smoothed(grid_classifier, grid_images, grid_labels, ThreatModel(), batch_size=128, **options)
    _equal(again, undisturbed)
    part = certify_smoothed(
        grid_classifier, grid_images[2:4], grid_labels[2:4], ThreatModel(), index=np.array([2, 3]), **options
    )
    np.testing.assert_array_equal(part.radius, undisturbed.radius[2:4])
    other = certify_smoothed(grid_classifier, grid_images, grid_labels, ThreatModel(), seed=1, **options)
    assert (other.radius != undisturbed.radius).any()


def test_a_stopped_run_resumes(undisturbed, grid_classifier, grid_images, grid_labels, tmp_path, monkeypatch):
    def certify(**options):
        return certify_smoothed(
            grid_classifier, grid_images, grid_labels, ThreatModel(), scale=0.05, folder=tmp_path, num_samples=700,
            **options,
        )  # fmt: skip

    def stop():
        if len(list(tmp_path.glob("*.json"))) == 2:
            raise interruption.Interrupted(signal.SIGTERM)

    monkeypatch.setattr(interruption, "raise_if_requested", stop)
    with pytest.raises(interruption.Interrupted):
        certify()
    monkeypatch.undo()
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 2
    written = [path.stat().st_mtime_ns for path in files]
    _equal(certify(), undisturbed)
    assert [path.stat().st_mtime_ns for path in files] == written
    record = json.loads(files[0].read_text())
    assert record["samples"] == sum(record["estimation_counts"]) == 700 and record["seed"] == 0
    # Votes serve any α, and another number of votes is another file.
    assert (certify(alpha=0.5).radius >= undisturbed.radius).all()
    assert len(list(tmp_path.glob("*.json"))) == 6
    record["estimation_counts"][0] += 1
    files[0].write_text(json.dumps(record))
    with pytest.raises(ValueError, match="delete it"):
        certify()


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("estimation_counts"),
        lambda record: record.pop("selection_counts"),
        lambda record: record.update(selection_counts=None),
        lambda record: record.update(selection_counts="many"),
        lambda record: record.update(selection_counts=[[50, 50]]),
        lambda record: record.update(selection_counts=[101, -1]),
        lambda record: record.update(estimation_counts=[99, 2]),
    ],
    ids=["no estimation", "no selection", "null", "text", "a matrix", "negative", "too many"],
)
def test_votes_that_were_changed_by_hand_are_refused(grid_classifier, grid_images, grid_labels, tmp_path, change):
    options = {"scale": 0.05, "num_samples": 100, "folder": tmp_path}
    certify_smoothed(grid_classifier, grid_images[:1], grid_labels[:1], ThreatModel(), **options)
    (file,) = tmp_path.glob("*.json")
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="does not hold 100 and 100 votes: delete it"):
        certify_smoothed(grid_classifier, grid_images[:1], grid_labels[:1], ThreatModel(), **options)


def test_votes_of_another_classifier_are_not_reused(grid_classifier, grid_images, grid_labels, tmp_path):
    options = {"scale": 0.05, "num_samples": 100, "folder": tmp_path}
    certify_smoothed(grid_classifier, grid_images[:1], grid_labels[:1], ThreatModel(), **options)
    other = keras.models.clone_model(grid_classifier)
    certify_smoothed(other, grid_images[:1], grid_labels[:1], ThreatModel(), **options)
    assert len(list(tmp_path.glob("*.json"))) == 2
    with pytest.raises(ValueError, match="name"):
        certify_smoothed(
            lambda x, training: grid_classifier(x), grid_images[:1], grid_labels[:1], ThreatModel(), **options
        )


def test_any_callable_is_certified(undisturbed, grid_classifier, grid_images, grid_labels):
    def classifier(images, training):
        return np.asarray(grid_classifier(images))

    result = certify_smoothed(classifier, grid_images, grid_labels, ThreatModel(), scale=0.05, num_samples=700)
    _equal(result, undisturbed)


def _nan_if_negative(images, training):
    first = tf.reshape(images, [len(images), -1])[:, :2]
    # Above 1, so that they are logits and not doubtful probabilities.
    return tf.where(first < 0, np.nan, 10 * first)


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"noise": "gaussian"}, "noise must be one of"),
        ({"scale": -1}, "scale must be"),
        ({"alpha": 0}, "alpha must"),
        ({"alpha": 1.0}, "alpha must"),
        ({"num_samples": 0}, "num_samples must"),
        ({"num_votes": 1.5}, "num_votes must"),
        ({"seed": -1}, "seed must"),
        ({"batch_size": 0}, "batch_size must"),
        ({"batch_size": 10**15}, "smaller batch_size"),
        ({"index": [1, 2]}, "index must"),
        ({"index": np.array([-1])}, "index must"),
        ({"threat_model": 0.5}, "ThreatModel"),
        ({"labels": [2]}, "labels must be 0 to 1"),
        ({"images": _pairs(0.5) + 1}, r"lie in \[0, 1\]"),
        ({"images": _pairs(np.nan)}, "finite"),
        ({"images": np.zeros((1, 1, 2, 1), np.uint8)}, "floats"),
        ({"classifier": 3}, "callable"),
        ({"classifier": lambda x, training: x}, "classes"),
        ({"classifier": lambda x, training: tf.random.uniform([len(x), 2])}, "deterministic"),
        ({"classifier": lambda x, training: tf.fill([len(x), 2], np.nan)}, "NaN or Inf"),
        ({"classifier": _nan_if_negative, "scale": 1.0}, "for image 0"),
        ({"classifier": lambda x, training: tf.ones([len(x), 2]), "labels": [5]}, "labels must be 0 to 1"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(threshold, changed, told):
    options = {"classifier": threshold, "images": _pairs(0.6), "labels": [0], "threat_model": ThreatModel()}
    with pytest.raises(ValueError, match=told) as caught:
        certify_smoothed(**{**options, "num_samples": 100, **changed})
    assert len(str(caught.value).splitlines()) == 1


def test_a_classifier_is_known_by_its_settings_in_any_order(monkeypatch):
    classifier = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    found = []
    for config in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}):
        monkeypatch.setattr(keras.saving, "serialize_keras_object", lambda _, config=config: config)
        found.append(smoothing._digest_of(classifier, None))
    assert found[0] == found[1] != found[2]
