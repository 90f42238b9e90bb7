"""Comparisons of classifiers: attacks, signs of gains and chosen images."""

import dataclasses
import json

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.data import Split
from wasser_tf.evaluation import comparison as evaluation_comparison
from wasser_tf.evaluation.comparison import Comparison, compare
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.evaluation.record import Evaluation, make_record
from wasser_tf.reporting import comparison, figures
from wasser_tf.runtime import interruption

# Success on four images by classifier and radius; the first is wrong clean for "old", the last for "new".
_SUCCESS = {
    ("old", 0.1): [True, True, False, False],
    ("old", 0.4): [True, True, True, True],
    ("new", 0.1): [False, False, False, True],
    ("new", 0.4): [False, False, True, True],
}
_WRONG = {"old": [True, False, False, False], "new": [False, False, False, True]}


@pytest.fixture
def compared(make_examples):
    attack = attacks.make("random_plan", ThreatModel(epsilon=0.9, p=2.0))
    evaluations = {"old": [], "new": []}
    for (name, radius), success in _SUCCESS.items():
        examples = make_examples(success, [1, 2, 3, 4], wrong=_WRONG[name])
        record = make_record(
            attack, examples.result, examples.clean, radius=radius, model_name=name, dataset_name="d", seconds=1
        )
        evaluations[name].append(Evaluation(record, examples.result, examples.clean))
    split = Split(examples.images, examples.labels, examples.index)
    classifiers = {"old": lambda images, training: None, "new": lambda images, training: None}
    return Comparison(classifiers, split, (0.1, 0.4), evaluations)


def test_each_classifier_is_attacked_at_each_radius(monkeypatch):
    asked, told, stops = [], [], []
    monkeypatch.setattr(
        evaluation_comparison, "evaluate_attack", lambda *given, **options: asked.append((given, options))
    )
    monkeypatch.setattr(interruption, "raise_if_requested", lambda: stops.append(len(asked)))
    split = Split(np.zeros(2), np.ones(2), np.arange(2))
    made = compare(
        {"old": "o", "new": "n"}, "attack", split, [0.1, 0.4], dataset_name="d", from_logits=True, batch_size=3,
        log=told.append, verbose=False,
    )  # fmt: skip
    assert [given[:2] for given, _ in asked] == [("o", "attack")] * 2 + [("n", "attack")] * 2
    assert all(given[2] is split.images and given[3] is split.labels for given, _ in asked)
    index = [options.pop("index") for _, options in asked]
    assert all(one is split.index for one in index) and stops == [0, 1, 2, 3]
    shared = {"dataset_name": "d", "from_logits": True, "batch_size": 3, "verbose": False}
    assert [options for _, options in asked] == [
        {"radius": radius, "model_name": name, **shared} for name in ("old", "new") for radius in (0.1, 0.4)
    ]
    attacked = [f"Attacking {name} at ε = {radius}" for name in ("old", "new") for radius in (0.1, 0.4)]
    assert [line.partition("; ")[0] for line in told] == [f"[{n}/4] {line}" for n, line in enumerate(attacked, 1)]
    assert made.radii == (0.1, 0.4) and list(made.evaluations) == ["old", "new"] and made.split is split
    compare({"one": "o"}, "attack", split, [0.1], dataset_name="d")
    assert asked[-1][1]["from_logits"] is None and asked[-1][1]["verbose"] and asked[-1][1]["batch_size"] == 128


def _cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_table_shows_the_gain(compared):
    header, _, *rows = _cells(comparison.comparison_table(compared))
    assert header == ["accuracy on the test images", "old", "new", "gain, points"]
    assert rows == [
        ["natural", "75.0 %", "75.0 %", "+0.0"],
        ["robust at ε = 0.1", "50.0 %", "75.0 %", "+25.0"],
        ["robust at ε = 0.4", "0.0 %", "50.0 %", "+50.0"],
    ]
    turned = compared._replace(evaluations=dict(reversed(compared.evaluations.items())))
    assert _cells(comparison.comparison_table(turned))[-1] == ["robust at ε = 0.4", "50.0 %", "0.0 %", "-50.0"]
    alone = compared._replace(evaluations={"old": compared.evaluations["old"]})
    assert _cells(comparison.comparison_table(alone))[-1] == ["robust at ε = 0.4", "0.0 %"]
    assert _cells(comparison.comparison_table(alone))[0] == ["accuracy on the test images", "old"]


@pytest.fixture
def drawn(monkeypatch):
    found = []
    monkeypatch.setattr(figures, "save_examples", lambda *given, **options: found.append((given, options)))
    monkeypatch.setattr(figures, "save_success_curves", lambda *given, **options: found.append((given, options)))

    def predict(classifier, images, labels):
        # As many classes as there are images, so that it shows whose they are.
        return Predictions(np.arange(len(images)) + 5, labels != 0, labels)

    monkeypatch.setattr(comparison.metrics, "predict", predict)
    return found


def test_pictures_show_images_that_all_classifiers_get_right(compared, drawn, tmp_path):
    paths = comparison.save_figures(tmp_path, compared, 0.4, class_names=["a", "b"])
    assert [path.name for path in paths] == ["examples_old.png", "examples_new.png", "success.png"]
    ball = ThreatModel(epsilon=0.4, p=2.0)
    for (given, options), name in zip(drawn[:2], ("old", "new"), strict=True):
        path, images, adversarial, labels, clean, attacked = given
        assert path == tmp_path / f"examples_{name}.png" and len(images) == 2
        # Images 1 and 2, whose losses are 2 and 3.
        np.testing.assert_allclose(adversarial[:, 0, 0, 0], [0.02, 0.03])
        assert labels.tolist() == clean.tolist() == [0, 0] and attacked.tolist() == [5, 6]
        assert options == {
            "threat_model": ball, "title": f"{name} under random plan", "class_names": ["a", "b"],
        }  # fmt: skip
    (path, curves), options = drawn[2]
    assert path == tmp_path / "success.png" and options == {"threat_model": ball, "num_images": 4, "warnings": []}
    assert curves == {"old": ((0.0, 0.1, 0.4), [0.25, 0.5, 1.0]), "new": ((0.0, 0.1, 0.4), [0.25, 0.25, 0.5])}


def test_without_a_common_correct_image_the_first_are_drawn(compared, drawn, tmp_path):
    for name, wrong in (("old", [True, True, False, False]), ("new", [False, False, True, True])):
        for at, one in enumerate(compared.evaluations[name]):
            compared.evaluations[name][at] = one._replace(clean=one.clean._replace(wrong=np.array(wrong)))
    comparison.save_figures(tmp_path, compared, 0.1)
    assert len(drawn[0][0][1]) == 4 and drawn[0][1]["threat_model"].epsilon == 0.1


def test_reports(compared, tmp_path):
    comparison.save_report(tmp_path, compared, {"best_epoch": 3}, "# Title\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["best_epoch"] == 3 and len(report["records"]) == 4
    assert [(record["model"], record["epsilon"]) for record in report["records"]] == list(_SUCCESS)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(f"# Title\n\n{comparison.comparison_table(compared)}\n## All scores\n\nWasserstein ball: ε ")
    assert dataclasses.asdict(compared.records[3])["epsilon"] == 0.4
