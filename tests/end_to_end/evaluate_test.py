"""bin/evaluate.py as a user runs it, and the function behind it."""

import functools
import json
import pathlib
import re
import time

import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks, data, models
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.config import EvaluationRun, parse_models
from wasser_tf.reporting import report
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import storage

pytestmark = pytest.mark.slow
_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    train = data.load("digits", splits=("train",)).train
    folder = tmp_path_factory.mktemp("models")
    for name in ("linear", "mlp"):
        classifier = models.build(name, (8, 8, 1), 10, seed=0)
        classifier.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        classifier.fit(train.images, train.labels, epochs=5, verbose=0)
        classifier.save(folder / f"{name}.keras")
    return folder


@pytest.fixture(scope="module")
def plans():
    # Made once, so that their compiled functions are shared.
    made = [attacks.make("random_plan", ThreatModel(epsilon=0.6), seed=seed) for seed in (0, 1)]
    return {"random_plan": made[0], "random_plan:seed=1": made[1]}


@pytest.fixture
def config(saved, plans, tmp_path):
    def make(**changes):
        fields = {
            "models": {"linear": str(saved / "linear.keras")},
            "source": ImageSource(num_examples=16),
            "attacks": plans,
            "radii": (0.2, 0.6),
            "output_dir": str(tmp_path / "run"),
            "sanity": False,
            "batch_size": 8,
        }
        return EvaluationRun(**{**fields, **changes})

    return make


# One object for each file, so that its compiled functions are shared.
_load_once = functools.cache(models.load_classifier)


@pytest.fixture
def quick(monkeypatch):
    """Leaves out the figures, which take longer than all the rest; one test draws them. Loads a classifier once."""
    monkeypatch.setattr(report, "_draw", lambda *_: {})
    monkeypatch.setattr(models, "load_classifier", _load_once)


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def cells_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted((folder / "cells").rglob("[!.]*.npz"))}


def test_a_killed_run_resumes_with_the_same_result(saved, config, forks, run_binary, tmp_path):
    command = [
        f"--models=linear={saved / 'linear.keras'},mlp={saved / 'mlp.keras'}",
        "--attacks=random_plan,random_plan:seed=1",
        "--radii=0.2,0.6",
        "--num_examples=20",
        "--batch_size=8",
        "--nosanity",
        f"--output_dir={tmp_path / 'killed'}",
    ]
    log = tmp_path / "log"
    process = forks.start("evaluate", *command, streams=[log, log])
    while "[2/24]" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    process.kill()
    done = cells_of(tmp_path / "killed")
    assert 2 <= len(done) < 24
    assert not (tmp_path / "killed" / "report.json").exists()

    code, out, errors = run_binary("evaluate", *command, "--verify_exact", "--verify_examples=2")
    assert code == 0, errors
    assert f"[{len(done) + 1}/24]" in out and "[24/24]" in out and f"[{len(done)}/24]" not in out
    assert "| worst case " in out and errors.strip() == ""
    cells = cells_of(tmp_path / "killed")
    assert len(cells) == 24 and done.items() <= cells.items()
    assert len(report_of(tmp_path / "killed")["models"]["mlp"]["exact"]) == 4

    # What was never killed; here another process, so that sums may be rounded in another order.
    run_evaluation(
        config(
            models={name: str(saved / f"{name}.keras") for name in ("linear", "mlp")},
            source=ImageSource(num_examples=20),
            output_dir=str(tmp_path / "whole"),
        )
    )
    for ours, theirs in zip(cells, cells_of(tmp_path / "whole"), strict=True):
        assert ours.relative_to(tmp_path / "killed") == theirs.relative_to(tmp_path / "whole")
        with np.load(ours) as one, np.load(theirs) as other:
            np.testing.assert_allclose(one["adversarial"], other["adversarial"], atol=1e-5)
    killed, whole = (
        [(record["model"], record["attack"], record["epsilon"], record["feasible"]) for record in found["records"]]
        for found in (report_of(tmp_path / "killed"), report_of(tmp_path / "whole"))
    )
    assert len(killed) == 2 * 3 * 2
    for ours, theirs in zip(killed, whole, strict=True):
        assert ours[:3] == theirs[:3]
        assert ours[3]["robust_accuracy"] == theirs[3]["robust_accuracy"]
        assert ours[3]["cross_entropy"] == pytest.approx(theirs[3]["cross_entropy"], abs=1e-3)
    figures = {path.name for path in (tmp_path / "whole" / "figures").iterdir()}
    assert {"panels_linear.png", "panels_mlp.png", "success.png"} <= figures
    assert {"robust_accuracy.png", "examples_mlp_0.6.png"} <= figures
    text = (tmp_path / "whole" / "report.md").read_text()
    # Tested radii alone are no minimal radii.
    assert "minimal_radius.png" not in figures and "median" not in text
    assert "| worst case " in text and "p = 1" in text and all(name in text for name in figures)


