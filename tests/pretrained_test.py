import numpy as np
import pytest

import wasser_tf
from wasser_tf import models, pretrained
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.models import model_name
from wasser_tf.runtime import storage


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """A folder of one classifier in place of the package's."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    models.build("linear", (8, 8, 1), 10, seed=3).save(tmp_path / "digits_linear.keras")
    storage.write_json(tmp_path / "digits_linear.json", {"name": "digits_linear"})
    return tmp_path


def test_loading_by_name_and_by_path_gives_the_same_classifier(shelf):
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    wanted = models.build("linear", (8, 8, 1), 10, seed=3)(images)
    np.testing.assert_array_equal(wasser_tf.load_pretrained("digits_linear")(images), wanted)
    np.testing.assert_array_equal(models.load_classifier("pretrained:digits_linear")(images), wanted)
    assert fingerprint("pretrained:digits_linear") == fingerprint(shelf / "digits_linear.keras")
    assert model_name("pretrained:digits_linear") == "digits_linear"
    assert pretrained.card("digits_linear") == {"name": "digits_linear"}


def test_an_unknown_name_is_refused_with_a_list_of_the_known_ones(shelf):
    message = "No pretrained classifier is called 'nobody'; there are digits_linear"
    for load in (wasser_tf.load_pretrained, pretrained.card):
        with pytest.raises(ValueError, match=message):
            load("nobody")
    with pytest.raises(ValueError, match=message):
        models.load_classifier("pretrained:nobody")


def test_packaged_classifiers_match_their_cards():
    for name in pretrained.names():
        card, file = pretrained.card(name), pretrained.path_of(name)
        classifier = wasser_tf.load_pretrained(name)
        assert card["evaluation"]["fingerprint"] == fingerprint(file)
        assert list(classifier.input_shape[1:]) == card["classifier"]["image_shape"]
        assert file.with_suffix(".md").is_file() and file.stat().st_size < 15e6
