"""The section of a results page on natural against robust accuracy."""

import pytest

from wasser_tf.paper import experiment_output, frontier, results_page
from wasser_tf.reporting.frontier import FrontierPoint
from wasser_tf.runtime import storage


def _entry(name, robust, attack="mirror_ascent:restarts=6", images=1000):
    return {
        "name": name,
        "description": "",
        "dataset": "cifar10 test",
        "num_images": images,
        "threat_model": {"p": 1.0, "kernel_size": 5, "normalize_mass": True, "capacity": 1.0},
        "attacks": {attack: {"iterations": 20}},
        "natural_accuracy": 0.8,
        "robust_accuracy": robust,
        "num_weights": 650,
        "commit": None,
    }


def test_entries_of_a_classifier_are_merged_and_the_one_with_more_images_counts():
    entries = [
        _entry("one", {"0.01": 0.5, "0.001": 0.75}, images=128),
        _entry("one", {"0.01": 0.4}),
        _entry("other", {"0.01": 0.2}, attack="frank_wolfe"),
    ]
    assert frontier.frontier_points(entries) == [FrontierPoint("one", 0.8, {0.001: 0.75, 0.01: 0.4})]


def test_the_page_begins_with_the_frontier_if_there_are_published_results(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(frontier, "save_frontier", lambda *given, **options: drawn.append((given, options)))
    folder = tmp_path / "cifar10"
    made = {"name": "table1", "title": "Table 1", "rows": []}
    monkeypatch.setattr(experiment_output, "output_markdown", lambda values, place: f"{values['title']}\n")
    monkeypatch.setattr(results_page.published_numbers, "lines", lambda *_: [])
    storage.write_json(folder / "table1.json", made)
    assert "# The paper on cifar10, reproduced" in results_page.write_results_page(tmp_path, "cifar10").read_text()
    assert frontier.frontier_section(tmp_path, "cifar10") == ""
    storage.write_json(tmp_path / "leaderboard/cifar10/ball/one.json", _entry("one", {"0.01": 0.5, "0.1": 0.1}))
    storage.write_json(folder / "frontier/one_small.json", _entry("one", {"0.001": 0.75}, images=128))
    robust = {"0.001": 0.795}
    result = {"name": "RAMP", "natural_accuracy": None, "robust_accuracy": robust, "attack": "Wu", "source": "2024"}
    storage.write_json(folder / "published.json", {"about": "caption", "drawn_up_to": 0.05, "results": [result]})
    storage.write_text(folder / "frontier.md", "What it shows.\n")
    text = results_page.write_results_page(tmp_path, "cifar10").read_text()
    ((path, points, radii), options) = drawn[0]
    assert path == folder / "frontier.png" and radii == [0.001, 0.01] and options["caption"] == "caption"
    assert points == [FrontierPoint("one", 0.8, {0.001: 0.75, 0.01: 0.5, 0.1: 0.1})]
    assert options["published"] == [FrontierPoint("RAMP", None, {0.001: 0.795})]
    assert (
        text.index("What it shows.") < text.index("cifar10/frontier.png") < text.index("RAMP") < text.index("Table 1")
    )
    assert text.startswith("# Robust classifiers of cifar10") and "# The paper on cifar10, reproduced" in text
    assert "79.50 %" in text and "128" in text


def test_unusable_published_results_are_refused(tmp_path):
    storage.write_json(tmp_path / "cifar10/published.json", {"about": "", "drawn_up_to": 0.05, "results": []})
    with pytest.raises(ValueError, match="no leaderboard entries of cifar10"):
        frontier.frontier_section(tmp_path, "cifar10")
    storage.write_text(tmp_path / "cifar10/published.json", "{")
    with pytest.raises(ValueError):
        frontier.frontier_section(tmp_path, "cifar10")
