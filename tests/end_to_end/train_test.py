"""bin/train.py as a user runs it."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from wasser_tf import models

_ROOT = pathlib.Path(__file__).parents[2]
# Training and report attack batches of one size with as many iterations, and so share what they compile.
_TINY = """
--model=mlp
--standard_epochs=2
--epochs=4
--iterations=2
--learning_rate=0.01
--report_iterations=2
--num_attack_examples=64
--radii=0.05,0.1
"""


@pytest.fixture(scope="module")
def flagfile(tmp_path_factory):
    path = tmp_path_factory.mktemp("flags") / "tiny.flags"
    path.write_text(_TINY)
    return path


@pytest.fixture(scope="module")
def finished(run_binary, tmp_path_factory, flagfile):
    """The folder and the output of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("train") / "run"
    code, out, errors = run_binary("train", f"--flagfile={flagfile}", f"--output_dir={folder}")
    assert code == 0, errors
    # What TensorFlow says of its exports would bury the table.
    assert not re.search("signature|fingerprint|Sharding|Assets", errors), errors
    return folder, out


@pytest.mark.slow
def test_a_training_writes_all_its_files(finished):
    folder, out = finished
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "history.csv",
        "checkpoints",
        "standard.keras",
        "best.keras",
        "best_saved_model",
        "report.json",
        "report.md",
        "examples_standard.png",
        "examples_wasser_train.png",
        "success.png",
    }
    assert "robust at ε = 0.1" in out and out.rstrip().endswith(str(folder / "success.png"))
    assert all(len(line) < 100 for line in out.splitlines() if "Wasserstein ball" not in line)
    config = json.loads((folder / "config.json").read_text())
    assert config["threat_model"]["epsilon"] == 0.1 and config["config"]["seed"] == 0
    assert {"tensorflow", "keras", "wasser_tf"} < config["versions"].keys()
    history = (folder / "history.csv").read_text().splitlines()
    assert len(history) == 1 + 2 + 4 and history[0].startswith("phase,epoch,")
    assert {"natural_loss", "adversarial_loss", "adversarial_accuracy", "val_robust_accuracy"} < set(
        history[0].split(",")
    )
    report = json.loads((folder / "report.json").read_text())
    assert [(record["model"], record["epsilon"]) for record in report["records"]] == [
        (model, epsilon) for model in ("standard", "wasser_train") for epsilon in (0.05, 0.1)
    ]
    assert all(record["feasible"]["feasible_share"] == 1.0 for record in report["records"])
    images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    saved, exported = (models.load_classifier(folder / name) for name in ("best.keras", "best_saved_model"))
    assert exported.from_logits is True
    np.testing.assert_allclose(exported(images), saved(images), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(finished, run_binary, forks, flagfile, tmp_path):
    folder = tmp_path / "run"
    arguments = (f"--flagfile={flagfile}", f"--output_dir={folder}", "--resume")
    process = forks.start("train", *arguments, streams=[tmp_path / "log"] * 2)
    started = time.monotonic()
    # In the midst of WasserTrain: after an epoch of it, before the last.
    while not (folder / "checkpoints" / "wasser_train.npz").exists():
        assert process.poll() is None and time.monotonic() < started + 500, (tmp_path / "log").read_text()
        time.sleep(0.02)
    process.kill()
    assert not (folder / "best.keras").exists()
    code, out, errors = run_binary("train", *arguments)
    assert code == 0, errors
    assert "were done before" in out
    for name in ("standard", "wasser_train"):
        whole, resumed = (np.load(run / "checkpoints" / f"{name}.npz") for run in (finished[0], folder))
        assert whole.files == resumed.files
        for key in whole.files:
            np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)
    whole, resumed = (models.load_classifier(run / "best.keras") for run in (finished[0], folder))
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (folder / "history.csv").read_text() == (finished[0] / "history.csv").read_text()
    # Once more: refused without --resume.
    code, _, errors = run_binary("train", f"--flagfile={flagfile}", f"--output_dir={folder}")
    assert code != 0 and "--resume" in errors and "Traceback" not in errors


def test_missing_packages_are_reported():
    # -S: without those that are installed.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-S", str(_ROOT / "bin" / "train.py")]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1
    assert re.fullmatch(r"train.py: .* lacks tensorflow and wasser_tf: .*`make env`.*\n", finished.stderr)
