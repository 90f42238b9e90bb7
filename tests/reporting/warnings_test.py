"""Flagged images and failed checks are shown wherever the robust accuracy is."""

import dataclasses
import json
import types

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.attacks.scoring import flagged_in_words, warn_of_flagged
from wasser_tf.data.dataset import Split
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.comparison import Comparison
from wasser_tf.evaluation.record import make_record
from wasser_tf.evaluation.sanity import Check
from wasser_tf.publishing import card, leaderboard
from wasser_tf.reporting import bracket, comparison, drawing, figures, report, tables
from wasser_tf.reporting.report import ModelReport, overview
from wasser_tf.serving import model_card

WORDS = "1 of 2 images are flagged"


@pytest.fixture
def record(make_examples):
    examples = make_examples([True, False], [1, 0])
    attack = attacks.make("random_plan", ThreatModel())
    made = make_record(
        attack, examples.result, examples.clean, radius=0.2, model_name="m", dataset_name="digits", seconds=1
    )
    return dataclasses.replace(made, num_flagged=1)


@pytest.fixture
def clean(record):
    return dataclasses.replace(record, num_flagged=0)


def test_a_warning_is_given_where_images_are_flagged(recwarn):
    warn_of_flagged(np.array([False, False]))
    assert not recwarn
    with pytest.warns(UserWarning, match=WORDS):
        warn_of_flagged(np.array([True, False]))


def test_tables_show_the_number_of_flagged_images(record, clean):
    assert WORDS in tables.summary(record) and "flagged:" not in tables.summary(clean)
    assert WORDS in tables.to_markdown([record]) and WORDS not in tables.to_markdown([clean])


def test_the_overview_shows_flagged_images_and_failed_checks(record, clean):
    failed = Check(name="gradients are there", passed=False, measured="none", needed="some", masking=True)
    report = ModelReport(name="m", path="m.keras", records=[record], checks=[failed])
    assert WORDS in overview(report)
    assert "Gradient masking is likely (gradients are there)" in overview(report)
    assert "**" not in overview(ModelReport(name="m", path="m.keras", records=[clean]))


def _entry(**more):
    return {
        "name": "m",
        "num_weights": 3,
        "natural_accuracy": 0.9,
        "robust_accuracy": {"0.1": 0.5},
        "images_digest": "d",
        "num_images": 2,
        "attacks": {"x": {"iterations": 1}},
        "commit": None,
        **more,
    }


@pytest.fixture
def captions(monkeypatch):
    """The captions of the figures that are drawn; no file is written."""
    written = []
    monkeypatch.setattr(drawing, "save_figure", lambda figure, path, title, words: written.append(words))
    return written


def test_captions_of_figures_show_warnings(record, clean, captions):
    lines = tables.flagged_lines([record])
    radii, curves = {"m": np.array([0.1, np.inf])}, {"m": ([0, 0.1], [0, 1])}
    figures.save_panels("x.png", [record])
    figures.save_success_curves("x.png", curves, warnings=lines)
    figures.save_radius_histogram("x.png", radii, warnings=lines)
    figures.save_accuracy_curves("x.png", radii, warnings=lines)
    bracket.save_bracket("x.png", {"m": bracket.Bracket(np.zeros(2), radii["m"])}, warnings=lines)
    assert [WORDS in words and "*" not in words for words in captions] == [True] * 5
    figures.save_panels("x.png", [clean])
    figures.save_success_curves("x.png", curves)
    assert not any(WORDS in words for words in captions[5:])


def test_an_evaluation_passes_its_warnings_to_its_figures(record, captions, tmp_path):
    failed = Check(name="gradients are there", passed=False, measured="none", needed="some", masking=True)
    model = ModelReport(name="m", path="m.keras", records=[record], checks=[failed])
    model = dataclasses.replace(model, minimal_radii=np.array([0.1, np.inf]), bisected=True)
    images = Selection("digits test", np.arange(2), np.zeros((2, 8, 8, 2)), np.zeros(2, int), None)
    report._draw(tmp_path, ThreatModel(), images, [model])
    # The panels of a model, success, minimal radii and robust accuracy.
    assert [WORDS in words for words in captions] == [True] * 4
    assert ["m: Gradient masking is likely" in words for words in captions] == [False, True, True, True]


