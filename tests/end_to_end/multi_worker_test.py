"""bin/train.py on two workers that speak over loopback and read half of a folder each; one of them is killed."""

import json
import pathlib
import socket
import time

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

_ROOT = pathlib.Path(__file__).parents[2]
# The report attacks as many images as a worker trains on at a time, and so shares what training compiled.
_FLAGS = """
--model=mlp --standard_epochs=1 --epochs=6 --batch_size=256 --optimizer=sgd --learning_rate=0.1
--attack=random_plan --validation_attack=random_plan
--report_iterations=2 --num_attack_examples=128 --radii=0.1 --augment=shift
""".split()
_PATIENCE = 600


def _write_digits(folder):
    """Writes the digits as PNG files, in folders of the classes."""
    digits = sklearn.datasets.load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        (folder / f"n{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"n{label}" / f"{number}.png")


def _start(forks, folder, log, *flags, tf_config=None):
    arguments = [*_FLAGS, f"--output_dir={folder}", *flags, f"--dataset={log.parent / 'digits'}/"]
    environment = {"TF_CONFIG": json.dumps(tf_config)} if tf_config else {}
    return forks.start("train", *arguments, streams=[log, log], environment=environment)


def _start_workers(forks, tmp_path, name):
    """Starts two; only the first is given the run's folder, which no one else needs."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    logs = [tmp_path / f"{name}_{index}.log" for index in range(2)]
    folders = [tmp_path / "run", tmp_path / "never_made"]
    workers = [
        _start(
            forks,
            folders[index],
            logs[index],
            "--distribute=multi_worker",
            "--streaming=always",
            "--resume",
            tf_config={"cluster": cluster, "task": {"type": "worker", "index": index}},
        )
        for index in range(2)
    ]
    return workers, logs


@pytest.mark.slow
def test_a_worker_is_killed_and_the_job_resumes_from_its_backup(forks, tmp_path):
    _write_digits(tmp_path / "digits")
    started = []
    try:
        workers, logs = _start_workers(forks, tmp_path, "first")
        started += workers
        deadline = time.monotonic() + _PATIENCE
        # After an epoch of WasserTrain, before the last.
        while not (tmp_path / "run" / "checkpoints" / "wasser_train.npz").exists():
            assert all(worker.poll() is None for worker in workers), [log.read_text() for log in logs]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        workers[1].kill()
        # What it is compared with, while the survivor has yet to notice.
        alone = _start(forks, tmp_path / "alone", tmp_path / "alone.log", "--streaming=never")
        started.append(alone)
        assert workers[0].wait() == 1, logs[0].read_text()
        assert logs[0].read_text().rstrip().endswith("the run continues after its last epoch.")
        assert not (tmp_path / "run" / "best.keras").exists()

        workers, logs = _start_workers(forks, tmp_path, "second")
        started += workers
        for worker, log in zip(workers, logs, strict=True):
            assert worker.wait() == 0, log.read_text()
        assert "2 replicas, 128 images each" in logs[0].read_text()
        assert "were done before" in logs[0].read_text()
        assert logs[1].read_text().strip() == "" and not (tmp_path / "never_made").exists()

        assert alone.wait() == 0, (tmp_path / "alone.log").read_text()
    finally:
        for process in started:
            process.kill()
    # Random plans do not depend on the weights. An attack that does is not continuous in them (which class is the
    # second, which pixel is full): rounding grows from step to step. tests/training/distribution_test.py compares one.
    for phase in ("standard", "wasser_train"):
        one, two = (np.load(tmp_path / run / "checkpoints" / f"{phase}.npz") for run in ("alone", "run"))
        assert one.files == two.files
        for key in one.files:
            if key != "state":
                np.testing.assert_allclose(two[key], one[key], atol=1e-5, err_msg=key)
