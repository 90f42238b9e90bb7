"""The small version of reliability/run.py: kills, a small disk, bad input, a long run; forks of one process."""

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
    command = [sys.executable, str(_ROOT / "reliability" / "run.py"), "--quick", f"--output_dir={folder}"]
    # train_test and evaluate_test kill two of the others. MNIST is not everywhere.
    command += ["--parts=attack,export,library,digits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((folder / "reliability.json").read_text())
    assert "Not run yet: train, evaluate, reproduce." in (folder / "reliability.md").read_text()
    return {section: [row for part in parts.values() for row in part["rows"]] for section, parts in found.items()}


def test_every_kill_is_recovered(results):
    assert [row["binary"] for row in results["kills"]] == ["attack", "export"]
    assert all(row["recovered"] == row["kills"] == 3 for row in results["kills"])
    assert all(row["half-written files"] == 0 for row in results["kills"])


def test_a_signal_stops_after_the_batch_and_the_message_explains_how_to_resume(results):
    (row,) = results["stops"]
    assert row["signals"] == 2 == row["saved and reported, exit 130 or 143"] + row["had finished"]
    assert row["ends as an uninterrupted run"] == "2 of 2"


def test_a_full_and_a_read_only_disk_are_reported_and_the_run_recovers(results):
    for row in results["disks"]:
        if "not allowed" in row:
            pytest.skip(f"No disk of its own for this process: {row['not allowed']}")
        assert row["reported in one line, exit 1"] == row["attempts on a full disk"] == 1, row
        assert row["read-only, reported"] == "2 of 2" and row["read-only, files as before"] == "yes", row
        assert row["ends as an uninterrupted run"] == "yes" and row["half-written files"] == 0, row


def test_every_bad_input_gets_a_documented_error(results):
    assert sum(row["inputs"] for row in results["inputs"]) >= 100
    assert all(row["undocumented"] == 0 for row in results["inputs"])


def test_a_long_run_does_not_retrace_functions(results):
    (row,) = results["long"]
    assert row["traces in the warm-up"] >= 2 and row["retraces after it"] == 0