def test_the_table_of_a_training_shows_warnings_on_the_terminal_and_in_its_report(record, clean, captions, tmp_path):
    def compared(one):
        evaluation = types.SimpleNamespace(record=one)
        return Comparison(
            {"m": None}, Split(np.zeros((2, 8, 8, 1)), np.zeros(2, int), np.arange(2)), (0.2,), {"m": [evaluation]}
        )

    assert WORDS in comparison.comparison_table(compared(record))
    assert WORDS not in comparison.comparison_table(compared(clean))
    comparison.save_report(tmp_path, compared(record), {}, "text")
    above, scores = (tmp_path / "report.md").read_text().split("## All scores")
    assert above.count(WORDS) == 1 and scores.count(WORDS) == 1
    assert json.loads((tmp_path / "report.json").read_text())["records"][0]["num_flagged"] == 1


def test_the_leaderboard_shows_warnings(record):
    values = record.to_json()
    report = {
        "models": {"m": {"minimal_radius": [0.1, "inf"], "fingerprint": "f", "gradient_masking": ["a check"]}},
        "records": [values],
        "config": {"attacks": {}},
        "images": "digits",
        "images_digest": "d",
        "num_images": 2,
        "commit": None,
        "command": "c",
    }
    entry = leaderboard.make_entry(report, "m")
    assert [WORDS in line for line in entry["warnings"]] == [True, False]
    weak = {"name": "a weak attack", "passed": False, "masking": False}
    report["models"]["m"]["sanity"] = [weak, {**weak, "passed": None}]
    assert leaderboard.make_entry(report, "m")["warnings"][2].startswith("The attack is not at its strongest (a weak a")
    table = leaderboard.leaderboard_table([_entry(warnings=entry["warnings"])])
    assert "50.00 % (!)" in table and WORDS in table and "Gradient masking is likely (a check)" in table
    assert "(!)" not in leaderboard.leaderboard_table([_entry()])


def test_the_model_card_shows_warnings():
    measured = {
        "dataset": "digits",
        "num_images": 2,
        "attack": "x",
        "iterations": 1,
        "threat_model": {"epsilon": 0.1},
        "natural_accuracy": 0.9,
        "robust_accuracy": 0.5,
        "num_flagged": 1,
    }
    served = {
        "name": "m",
        "version": 1,
        "image_shape": [8, 8, 1],
        "num_weights": 3,
        "created": "now",
        "commit": None,
        "class_names": None,
        "signatures": {},
        "threat_model": None,
        "robustness_measured": [measured],
        "robustness_signature": None,
    }
    assert f"At ε = 0.1, {flagged_in_words(1, 2)}" in model_card._markdown(served)


def test_the_card_of_a_published_classifier_shows_it():
    training = {"config": {"model": "mlp", "seed": 0}, "versions": {}, "commit": None, "command": "c"}
    entry = _entry(
        warnings=[flagged_in_words(1, 2)],
        dataset="digits",
        seed=0,
        least_feasible_share=1.0,
        fingerprint="f" * 16,
        command="c",
        threat_model=ThreatModel().get_config(),
    )
    classifier = {"image_shape": [8, 8, 1], "num_weights": 3, "num_classes": 2, "bytes": 10, "file": "best.keras"}
    made = {"name": "m", "classifier": classifier, "evaluation": entry}
    text = card.card_markdown({**made, "training": {**training, "threat_model_in_words": "A ball"}})
    assert f"**{flagged_in_words(1, 2)}**" in text.split("## Training")[0]
