"""Leaderboard: the settings passed to the evaluation, stored entries and the rendered table. Nothing is attacked."""

import json
import pathlib

import pytest

from tests.fixtures.publishing import leaderboard_entry
from wasser_tf import ThreatModel, attacks, models
from wasser_tf.data.selection import ImageSource
from wasser_tf.publishing import leaderboard
from wasser_tf.runs import leaderboard as leaderboard_run
from wasser_tf.runs.leaderboard import Board
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percent


def test_each_dataset_has_its_own_radii():
    plan = {"a": attacks.make("random_plan", ThreatModel())}

    def radii(dataset, **options):
        source = ImageSource(dataset=dataset)
        return Board(source=source, attacks=plan, output_dir="o", results_dir="p", **options).radii

    assert radii("digits") == (0.02, 0.05, 0.1, 0.2, 0.3) and radii("mnist") == (0.1, 0.3, 0.5, 1.0)
    assert radii("cifar10") == (0.01, 0.02, 0.05, 0.1, 0.2) and radii("other") == (0.05, 0.1, 0.2)
    assert radii("mnist", radii=(0.7,)) == (0.7,)


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    """Replaces evaluations by a stub that writes a report; returns the record of their settings."""
    runs = []

    def run_evaluation(run, **options):
        runs.append((run, options))
        name = next(iter(run.models))
        record = {
            "model": name, "epsilon": 0.1, "threat_model": {"epsilon": 0.1, "p": 2.0, "kernel_size": 5}, "seed": 6,
            "natural_accuracy": 0.75, "feasible": {"feasible_share": 1.0}, "seconds": 2.6,
        }  # fmt: skip
        other = {**record, "model": "other", "feasible": {"feasible_share": 0.0}, "seconds": 99}
        report = {
            "schema": "wasser_tf.evaluation_report/1",
            "images": "digits test", "images_digest": "d", "num_images": 4, "commit": "c", "command": "python x",
            "models": {name: {"minimal_radius": [0.0, 0.1, 0.4, "inf"], "fingerprint": "f"}, "other": {}},
            "records": [record, {**record, "epsilon": 1.0, "seconds": 7.4}, other],
            "config": {"attacks": {"x": {"name": "x", "config": {"iterations": 1, "threat_model": {}}}}},
        }  # fmt: skip
        storage.write_json(pathlib.Path(run.output_dir) / "report.json", report)

    monkeypatch.setattr(leaderboard_run, "run_evaluation", run_evaluation)
    loaded = models.build("linear", (8, 8, 1), 10, seed=0)
    monkeypatch.setattr(models, "load_classifier", lambda path: loaded if path == "a.keras" else len)
    return runs


def _board(tmp_path, **changes):
    fields = {
        "source": ImageSource(dataset="digits", num_examples=4),
        "attacks": {"x": attacks.make("random_plan", ThreatModel(p=2.0), seed=6)},
        "output_dir": str(tmp_path / "out"),
        "results_dir": str(tmp_path / "page"),
        "radii": (0.1, 1.0),
        "batch_size": 3,
    }
    return Board(**{**fields, **changes})


