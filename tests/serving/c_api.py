"""Loads a SavedModel by TensorFlow's C API, as TensorFlow Serving does, and runs its signatures. No TensorFlow in it.

  python c_api.py FOLDER_OF_TENSORFLOW SAVED_MODEL < request.json

request.json holds "inputs": [[tensor name, dtype number, shape, bytes in base64, or a list of those for strings]] and
"outputs": [tensor name]. Prints {"error": …} or {"outputs": [[dtype number, shape, bytes in base64, or a list]]}.
"""

import base64
import ctypes
import json
import math
import pathlib
import sys

_STRING = 7


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _String(ctypes.Structure):
    """TF_TString: 24 bytes; here only as a view of bytes that Python owns (kind 3 in the two low bits)."""

    _fields_ = [("size", ctypes.c_uint64), ("pointer", ctypes.c_void_p), ("unused", ctypes.c_uint64)]


def _declare(library):
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in [
        ("TF_NewStatus", pointer, []),
        ("TF_GetCode", ctypes.c_int, [pointer]),
        ("TF_Message", text, [pointer]),
        ("TF_NewGraph", pointer, []),
        ("TF_NewSessionOptions", pointer, []),
        (
            "TF_LoadSessionFromSavedModel",
            pointer,
            [pointer, pointer, text, ctypes.POINTER(text), ctypes.c_int, pointer, pointer, pointer],
        ),
        ("TF_GraphOperationByName", pointer, [pointer, text]),
        ("TF_AllocateTensor", pointer, [ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int, size]),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_TensorType", ctypes.c_int, [pointer]),
        ("TF_TensorByteSize", size, [pointer]),
        ("TF_NumDims", ctypes.c_int, [pointer]),
        ("TF_Dim", ctypes.c_int64, [pointer, ctypes.c_int]),
        ("TF_SessionRun", None, [pointer] * 4 + [ctypes.c_int] + [pointer] * 2 + [ctypes.c_int, pointer, ctypes.c_int]
         + [pointer] * 2),
    ]:  # fmt: skip
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _endpoint(library, graph, name):
    operation, _, index = name.partition(":")
    found = library.TF_GraphOperationByName(graph, operation.encode())
    if not found:
        raise KeyError(name)
    return _Output(found, int(index or 0))


def _tensor(library, dtype, shape, content, keep):
    if dtype == _STRING:
        views = (_String * len(content))()
        for view, item in zip(views, content, strict=True):
            raw = base64.b64decode(item)
            keep.append(ctypes.create_string_buffer(raw, len(raw) or 1))
            view.size, view.pointer = len(raw) << 2 | 3, ctypes.addressof(keep[-1])
        raw = bytes(views)
    else:
        raw = base64.b64decode(content)
    dims = (ctypes.c_int64 * len(shape))(*shape)
    tensor = library.TF_AllocateTensor(dtype, dims, len(shape), len(raw))
    if raw:
        ctypes.memmove(library.TF_TensorData(tensor), raw, len(raw))
    return tensor


def _short_string(raw):
    """TF_TString of up to 22 bytes: the length, shifted, in the first byte, then the bytes."""
    if raw[0] & 3:
        raise ValueError("a longer string than this test has")
    return raw[1 : 1 + (raw[0] >> 2)]


def _read(library, tensor):
    dtype = library.TF_TensorType(tensor)
    shape = [library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor))]
    raw = ctypes.string_at(library.TF_TensorData(tensor), library.TF_TensorByteSize(tensor))
    if dtype == _STRING:
        strings = [_short_string(raw[24 * place : 24 * place + 24]) for place in range(math.prod(shape))]
        return [dtype, shape, [base64.b64encode(string).decode() for string in strings]]
    return [dtype, shape, base64.b64encode(raw).decode()]


def main():
    folder, saved_model = sys.argv[1:]
    request = json.load(sys.stdin)
    ctypes.CDLL(str(pathlib.Path(folder, "libtensorflow_framework.so.2")), ctypes.RTLD_GLOBAL)
    library = _declare(ctypes.CDLL(str(pathlib.Path(folder, "libtensorflow_cc.so.2"))))
    status, graph = library.TF_NewStatus(), library.TF_NewGraph()
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = library.TF_LoadSessionFromSavedModel(
        library.TF_NewSessionOptions(), None, saved_model.encode(), tags, 1, graph, None, status
    )
    if library.TF_GetCode(status):
        return {"error": library.TF_Message(status).decode()}
    answers, keep = [], []
    for call in request:
        fed = (_Output * len(call["inputs"]))(*(_endpoint(library, graph, name) for name, *_ in call["inputs"]))
        values = (ctypes.c_void_p * len(fed))(*(_tensor(library, *rest, keep) for _, *rest in call["inputs"]))
        asked = (_Output * len(call["outputs"]))(*(_endpoint(library, graph, name) for name in call["outputs"]))
        got = (ctypes.c_void_p * len(asked))()
        library.TF_SessionRun(
            session, None, fed, values, len(fed), asked, got, len(asked), None, 0, None, status
        )  # fmt: skip
        if library.TF_GetCode(status):
            answers.append({"error": library.TF_Message(status).decode()})
        else:
            answers.append({"outputs": [_read(library, tensor) for tensor in got]})
    return {"answers": answers, "modules": [name for name in sys.modules if name.split(".")[0] in _UNWANTED]}


_UNWANTED = ("tensorflow", "keras", "wasser_tf", "numpy")

if __name__ == "__main__":
    json.dump(main(), sys.stdout)
