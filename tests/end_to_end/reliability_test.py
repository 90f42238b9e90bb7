"""The small version of benchmarks/reliability.py: kills, bad input and a long run, in one process and its forks."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reliability")
    command = [sys.executable, str(_ROOT / "benchmarks" / "reliability.py"), "--quick", f"--output_dir={folder}"]
    # train_test and evaluate_test kill the other two.
    command.append("--binaries=attack,export")
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((folder / "reliability.json").read_text())
    return {section: result["rows"] for section, result in found.items()}, done.stdout


def test_every_kill_is_recovered(results):
    rows, told = results
    assert [row["binary"] for row in rows["kills"]] == ["attack", "export"]
    assert all(row["recovered"] == row["kills"] == 1 for row in rows["kills"]), told


def test_every_bad_input_gets_a_documented_error(results):
    rows, told = results
    assert sum(row["inputs"] for row in rows["inputs"]) >= 100
    assert all(row["undocumented"] == 0 for row in rows["inputs"]), told


def test_a_long_run_traces_nothing_again(results):
    rows, _ = results
    (row,) = rows["long run"]
    assert row["traces in the first epoch"] >= 2 and row["retraces after it"] == 0
