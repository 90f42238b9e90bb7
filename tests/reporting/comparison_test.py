import json

import pytest

from wasser_tf.data import Split
from wasser_tf.evaluation.comparison import compare
from wasser_tf.reporting import comparison


@pytest.fixture(scope="module")
def compared(digits, classifier, other_classifier, random_plan):
    split = Split(digits.images, digits.labels, digits.index)
    classifiers = {"old": other_classifier, "new": classifier}
    told = []
    compared = compare(
        classifiers, random_plan, split, (0.1, 0.4), dataset_name="digits test", log=told.append, verbose=False
    )
    assert told[0] == "Attacking old at ε = 0.1" and len(told) == 4
    return compared


def test_attacks_each_classifier_at_each_radius(compared):
    assert [(record.model, record.epsilon) for record in compared.records] == [
        ("old", 0.1), ("old", 0.4), ("new", 0.1), ("new", 0.4),
    ]  # fmt: skip
    assert {record.dataset for record in compared.records} == {"digits test"}


def test_table_says_what_was_gained(compared):
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in comparison.comparison_table(compared).splitlines()
    ]
    assert lines[0] == ["accuracy on the test images", "old", "new", "gain, points"]
    assert [line[0] for line in lines[2:]] == ["natural", "robust at ε = 0.1", "robust at ε = 0.4"]
    old, new = (100 * compared.evaluations[name][1].record.feasible.robust_accuracy for name in ("old", "new"))
    assert lines[-1][1:] == [f"{old:.1f} %", f"{new:.1f} %", f"{new - old:+.1f}"]


def test_writes_pictures_and_reports(compared, tmp_path):
    paths = comparison.save_figures(tmp_path, compared, 0.4)
    assert [path.name for path in paths] == ["examples_old.png", "examples_new.png", "success.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    comparison.save_report(tmp_path, compared, {"best_epoch": 3}, "# Title\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["best_epoch"] == 3 and len(report["records"]) == 4
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Title") and comparison.comparison_table(compared) in text
