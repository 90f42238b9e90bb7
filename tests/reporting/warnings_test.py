"""Flagged images and failed checks are shown wherever the robust accuracy is."""

import dataclasses

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.attacks.scoring import flagged_in_words, warn_of_flagged
from wasser_tf.evaluation.record import make_record
from wasser_tf.evaluation.sanity import Check
from wasser_tf.publishing import leaderboard
from wasser_tf.reporting import tables
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
    card = {
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
    assert f"At ε = 0.1, {flagged_in_words(1, 2)}" in model_card._markdown(card)
