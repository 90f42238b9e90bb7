"""Reads the tensors of a PyTorch checkpoint in its first format (before version 1.6), without PyTorch.

The file is a sequence of pickles (a magic number, a version, the system, the state dict, the keys of the storages) and,
for each storage in the order of the keys, the number of its elements (int64) and their bytes. Only the few names that
such a file needs are unpickled, so that it cannot run code.
"""

import collections
import os
import pickle
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


class _Tensor(NamedTuple):
    """A view of a storage: its key, the offset of the first element, the shape and the strides in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors as views, and notes the types of storages."""

    def __init__(self, stream: Any, types: dict[str, np.dtype]):
        super().__init__(stream)
        self._types = types

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, tuple(shape), tuple(strides))
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise ValueError(f"The checkpoint refers to {module}.{name}, which tensors do not need: it is not read.")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key = pid[0], pid[1], pid[2]
        if kind != "storage":
            raise ValueError(f"The checkpoint refers to a {kind}, where a storage is needed.")
        self._types[key] = dtype
        return key


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint by name.

    Args:
      path: The file of a state dict.

    Raises:
      ValueError: The file is of another format, or truncated.
    """
    types: dict[str, np.dtype] = {}
    with open(path, "rb") as stream:
        if _Unpickler(stream, types).load() != _MAGIC:
            raise ValueError(f"{path} is not a PyTorch checkpoint of the format before 1.6.")
        for _ in range(2):  # The version and the system.
            _Unpickler(stream, types).load()
        tensors = _Unpickler(stream, types).load()
        keys = _Unpickler(stream, types).load()
        storages = {}
        for key in keys:
            count = int(np.frombuffer(stream.read(8), "<i8")[0])
            content = stream.read(count * types[key].itemsize)
            if len(content) < count * types[key].itemsize:
                raise ValueError(f"{path} is truncated: fetch it again.")
            storages[key] = np.frombuffer(content, types[key])
    return {name: _view(storages, tensor) for name, tensor in tensors.items() if isinstance(tensor, _Tensor)}


def _view(storages: dict[str, np.ndarray], tensor: _Tensor) -> np.ndarray:
    storage = storages[tensor.storage]
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
