"""Certified accuracies of leaderboard entries: columns, checks and certificates that do not match."""

import dataclasses
import json

import numpy as np
import pytest

from tests.fixtures.publishing import leaderboard_entry
from wasser_tf import ThreatModel, models, pretrained
from wasser_tf.publishing import card, certified, leaderboard
from wasser_tf.reporting.certification import Certification, Certified
from wasser_tf.runs.certify import CertificationRun, run_certification
from wasser_tf.runs.leaderboard import add_to_leaderboard, certify_entries

RADII = Certified(np.array([0.0, 0.05, 0.2, np.inf]), 0.75, "ibp", 1.0)


def entry(robust, **changes):
    fields = {"fingerprint": "f", "num_images": 4, "natural_accuracy": 0.75, "images_digest": "g", **changes}
    return leaderboard_entry("mine", robust, **fields)


def certification(**changes):
    fields = {
        "folder": "runs/certificates",
        "images": "d test",
        "images_digest": "g",
        "threat_model": ThreatModel(),
        "classifiers": {"f": RADII},
    }
    return Certification(**{**fields, **changes})


def test_certified_accuracies_have_columns_and_missing_ones_a_dash():
    found = certified.add_certified(entry({"0.1": 0.75, "0.3": 0.5}), certification())
    assert found["certified"] == {
        "accuracy": {"0.1": 0.5, "0.3": 0.25},
        "median_radius": 0.05,
        "method": "ibp",
        "confidence": 1.0,
    }
    other = {**entry({"0.1": 0.9, "0.3": 0.0}), "name": "other"}
    text = " ".join(leaderboard.render_leaderboard([found, other]).split())
    assert "| ε = 0.1 | ε = 0.3 | certified 0.1 | certified 0.3 |" in text
    assert "| mine | 1,234 | 75.00 % | 75.00 % | 50.00 % | 50.00 % | 25.00 % | 4 |" in text
    assert "| other | 1,234 | 75.00 % | 90.00 % | 0.00 % | – | – | 4 |" in text
    assert "**mine** is certified by ibp, median certified radius 0.05." in text
    assert "certified 0.1" not in leaderboard.render_leaderboard([other])
    votes = {"certified": {**found["certified"], "method": "smoothing", "confidence": 0.95}}
    assert certified.certified_by(votes).endswith("each certificate with a probability of 0.95")


def test_a_certified_accuracy_above_the_robust_accuracy_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="certified accuracy of mine at ε = 0.1 is 50 %, above its robust accuracy"):
        certified.add_certified(entry({"0.1": 0.25}), certification())
    wrong = entry({"0.1": 0.25}, certified={"accuracy": {"0.1": 0.5}, "method": "ibp", "confidence": 1.0})
    path = leaderboard.entry_path(tmp_path, "d", wrong)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="above its robust accuracy"):
        leaderboard.write_leaderboard(tmp_path)


@pytest.mark.parametrize(
    ("of_entry", "of_certification", "message"),
    [
        ({}, {"images": "mnist test"}, "mnist test, and the entry has d test"),
        ({"num_images": 5}, {}, "4, and the entry has 5"),
        ({}, {"images_digest": "other"}, "with another digest"),
        ({"natural_accuracy": 0.7}, {}, "natural accuracy 75 %, and the entry has 70 %"),
        ({}, {"threat_model": ThreatModel(p=2.0)}, "certifies another ball"),
        ({"fingerprint": "h"}, {}, "does not certify mine"),
    ],
)
def test_certificates_of_other_images_balls_or_classifiers_are_refused(of_entry, of_certification, message):
    with pytest.raises(ValueError, match=message):
        certified.add_certified(entry({"0.1": 0.75}, **of_entry), certification(**of_certification))


def test_an_attack_within_a_certified_radius_is_an_error():
    record = {
        "model": "m",
        "epsilon": 0.1,
        "threat_model": {"epsilon": 0.1, "p": 1.0},
        "seed": 0,
        "natural_accuracy": 1.0,
        "feasible": {"feasible_share": 1.0},
        "seconds": 1.0,
    }
    # The shares agree, 1/2 and 1/2; the images do not.
    model = {"minimal_radius": [0.05, 0.3], "fingerprint": "f"}
    model["certified"] = {"radius": [0.1, 0.0], "natural_accuracy": 1.0, "method": "ibp", "confidence": 1.0}
    attack = {"x": {"name": "x", "config": {"iterations": 1}}}
    report = {
        "images": "d",
        "images_digest": "",
        "num_images": 2,
        "commit": None,
        "command": "c",
        "models": {"m": model},
    }
    report |= {"records": [record], "config": {"attacks": attack}}
    with pytest.raises(ValueError, match="fooled 1 images of m within their certified radii"):
        leaderboard.make_entry(report, "m")


def test_certifying_before_and_after_adding_an_entry_gives_the_same(board, tmp_path, monkeypatch):
    path = tmp_path / "linear.keras"
    models.build("linear", (8, 8, 1), 10, seed=0).save(path)
    run_certification(
        CertificationRun(
            models={"any": str(path)},
            source=board.source,
            threat_model=ThreatModel(),
            radii=(0.1,),
            output_dir=str(tmp_path / "certificates"),
            method="ibp",
            # The weights are random.
            allow_chance_accuracy=True,
        )
    )
    before = add_to_leaderboard(board, "mine", str(path))
    assert "certified" not in before
    # A packaged classifier of the same file gets a new card.
    training = {"config": {"model": "linear", "seed": 0}, "versions": {}, "commit": None, "command": "c"}
    training["threat_model_in_words"] = "A ball"
    described = {"model": "linear", "image_shape": [8, 8, 1], "num_classes": 10, "num_weights": 650, "bytes": 1}
    described["file"] = "best.keras"
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    card.write_card(path, described, training, before)
    assert certify_entries(board.results_dir, str(tmp_path / "certificates")) == ["mine"]
    stored = json.loads(leaderboard.entry_path(tmp_path / "page", "digits", before).read_text())
    assert stored["certified"]["accuracy"]["0.1"] <= stored["robust_accuracy"]["0.1"]
    assert pretrained.card("linear")["evaluation"] == stored
    assert "| certified at ε = 0.1 |" in path.with_suffix(".md").read_text()
    assert "Certified by ibp" in path.with_suffix(".md").read_text()
    assert "certified by ibp" in (tmp_path / "page" / "leaderboard.md").read_text()
    given = add_to_leaderboard(
        dataclasses.replace(board, certification=str(tmp_path / "certificates")), "mine", str(path)
    )
    assert given["certified"] == stored["certified"]
    with pytest.raises(ValueError, match="No entry in"):
        certify_entries(str(tmp_path / "nothing"), str(tmp_path / "certificates"))
