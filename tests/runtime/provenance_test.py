import re
import subprocess

import pytest

from wasser_tf.runtime import provenance


def test_the_commit_is_that_of_the_checkout():
    found = provenance.commit()
    if found is None:
        pytest.skip("The package does not run from a checkout.")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ("ls-files", subprocess.CalledProcessError(128, "git")),
        ("describe", subprocess.TimeoutExpired("git", 10)),
        ("ls-files", OSError("no git")),
    ],
)
def test_outside_a_checkout_there_is_no_commit(monkeypatch, failing, error):
    def run(command, **options):
        if command[1] == failing:
            raise error
        return subprocess.CompletedProcess(command, 0, " 1234-dirty\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert provenance.commit.__wrapped__() is None
    failing = "nothing"
    assert provenance.commit.__wrapped__() == "1234-dirty"


@pytest.mark.parametrize(
    "given, said",
    [
        (["/opt/x/bin/evaluate.py", "--radii=0.1,0.3"], "python bin/evaluate.py --radii=0.1,0.3"),
        (["bin/train.py", "--output_dir=runs/a/b", "--data_dir=/data/tfds"], "--output_dir=runs/a/b --data_dir=…/tfds"),
        (["bin/a.py", "--models=a=/x/a.keras,b=/y/z/b.npz,c=runs/c.keras"], "a=…/a.keras,b=…/b.npz,c=runs/c.keras"),
        (["wasser-tf train", "--model=/data/x.keras", "--epochs=3"], "wasser-tf train --model=…/x.keras --epochs=3"),
        (["bin/a.py", "--description=1/4 of it", "--model=/my data/x"], "'--description=1/4 of it' '--model=…/x'"),
    ],
)
def test_commands_contain_no_paths_of_the_machine(given, said):
    assert provenance.command(given).endswith(said)
