"""The parts of the ImageNet benchmark that need no download: the reader of PyTorch's weights, and the page."""

import collections
import os
import pickle
import sys
import types

import numpy as np
import pytest

from benchmarks import imagenet, torch_weights


class _Storage:
    def __init__(self, kind, key, values):
        self.kind, self.key, self.values = kind, key, values


class _View:
    def __init__(self, rebuild, storage, offset, shape, strides):
        self.parts = rebuild, (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return self.parts


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return ("storage", value.kind, value.key, "cpu", value.values.size, None)
        return None


@pytest.fixture
def torch(monkeypatch):
    """Stands in for the names of PyTorch that its files refer to."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        pass

    for owner, value in ((utils, _rebuild_tensor_v2), (package, type("FloatStorage", (), {}))):
        value.__module__, value.__qualname__ = owner.__name__, value.__name__
        setattr(owner, value.__name__, value)
    package.LongStorage = type("LongStorage", (), {"__module__": "torch"})
    package._utils = utils
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return package


def write(path, state, storages, magic=0x1950A86A20F9469CFC6C):
    with open(path, "wb") as stream:
        for value in (magic, 1001, {"little_endian": True}, state, [storage.key for storage in storages]):
            _Pickler(stream, 2).dump(value)
        for storage in storages:
            stream.write(np.int64(storage.values.size).tobytes() + storage.values.tobytes())
    return path


def test_weights_are_read_without_pytorch(torch, tmp_path):
    values, counts = np.arange(12, dtype=np.float32), np.array([5], np.int64)
    first, second = _Storage(torch.FloatStorage, "a", values), _Storage(torch.LongStorage, "b", counts)
    rebuild = torch._utils._rebuild_tensor_v2
    state = collections.OrderedDict(
        matrix=_View(rebuild, first, 2, (2, 3), (3, 1)),
        transposed=_View(rebuild, first, 0, (3, 4), (1, 3)),
        count=_View(rebuild, second, 0, (), ()),
    )
    path = write(tmp_path / "a.pth", state, [first, second])
    found = torch_weights.read(path)
    np.testing.assert_array_equal(found["matrix"], values[2:8].reshape(2, 3))
    np.testing.assert_array_equal(found["transposed"], values.reshape(4, 3).T)
    assert found["count"] == 5
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is truncated"):
        torch_weights.read(path)
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        torch_weights.read(write(tmp_path / "b.pth", state, [first, second], magic=1))


def test_a_file_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    with pytest.raises(ValueError, match=r"refers to (posix|nt)\.system"):
        torch_weights.read(write(tmp_path / "a.pth", {"x": Evil()}, []))


def test_the_page(tmp_path):
    cell = {"robust": 3, "feasible": 20, "seconds": 40.0, "gradient": 0.5, "iterations": 20, "gigabytes": 2.0}
    cells = {f"random_plan {radius:g}": cell for radius in imagenet.RADII[:3]}
    cells |= {f"mirror_ascent:iterations=20 {radius:g}": cell for radius in imagenet.RADII}
    imagenet.write_page({"images": 20, "top1": 18, "top5": 19, "cells": cells}, tmp_path / "a.md")
    page = (tmp_path / "a.md").read_text()
    assert "| `random_plan` | 3 | 3 | 3 |  | 60 of 60 |" in page
    assert "| `mirror_ascent:iterations=20` | 40 | 40 | 4.0 | 2.0 |" in page
