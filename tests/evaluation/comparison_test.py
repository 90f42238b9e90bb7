import json

import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel, models
from wasser_tf.data import Split
from wasser_tf.evaluation import comparison


@pytest.fixture(scope="module")
def compared():
    rng = np.random.default_rng(0)
    split = Split(
        rng.random((8, 5, 4, 1), np.float32), rng.integers(0, 3, 8).astype(np.int32), np.arange(8, dtype=np.int32)
    )
    classifiers = {name: models.build("linear", (5, 4, 1), 3, seed=seed) for seed, name in enumerate(("old", "new"))}
    attack = MirrorAscent(ThreatModel(kernel_size=3), iterations=2, polish=2)
    return comparison.compare(
        classifiers, attack, split, (0.1, 0.4), dataset_name="noise test", batch_size=8, verbose=False
    )


def test_attacks_each_classifier_at_each_radius(compared):
    assert [(record.model, record.epsilon) for record in compared.records] == [
        ("old", 0.1), ("old", 0.4), ("new", 0.1), ("new", 0.4),
    ]  # fmt: skip
    assert {record.dataset for record in compared.records} == {"noise test"}


def test_table_says_what_was_gained(compared):
    lines = comparison.table(compared).splitlines()
    assert lines[0] == "| accuracy on the test images | old | new | gain, points |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| natural", "| robust at ε = 0.1", "| robust at ε = 0.4"]
    old, new = (100 * compared.evaluations[name][1].record.certified.robust_accuracy for name in ("old", "new"))
    assert lines[-1] == f"| robust at ε = 0.4 | {old:.1f} % | {new:.1f} % | {new - old:+.1f} |"


def test_writes_pictures_and_reports(compared, tmp_path):
    paths = comparison.save_figures(tmp_path, compared, 0.4)
    assert [path.name for path in paths] == ["examples_old.png", "examples_new.png", "success.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    comparison.save_report(tmp_path, compared, {"best_epoch": 3}, "# Title\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["best_epoch"] == 3 and len(report["records"]) == 4
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Title") and comparison.table(compared) in text
