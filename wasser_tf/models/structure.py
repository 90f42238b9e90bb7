"""The structure of a classifier: everything about it that decides which graph is traced from it.

A traced graph is valid as long as the structure equals that at the time of tracing. The structure includes

- of a Keras model, at any depth: its layers, variables, trainable flags, dtype policies, quantisation, LoRA adapters,
  activations and every attribute that a layer has beyond those of `keras.Layer`;
- of a function: its code, its default arguments, the variables it closes over and the global names it uses;
- of an object of a class of the user's own: its attributes, and the functions of its class.

Values of variables are not part of it, because graphs read them at every call. Arrays, numbers, strings and containers
are compared by content, objects of libraries by identity. Only changes inside an object of a library or an extension
module (such as a random generator), or of the globals of a library, are not detected.
"""

import dataclasses
import functools
import hashlib
import pathlib
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range)
# Attributes of every Keras model that affect tracing. The others are internal state of Keras.
_TRACED_BY_KERAS = (
    "_dtype_policy",
    "_functional",
    "_layers",
    "_non_trainable_variables",
    "_operations",
    "_trainable",
    "_trainable_variables",
    "autocast",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """The result of `structure_of`, to be compared with that of the same classifier at another time.

    Attributes:
      parts: Plain values, and weak references to the objects that are compared by identity.
    """

    parts: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Structure)
            and len(self.parts) == len(other.parts)
            and all(map(_same, self.parts, other.parts))
        )

    __hash__ = None  # type: ignore[assignment]


def structure_of(classifier: Any) -> Structure:
    """Returns the structure of a classifier, a Keras model or any callable.

    The result refers to the classifier and its parts weakly where Python supports it. It takes some 10 µs per layer.

    Args:
      classifier: The classifier.

    Example:
    >>> from wasser_tf import models
    >>> from wasser_tf.models.structure import structure_of
    >>> classifier = models.build("linear", (8, 8, 1), 10)
    >>> before = structure_of(classifier)
    >>> classifier.layers[-1].activation = "relu"
    >>> structure_of(classifier) == before
    False
    """
    return Structure(tuple(_walk(classifier, {})))


def _same(one: Any, other: Any) -> bool:
    # Two live references to one object are identical; a new object at the address of a dead one has another reference.
    return one is other or (type(one) is type(other) and isinstance(one, _PLAIN) and one == other)


def _walk(value: Any, visited: dict[int, int]) -> Iterator[Any]:
    """Yields the parts of a value; a part that was visited before is yielded as its number."""
    if isinstance(value, _PLAIN):
        yield value
        return
    if isinstance(value, np.generic):
        yield value.item()
        return
    if id(value) in visited:
        yield visited[id(value)]
        return
    visited[id(value)] = len(visited)
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.shape} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif isinstance(value, dict):
        yield f"dict of {len(value)}"
        for key, item in value.items():
            yield from _walk(key, visited)
            yield from _walk(item, visited)
    elif isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        yield f"{type(value).__name__} of {len(value)}"
        for item in value:
            yield from _walk(item, visited)
    else:
        yield _identity(value)
        for name, part in _parts(value):
            yield name
            yield from _walk(part, visited)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the parts of an object that affect the graph, with their names; the object is compared by identity."""
    if isinstance(value, types.MethodType):
        yield "self", value.__self__
        yield "function", value.__func__
    elif isinstance(value, functools.partial):
        yield "function", value.func
        yield "arguments", value.args
        yield "keywords", value.keywords
    elif isinstance(value, types.FunctionType):
        if not _of_a_library(value.__module__):
            yield from _parts_of_function(value)
    elif isinstance(value, keras.Layer):
        names = _names_in_keras()
        yield from sorted((name, part) for name, part in vars(value).items() if name not in names)
        yield from ((name, vars(value)[name]) for name in _TRACED_BY_KERAS if name in vars(value))
        yield "class", type(value)
    elif isinstance(value, type):
        if not _of_a_library(value.__module__):
            for name, part in vars(value).items():
                if not name.startswith("__") or name in ("__call__", "__init__"):
                    yield name, getattr(part, "__func__", part)
            yield "bases", value.__bases__
    elif isinstance(value, property):
        yield "getter", value.fget
    elif hasattr(type(value), "traced_parts"):
        yield from value.traced_parts().items()
    elif not isinstance(value, (types.ModuleType, types.CodeType)) and not _of_a_library(type(value).__module__):
        yield from getattr(value, "__dict__", {}).items()
        yield "class", type(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    yield "code", function.__code__
    yield "defaults", function.__defaults__
    yield "keyword defaults", function.__kwdefaults__
    yield "attributes", function.__dict__
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # Not assigned yet.
            yield name, None
    names = _names_used(function.__code__)
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, types.ModuleType) and not _of_a_library(value.__name__):
                # Attributes that the function reads from a module of the user.
                yield from ((used, vars(value)[used]) for used in names if used in vars(value))


@functools.lru_cache(maxsize=1024)
def _names_used(code: types.CodeType) -> tuple[str, ...]:
    """Returns the names of globals and attributes that a function and the functions within it use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_names_used(constant))
    return tuple(sorted(names))


@functools.lru_cache(maxsize=4096)
def _of_a_library(module: str | None) -> bool:
    """Returns whether a module belongs to Python, an installed package or wasser_tf, which do not change."""
    package = (module if isinstance(module, str) else "__main__").partition(".")[0]
    if package == "__main__":
        return False
    if package in ("wasser_tf", *sys.stdlib_module_names):
        return True
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    if file.startswith((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
        return True
    # Packages of the user, of the system, or of an environment that a path file adds.
    return not {"site-packages", "dist-packages"}.isdisjoint(pathlib.PurePath(file).parts)


@functools.cache
def _names_in_keras() -> frozenset[str]:
    """Returns the attributes that all layers and compiled models have."""
    image = keras.Input([1])
    models = keras.Model(image, image), keras.Sequential([keras.Input([1]), keras.layers.Flatten()])
    for model in models:
        model.compile("sgd", "mse")
    # Set by fit, evaluate, predict or save.
    late = {"history", "stop_training", "stop_evaluating", "stop_predicting", "_eval_epoch_iterator", "_compile_config"}
    return frozenset(late.union(*map(vars, models), vars(keras.Layer())))


def _identity(value: Any) -> Any:
    """Returns the weak reference to an object (always the same one), or the object if it supports none."""
    try:
        return weakref.ref(value)
    except TypeError:
        return value