def test_rescored_and_verified_without_attacking(config, quick, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="8 results are missing"):
        run_evaluation(config(), rescore_only=True)
    assert not folder.exists()
    run_evaluation(config())
    first, cells = report_of(folder), cells_of(folder)
    (folder / "report.json").unlink()
    with pytest.raises(ValueError, match="--rescore or --overwrite, not both"):
        run_evaluation(config(), rescore_only=True, overwrite=True)

    told = []
    run_evaluation(EvaluationRun.load(str(folder)), rescore_only=True, verify_exact=5, log=told.append)
    assert not any("fooled" in line for line in told) and cells_of(folder) == cells
    assert any(re.match(r"Exact transport of 20 examples: .* all within their radius$", line) for line in told), told
    again = report_of(folder)
    for before, after in zip(first["records"], again["records"], strict=True):
        assert before["feasible"]["success_rate"] == after["feasible"]["success_rate"]
        assert before["feasible"]["cross_entropy"] == pytest.approx(after["feasible"]["cross_entropy"], abs=1e-4)
        assert before["feasible"]["max_cost_ratio"] == after["feasible"]["max_cost_ratio"]
    exact = again["models"]["linear"]["exact"]
    assert [(check["attack"], check["epsilon"]) for check in exact] == [
        (attack, radius) for radius in (0.2, 0.6) for attack in ("random_plan", "random_plan:seed=1")
    ]
    assert all(check["num_images"] == 5 and check["within_radius"] and check["below_cost"] for check in exact)
    assert all(0 < check["max_ratio"] <= 1 + 1e-5 for check in exact)
    assert "### Exact transport" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"models": {"a": "nowhere.keras"}}, "There is no file nowhere.keras"),
        ({"source": ImageSource(num_examples=9999)}, "at most the number of examples, 400"),
        ({"radii": ()}, "radii must name at least one"),
        ({"radii": (-0.1,)}, "epsilon must be"),
        ({"radii": (0.1, 0.1)}, "must differ"),
        ({"main_attack": "mirror_ascent"}, "main_attack must be one of"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_writes_nothing(config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_evaluation(config(**changes))
    assert not (tmp_path / "run").exists()


def test_models_are_named(tmp_path):
    assert parse_models(["a/one.keras", "b=c/two.keras"]) == {"one": "a/one.keras", "b": "c/two.keras"}
    with pytest.raises(ValueError, match="Two models are called 'one'"):
        parse_models(["a/one.keras", "b/one.keras"])


def test_a_folder_without_an_evaluation_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="holds no evaluation"):
        EvaluationRun.load(str(tmp_path))
    storage.write_json(tmp_path / "config.json", {"epochs": 3})
    with pytest.raises(ValueError, match="must be a document of schema wasser_tf.evaluation_config/1, got none"):
        EvaluationRun.load(str(tmp_path))
    with pytest.raises(ValueError, match="holds another evaluation"):
        run_evaluation(config(output_dir=str(tmp_path)))
