"""Which certifier a classifier gets, and that each of its settings reaches the certification."""

import keras
import numpy as np
import pytest

from wasser_tf import Classifier, Smoothed, ThreatModel
from wasser_tf.models import build, canonical_of
from wasser_tf.runs import certifiers
from wasser_tf.runs.certifiers import ByBounds, ByVotes, SmoothingSettings, make_certifier

BALL = ThreatModel(epsilon=0.2, kernel_size=3)
IMAGES, LABELS, INDEX = np.full((2, 4, 4, 1), 0.5, np.float32), np.int32([0, 1]), np.array([5, 9])
GIVEN = {"noise": "uniform", "scale": 0.03, "num_samples": 200, "num_votes": 30, "alpha": 0.01, "seed": 4}
DEFAULTS = {"noise": "laplace", "scale": 0.01, "num_samples": 10_000, "num_votes": 100, "alpha": 0.05, "seed": 0}


@pytest.fixture(scope="module")
def linear():
    return build("linear", (4, 4, 1), 3, seed=0)


@pytest.fixture(scope="module")
def smoothed(linear):
    return Smoothed(linear, "uniform", scale=0.07, num_samples=70, num_votes=17, alpha=0.02, seed=7)


def made(classifier, tmp_path, **changes):
    given = {
        "name": "mine",
        "mark": "f1",
        "method": "auto",
        "resolution": 0.25,
        "radii": (0.1, 0.2),
        "smoothing": SmoothingSettings(),
        "batch_size": 13,
        "folder": tmp_path,
    }
    return make_certifier(classifier, BALL, **{**given, **changes})


@pytest.mark.parametrize("name", GIVEN)
def test_each_setting_given_precedes_that_of_the_classifier_and_the_default(name, linear, smoothed):
    own = {"noise": "uniform", "scale": 0.07, "num_samples": 70, "num_votes": 17, "alpha": 0.02, "seed": 7}
    assert SmoothingSettings().complete(linear) == DEFAULTS and SmoothingSettings().complete(smoothed) == own
    only = SmoothingSettings(**{name: GIVEN[name]})
    assert only.complete(linear) == {**DEFAULTS, name: GIVEN[name]}
    assert only.complete(smoothed) == {**own, name: GIVEN[name]}


@pytest.mark.parametrize(
    "change",
    [{"noise": "normal"}, {"scale": 0.0}, {"num_samples": 0}, {"num_votes": 0}, {"alpha": 1.0}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must"):
        SmoothingSettings(**change)


def test_votes_get_every_setting(linear, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(certifiers, "certify_smoothed", lambda *given, **options: calls.append((given, options)))
    certifier = made(linear, tmp_path, method="smoothing", smoothing=SmoothingSettings(**GIVEN))
    assert isinstance(certifier, ByVotes) and certifier.settings == {"method": "smoothing", **GIVEN}
    assert certifier.choose(IMAGES, LABELS) == "smoothing"
    certifier.certify(IMAGES, LABELS, INDEX, "smoothing")
    ((given, options),) = calls
    assert all(one is other for one, other in zip(given, (linear, IMAGES, LABELS, BALL), strict=True))
    assert options == {**GIVEN, "index": INDEX, "name": "f1", "folder": tmp_path}


@pytest.mark.parametrize("method", ["auto", "smoothing"])
def test_of_a_smoothed_classifier_the_base_classifier_votes(smoothed, linear, tmp_path, monkeypatch, method):
    calls = []
    monkeypatch.setattr(certifiers, "certify_smoothed", lambda *given, **options: calls.append(given[0]))
    certifier = made(smoothed, tmp_path, method=method)
    certifier.certify(IMAGES, LABELS, INDEX, "smoothing")
    assert calls == [linear] and certifier.settings["scale"] == 0.07
    images, labels = certifier.check(IMAGES.astype(float), np.int64([0, 1]))
    assert images.dtype == np.float32 and labels.dtype == np.int32
    with pytest.raises(ValueError, match="labels must be 0 to 2"):
        certifier.check(IMAGES, np.int32([0, 3]))


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_a_smoothed_classifier_has_no_bounds(smoothed, tmp_path, method):
    with pytest.raises(ValueError, match=f"mine is a Smoothed classifier, which has no bounds by {method}"):
        made(smoothed, tmp_path, method=method)


def test_a_smoothed_classifier_takes_no_description(smoothed, tmp_path):
    described = canonical_of(Classifier(smoothed, input_range=(0, 255)), (4, 4, 1))
    with pytest.raises(ValueError, match="mine is a Smoothed classifier, which takes images in"):
        made(described, tmp_path)


class Prover:
    made = ()

    def __init__(self, *given, **options):
        Prover.made, self.calls = (given, options), []

    def check(self, *given):
        return ("checked", *given)

    def choose(self, *given):
        return ("chosen", *given)

    def certify(self, *given, **options):
        return ("certified", *given, options)


@pytest.mark.parametrize("method", ["auto", "ibp", "crown"])
def test_bounds_get_every_setting(linear, tmp_path, monkeypatch, method):
    monkeypatch.setattr(certifiers, "Prover", Prover)
    certifier = made(linear, tmp_path, method=method)
    assert isinstance(certifier, ByBounds)
    assert certifier.settings == {"method": method, "resolution": 0.25, "radii": [0.1, 0.2]}
    assert Prover.made == ((linear, BALL), {"batch_size": 13})
    assert certifier.check(IMAGES, LABELS) == ("checked", IMAGES, LABELS)
    assert certifier.choose(IMAGES, LABELS) == (("chosen", IMAGES, LABELS) if method == "auto" else method)
    assert certifier.certify(IMAGES, LABELS, INDEX, "crown") == (
        *("certified", IMAGES, LABELS, "crown", 0.25),
        {"radii": (0.1, 0.2)},
    )


def test_bounds_are_of_the_classifier_with_its_conversions(tmp_path, monkeypatch):
    monkeypatch.setattr(certifiers, "Prover", Prover)
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))))
    made(canonical_of(model, (4, 4, 1)), tmp_path, method="ibp")
    ((layers, _), _) = Prover.made
    assert isinstance(layers, keras.Model) and layers is not model
    np.testing.assert_allclose(layers(IMAGES), model(IMAGES * 255), atol=1e-6)
