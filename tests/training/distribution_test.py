import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.training.distribution import Distribution, parts_of_worker

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What tests/training/two_devices.py trained: lists of weights, with the logs last."""
    path = tmp_path_factory.mktemp("two") / "weights.npz"
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(pathlib.Path(__file__).with_name("two_devices.py")), str(path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    with np.load(path) as file:
        assert file["replicas"] == 2
        return {key: file[key] for key in sorted(file.files)}


def _values(trained, name):
    return [trained[key] for key in trained if key.rpartition("_")[0] == name]


@pytest.mark.parametrize("two", ["two", "two_by_keras", "chunks"])
def test_two_replicas_with_half_the_batch_make_the_weights_of_one(trained, two):
    for one, other in zip(_values(trained, "one"), _values(trained, two), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_two_replicas_that_read_half_of_a_stream_each_make_the_weights_of_one(trained):
    """From the second step of an epoch on, with random shifts."""
    one, two = _values(trained, "streamed_one"), _values(trained, "streamed_two")
    assert np.abs(one[0] - _values(trained, "one")[0]).max() > 1e-3
    for left, right in zip(one, two, strict=True):
        np.testing.assert_allclose(right, left, atol=1e-5)


def test_workers_share_a_batch():
    of = types.SimpleNamespace(num_replicas=6)
    assert [parts_of_worker(worker, 3, of) for worker in range(3)] == [(0, 2, 6), (2, 4, 6), (4, 6, 6)]


def test_replicas_have_different_random_starts(trained):
    for one, other in zip(_values(trained, "noise_one"), _values(trained, "noise_two"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


@pytest.mark.parametrize("two", ["curricula_two", "curricula_by_keras"])
def test_replicas_follow_one_curriculum(trained, two):
    """The counters of steps too, and the values in the logs."""
    for one, other in zip(_values(trained, "curricula_one"), _values(trained, two), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_replicas_have_different_random_radii_and_average_the_trades_loss(trained):
    for one, other in zip(_values(trained, "radii_one"), _values(trained, "radii_two"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_lost_worker_is_reported_where_there_are_several():
    one = Distribution()
    with pytest.raises(tf.errors.UnavailableError), one.report_lost_workers():
        raise tf.errors.UnavailableError(None, None, "gone")
    one.name = "multi_worker"
    with pytest.raises(ConnectionError, match=r"A worker was lost \(UnavailableError\): .*--resume"):
        with one.report_lost_workers():
            raise tf.errors.UnavailableError(None, None, "gone")
    with pytest.raises(KeyError), one.report_lost_workers():
        raise KeyError


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_worker_is_the_chief(monkeypatch, index):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: strategy)
    made = Distribution("multi_worker")
    assert (made.name, made.strategy, made.num_replicas, made.is_chief) == ("multi_worker", strategy, 2, index == 0)


def test_one_device_uses_keras_fit():
    calls = []
    model = types.SimpleNamespace(fit=lambda *given, **options: calls.append((given, options)))
    Distribution().fit(model, "batches", epochs=7, initial_epoch=3, callbacks=("one", "two"))
    options = {"shuffle": False, "epochs": 7, "initial_epoch": 3, "callbacks": ["one", "two"], "verbose": 0}
    assert calls == [(("batches",), options)]


def test_one_device_is_plain_keras():
    one = Distribution("none")
    assert (one.num_replicas, one.is_chief, one.strategy) == (1, True, None)
    layer = keras.layers.BatchNormalization()
    one.prepare(keras.Sequential([layer]))
    assert not layer.synchronized
    assert one.share([np.int64(3), np.ones(2)])[0] == 3


_WORKER = {"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize(
    "tf_config",
    [
        "",
        "{",
        "[]",
        json.dumps({"cluster": {"worker": ["localhost:1"]}}),
        json.dumps({**_WORKER, "task": {"type": "worker", "index": 1}}),
        json.dumps({**_WORKER, "task": {"type": "ps", "index": 0}}),
        json.dumps({**_WORKER, "cluster": {"worker": ["localhost:1"], "ps": ["localhost:2"]}}),
    ],
)
def test_a_malformed_tf_config_is_explained(monkeypatch, tf_config):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(ValueError, match='needs TF_CONFIG in the environment of each worker, such as {"cluster"'):
        Distribution("multi_worker")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="distribute must be one of none, mirrored, multi_worker, got 'tpu'"):
        Distribution("tpu")
