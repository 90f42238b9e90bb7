import json

import numpy as np
import pytest

from wasser_tf import models
from wasser_tf.publishing import leaderboard
from wasser_tf.runs.leaderboard import add_to_leaderboard


def _entry(name="a", **changes):
    return {
        "name": name,
        "description": "",
        "dataset": "mnist test",
        "num_images": 10_000,
        "threat_model": {"p": 1.0, "kernel_size": 5, "normalize_mass": True, "capacity": 1.0},
        "attacks": {"ensemble": {"iterations": 100}},
        "natural_accuracy": 0.98,
        "robust_accuracy": {"0.1": 0.9, "0.5": 0.5, "1": 0.1},
        "num_weights": 166_406,
        "commit": "0123456789" * 4 + "-dirty",
        **changes,
    }


def test_robust_images_survive_every_attack_in_every_smaller_ball():
    def record(attack, epsilon, seconds):
        return {
            "model": "m",
            "attack": attack,
            "epsilon": epsilon,
            "threat_model": {"epsilon": epsilon, "p": 1.0},
            "seed": 0,
            "natural_accuracy": 0.75,
            "feasible": {"feasible_share": 1.0 - epsilon / 10},
            "seconds": seconds,
        }

    report = {
        "images": "digits test",
        "images_digest": "d",
        "num_images": 4,
        "commit": "c",
        "command": "python bin/leaderboard.py",
        # Fooled clean, at 0.1 exactly, above it, and never.
        "models": {"m": {"minimal_radius": [0.0, 0.1, 0.4, "inf"], "fingerprint": "f"}},
        "records": [record("worst case", 0.1, 2.0), record("worst case", 1.0, 4.0)],
        "config": {"attacks": {"x": {"name": "x", "config": {"iterations": 1, "threat_model": {"p": 1.0}}}}},
    }
    found = leaderboard.make_entry(report, "m")
    assert found["robust_accuracy"] == {"0.1": 0.5, "1": 0.25}
    assert found["attacks"] == {"x": {"iterations": 1}} and found["seconds"] == 4
    assert found["least_feasible_share"] == 0.9
    assert found["threat_model"] == {"p": 1.0} and found["natural_accuracy"] == 0.75
    assert found["commit"] == "c"
    report["models"]["m"]["attacked_at"] = ["a", "b"]
    assert leaderboard.make_entry(report, "m")["commit"] == "a, b"
    with pytest.raises(ValueError, match="contains m, not 'other'"):
        leaderboard.make_entry(report, "other")


def test_the_leaderboard_sorts_by_the_middle_radius_and_separates_threat_models():
    other_ball = {"p": 2.0, "kernel_size": 5, "normalize_mass": True, "capacity": 1.0}
    text = leaderboard.render_leaderboard(
        [
            _entry("weak"),
            _entry("strong", robust_accuracy={"0.1": 0.8, "0.5": 0.6, "1": 0.0}, description="Its origin."),
            _entry("other", threat_model=other_ball, robust_accuracy={"0.3": 0.7}, num_images=100, num_weights=None),
        ]
    )
    first, second = text.split("## mnist test")[1:]
    assert first.index("strong") < first.index("weak") and "other" not in first
    assert "p = 1 " in first and "p = 2 " in second
    row = "strong | 166,406 | 98.00 % | 80.00 % | 60.00 % | 0.00 % | 10,000 | ensemble, 100 iterations | 01234567-dirty"
    assert row in " ".join(first.split())
    assert "- **strong**: Its origin." in first
    assert "70.00 %" in second and "–" in second


def test_an_attack_is_left_out_if_it_also_runs_with_more_restarts():
    one, other = {"iterations": 30, "loss": "margin"}, {"iterations": 30, "loss": "dlr"}
    attacks = {
        "mirror_ascent:a": {**one, "restarts": 1},
        "mirror_ascent:b": {**one, "restarts": 6},
        "wasser_attack": one,
    }
    words = "mirror_ascent, 30 iterations, 6 restarts; wasser_attack, 30 iterations"
    assert leaderboard.attacks_in_words(attacks) == words
    attacks["mirror_ascent:c"] = {**other, "restarts": 1}
    assert leaderboard.attacks_in_words(attacks) == f"{words}; mirror_ascent, 30 iterations"


def test_adding_a_classifier_is_one_call(board, tmp_path):
    path = tmp_path / "linear.keras"
    models.build("linear", (8, 8, 1), 10, seed=0).save(path)
    found = add_to_leaderboard(board, "mine", str(path), "Mine.")
    stored = tmp_path / "page" / "leaderboard" / "digits" / "p1-k5-normalized-capacity1" / "mine.json"
    assert json.loads(stored.read_text()) == found
    assert found["num_images"] == 16 and found["num_weights"] == 650 and len(found["fingerprint"]) == 64
    assert found["robust_accuracy"]["1"] <= found["robust_accuracy"]["0.1"] <= found["natural_accuracy"]
    wrong = models.load_classifier(path)
    images = board.source.load()
    natural = np.mean(np.argmax(wrong(images.images), axis=1) == images.labels)
    assert found["natural_accuracy"] == pytest.approx(natural)
    assert "| mine " in (tmp_path / "page" / "leaderboard.md").read_text()
    cells = {file: file.stat().st_mtime_ns for file in (tmp_path / "evaluations").rglob("*.npz")}
    add_to_leaderboard(board, "mine", str(path))
    assert cells == {file: file.stat().st_mtime_ns for file in (tmp_path / "evaluations").rglob("*.npz")}


def test_a_leaderboard_without_entries_is_refused(tmp_path):
    with pytest.raises(ValueError, match="contains no entries: add a classifier first"):
        leaderboard.write_leaderboard(tmp_path)


def test_attacks_in_words_contain_restarts():
    given = {"mirror_ascent:restarts=6": {"iterations": 30, "restarts": 6}, "wasser_attack": {"iterations": 100}}
    words = leaderboard.attacks_in_words(given)
    assert words == "mirror_ascent, 30 iterations, 6 restarts; wasser_attack, 100 iterations"


def test_entries_of_different_threat_models_have_different_paths(tmp_path):
    balls = ({"p": 1.0}, {"p": 2.0}, {"kernel_size": None}, {"normalize_mass": False}, {"capacity": None})
    paths = [leaderboard.entry_path(tmp_path, "mnist", {"name": "mine", "threat_model": ball}) for ball in balls]
    assert len(set(paths)) == len(balls)
    assert paths[0] == tmp_path / "leaderboard" / "mnist" / "p1-k5-normalized-capacity1" / "mine.json"
    assert (
        paths[2].parent.name == "p1-dense-normalized-capacity1" and paths[4].parent.name == "p1-k5-normalized-uncapped"
    )
