"""Fig. 1 and Table 1, cell by cell, without attacks and trainings."""

import numpy as np
import pytest

from tests.fixtures.paper import reproduction
from wasser_tf import ThreatModel, attacks
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import fingerprint
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.paper import drawings, experiment_output, experiments, results_page
from wasser_tf.paper.context import ExperimentContext
from wasser_tf.paper.presets import QUICK


def test_fig1_draws_images_that_are_classified_correctly(tmp_path, monkeypatch):
    count = 40
    images = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32) / 100
    selection = Selection("d", np.arange(count) + 100, images, np.arange(count), ("n",))
    context = ExperimentContext(reproduction(tmp_path), print)
    context.images = selection
    asked, drawn = [], []
    monkeypatch.setattr(context, "classifier", context.path)
    monkeypatch.setattr(fingerprint, "fingerprint", lambda path: f"print of {path}")

    def predict(classifier, given, labels):
        asked.append((classifier, len(given)))
        return Predictions(labels + 7, labels < 20, labels)

    class Attack:
        def __init__(self, name, ball, seed=None):
            self.name, self.threat_model, self.seed, self.change = (
                name,
                ball,
                seed,
                0.125 if name == "linf_pgd" else 0.5,
            )

        def __call__(self, classifier, given, labels, *, radius, index):
            asked.append((self.name, classifier, radius, index.tolist(), self.seed))
            feasibility = type("C", (), {"cost": labels / 100})
            changed = given.copy()
            changed[:, 0, 0] -= self.change
            return type("R", (), {"adversarial": changed, "feasibility": feasibility})

    monkeypatch.setattr(experiments.metrics, "predict", predict)
    monkeypatch.setattr(experiments.metrics, "predict_unchecked", predict)
    monkeypatch.setattr(attacks, "make", lambda name, ball, seed: Attack(name, ball, seed))
    monkeypatch.setattr(attacks, "serialize", lambda attack: attack.name)
    monkeypatch.setattr(context, "attack", lambda name: Attack(name, ThreatModel(), "context"))
    monkeypatch.setattr(drawings, "save_side_by_side", lambda *given, **options: drawn.append((given, options)))
    made = experiments.fig1(context)
    preset, index = QUICK["digits"], [120, 121, 122, 123, 124, 125]
    assert asked == [
        ("s.keras", 30), ("linf_pgd", "s.keras", preset.linf_epsilon, index, 4), ("s.keras", 6),
        ("wasser_attack", "s.keras", preset.epsilon_drawn, index, "context"), ("s.keras", 6),
    ]  # fmt: skip
    assert made.rows[1] == {
        "index": 121, "label": 21, "linf_prediction": 28, "linf_largest_change": 0.125, "wasserstein_prediction": 28,
        "wasserstein_largest_change": 0.5, "wasserstein_cost": 0.21,
    }  # fmt: skip
    assert (made.name, made.num_images, made.pictures) == ("fig1", 6, ["fig1.png"])
    assert "| 121   |    21 |" in made.table and "0.210" in made.table and "0.50 |" in made.table
    assert made.threat_model.startswith("Wasserstein ball: epsilon 0.2 ") and made.threat_model.endswith(
        "by at most 0.2"
    )
    assert made.settings == {
        "attacks": {"linf": "linf_pgd", "wasserstein": "wasser_attack"},
        "classifiers": {"standard": "print of s.keras"},
    }
    ((path, clean, labels, attacked), options) = drawn[0]
    assert path == context.folder / "fig1.png" and labels.tolist() == list(range(20, 26)) and len(clean) == 6
    assert [one.name for one in attacked] == ["ℓ∞ ball", "Wasserstein ball"] and options["class_names"] == ("n",)
    monkeypatch.setattr(experiments.metrics, "predict", lambda *given: Predictions(None, np.ones(30, bool), None))
    with pytest.raises(ValueError, match="misclassifies the first 30 images"):
        experiments.fig1(context)


def test_table1(tmp_path, monkeypatch):
    context = ExperimentContext(reproduction(tmp_path, dataset="mnist", leave_out=("pgd",)), print)
    context.images = Selection("d", np.arange(4), np.zeros([4, 2, 2, 1]), np.zeros(4, int), None)
    monkeypatch.setattr(context, "path", lambda name: f"{name}.keras")
    monkeypatch.setattr(context, "classifier", context.path)
    monkeypatch.setattr(fingerprint, "fingerprint", lambda path: f"print of {path}")
    share = {"standard.keras": 0, "wasser_train.keras": 1, "mine.keras": 3}
    monkeypatch.setattr(
        experiments.metrics,
        "predict",
        lambda classifier, *given: Predictions(None, np.arange(4) < share[classifier], None),
    )
    made = experiments.table1(context)
    assert made.rows == [
        {"classifier": "standard", "natural_accuracy": 1.0, "paper": 0.989},
        {"classifier": "wasser_train", "natural_accuracy": 0.75, "paper": 0.9823},
        {"classifier": "mine", "natural_accuracy": 0.25, "paper": None},
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.table.splitlines()]
    assert rows[0] == ["classifier", "natural accuracy", "the paper"] and rows[3:] == [
        ["wasser_train", "75.00 %", "98.23 %"], ["mine", "25.00 %", "–"],
    ]  # fmt: skip
    assert made.num_images == 4 and made.threat_model == "Natural accuracy: no attack"
    assert made.settings["classifiers"]["mine"] == "print of mine.keras"
    assert (
        list(experiments.EXPERIMENTS)
        == ["table1", "fig1", "fig3", "fig4", "fig5", "beyond", "certified"]
        == list(results_page.NAMES)
    )
    assert all(make.__name__ == name for name, make in experiments.EXPERIMENTS.items())


def test_a_pivot_shows_missing_values_as_dashes():
    rows = [
        {"a": "x", "b": 1, "e": 0.3, "v": 0.5},
        {"a": "x", "b": 1, "e": 0.1, "v": 0.25},
        {"a": "y", "b": 2, "e": 0.1, "v": 1},
    ]
    text = experiment_output.pivot(rows, ["a", "b"], "e", "v", ".0%")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[0] == ["a", "b", "ε = 0.1", "ε = 0.3"] and cells[2:] == [
        ["x", "1", "25%", "50%"],
        ["y", "2", "100%", "–"],
    ]
    assert [rule.strip()[-1] for rule in text.splitlines()[1].split("|")[3:-1]] == [":", ":"]