def test_adding_to_the_leaderboard(evaluated, tmp_path):
    logged, board = [], _board(tmp_path)
    found = leaderboard_run.add_to_leaderboard(board, "my one", "a.keras", "Mine.", logged.append)
    ((run, options),) = evaluated
    assert options == {"resume": True, "allow_chance_accuracy": False, "certification": "", "log": logged.append}
    assert run.models == {"my one": "a.keras"} and run.source == board.source and run.attacks is board.attacks
    assert (run.radii, run.batch_size, run.sanity, run.skip_fooled) == ((0.1, 1.0), 3, False, True)
    assert run.output_dir == str(tmp_path / "out" / "my_one") and not run.minimal_radius
    assert found == {
        "name": "my one",
        "description": "Mine.",
        "dataset": "digits test",
        "images_digest": "d",
        "num_images": 4,
        "threat_model": {"p": 2.0, "kernel_size": 5},
        "attacks": {"x": {"iterations": 1}},
        "seed": 6,
        "natural_accuracy": 0.75,
        "robust_accuracy": {"0.1": 0.5, "1": 0.25},
        "least_feasible_share": 1.0,
        "seconds": 7,
        "num_weights": 650,
        "fingerprint": "f",
        "commit": "c",
        "command": "python x",
    }
    stored = tmp_path / "page" / "leaderboard" / "digits" / "p2-k5-normalized-capacity1" / "my_one.json"
    assert json.loads(stored.read_text()) == found and "| my one" in (tmp_path / "page" / "leaderboard.md").read_text()
    # Only Keras models have a known number of weights; an entry of the same name is replaced.
    assert leaderboard_run.add_to_leaderboard(board, "my one", "b.npz")["num_weights"] is None
    assert [one["description"] for one in leaderboard.entries(tmp_path / "page")] == [""]
    leaderboard_run.add_to_leaderboard(_board(tmp_path, source=ImageSource(dataset="mnist")), "other one", "a.keras")
    assert [one["name"] for one in leaderboard.entries(tmp_path / "page", "mnist")] == ["other one"]
    assert [one["name"] for one in leaderboard.entries(tmp_path / "page")] == ["my one", "other one"]


def _names(text):
    return [line.split("|")[1].strip() for line in text.splitlines()[2:]]


def test_the_table_is_sorted_by_the_middle_of_the_shared_radii():
    a = leaderboard_entry("a", {"0.1": 0.9, "0.2": 0.2, "0.3": 0.9})
    b = leaderboard_entry("b", {"0.1": 0.1, "0.2": 0.4, "0.3": 0.1})
    assert _names(leaderboard.leaderboard_table([a, b])) == ["b", "a"]
    # With two shared radii, the larger one; radii that are not shared are ignored.
    c = leaderboard_entry("c", {"0.1": 0.5, "0.3": 0.5, "0.05": 1.0})
    assert _names(leaderboard.leaderboard_table([a, b, c])) == ["a", "c", "b"]
    # Ties, and entries without a shared radius, are sorted by natural accuracy.
    assert _names(leaderboard.leaderboard_table([b, {**b, "name": "d", "natural_accuracy": 0.95}])) == ["d", "b"]
    e = leaderboard_entry("e", {"0.7": 0.0}, natural=0.99)
    assert _names(leaderboard.leaderboard_table([a, b, e])) == ["e", "a", "b"]
    header, _, row, *_ = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in leaderboard.leaderboard_table([c, a]).splitlines()
    ]
    assert header == [
        "classifier", "weights", "natural", "ε = 0.05", "ε = 0.1", "ε = 0.2", "ε = 0.3", "images", "attack", "commit",
    ]  # fmt: skip
    assert row == [
        "a",
        "1,234",
        "90.00 %",
        "–",
        "90.00 %",
        "20.00 %",
        "90.00 %",
        "12,000",
        "x, 3 iterations",
        "unknown",
    ]


def test_entries_in_words():
    assert percent(None) == "–" and percent(0.12345) == "12.35 %" and percent(0.12345, 1) == "12.3 %"
    commits = (None, "0123456789", "0123456789-dirty", "0123456789-dirty, 9876543210")
    assert [leaderboard.short_commit(commit) for commit in commits] == [
        "unknown", "01234567", "01234567-dirty", "01234567-dirty, 98765432",
    ]  # fmt: skip
    words = leaderboard.ball_in_words(leaderboard_entry("a", {}))
    assert words.startswith("Wasserstein ball: ε normalised") and words.endswith("none crossed")
    assert leaderboard.attacks_in_words({"a": {"iterations": 3, "restarts": 1}}) == "a, 3 iterations"
    both = {"a:1": {"iterations": 3, "restarts": 2}, "b": {"iterations": 3, "restarts": 5}}
    assert leaderboard.attacks_in_words(both) == "a, 3 iterations, 2 restarts; b, 3 iterations, 5 restarts"
