"""The grid of benchmarks/strength.py, on the digits of 8×8 pixels."""

import numpy as np
import pytest

from benchmarks import strength_grid
from wasser_tf import ThreatModel, data, models

ATTACKS = ("wasser_attack", "mirror_ascent:step_size=3.5")


def _grid(**given):
    settings = {"classifiers": ["digits"], "attacks": ATTACKS, "iterations": [2], "radii": [0.2], "num_examples": 4}
    return strength_grid.Grid(**{**settings, "ball": ThreatModel(epsilon=0.0), "data_dir": None, **given})


@pytest.fixture
def loads(monkeypatch):
    """Replaces the LeNet by a linear classifier that is right on its images; the list counts how often it is loaded."""
    images = data.load("digits").validation.images
    classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    labels = classifier.predict(images[:4], verbose=0).argmax(axis=1)
    loaded = []

    def load(name, grid):
        loaded.append(name)
        count = grid.num_examples
        return strength_grid.Target(classifier, strength_grid.DIGITS, images[:count], labels[:count])

    monkeypatch.setattr(strength_grid, "load_target", load)
    return loaded


def test_cells_are_stored_and_an_interrupted_grid_is_resumed(loads, tmp_path):
    path = tmp_path / "runs" / "grid.jsonl"
    cells = strength_grid.measure(_grid(), path)
    assert [cell["attack"] for cell in cells] == list(ATTACKS) and loads == ["digits"]
    for cell in cells:
        assert cell["all_feasible"] and cell["images"] == 4 and cell["iterations"] == 2
        assert 0 < cell["mean_cost"] <= 0.2001 and cell["robust_accuracy"] in (0, 0.25, 0.5, 0.75, 1)
    assert strength_grid.read(path) == cells

    # A killed run leaves half a line: that cell alone is measured again.
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second[: len(second) // 2])
    again = strength_grid.measure(_grid(), path)
    assert [cell["robust_accuracy"] for cell in again] == [cell["robust_accuracy"] for cell in cells]
    assert again[0] == cells[0] and len(loads) == 2
    np.testing.assert_allclose(again[1]["cross_entropy"], cells[1]["cross_entropy"], rtol=1e-3)
    assert strength_grid.measure(_grid(), path) == again and len(loads) == 2


def test_the_table_has_a_row_for_each_attack_and_a_column_for_each_radius():
    cells = [
        {"classifier": "digits", "attack": name, "iterations": 2, "epsilon": radius, "robust_accuracy": share}
        for name, radius, share in [("a", 0.3, 0.5), ("a", 0.1, 0.75), ("b", 0.1, 1.0)]
    ]
    assert strength_grid.table(cells).splitlines() == [
        "| digits | iterations | 0.1 | 0.3 |",
        "| :-- | --: | --: | --: |",
        "| a | 2 | 75.0 | 50.0 |",
        "| b | 2 | 100.0 |  |",
    ]
