"""Binaries in this process: their flags are defined for one test, and no function of theirs does its work."""

import importlib
import pathlib
import sys
import types

import keras
import pytest
import tensorflow as tf
from absl import flags

_BIN = pathlib.Path(__file__).parents[2] / "bin"


@pytest.fixture
def load(monkeypatch):
    """Returns a function that imports a binary, and leaves no flag and no module of it behind."""
    before, loaded = set(flags.FLAGS), ["_flags"]
    monkeypatch.syspath_prepend(str(_BIN))
    # It changes how the process allocates memory and what it prints.
    monkeypatch.setitem(sys.modules, "_quiet", types.ModuleType("_quiet"))

    def load_one(name):
        loaded.append(name)
        for module in loaded:
            sys.modules.pop(module, None)
        module = importlib.import_module(name)
        module.new_flags = set(flags.FLAGS) - before
        return module

    yield load_one
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture
def parse():
    """Gives a binary its arguments; returns the names of the flags among them."""

    def parse_all(*arguments):
        assert flags.FLAGS(["binary", *arguments]) == ["binary"]
        names = [argument.removeprefix("--").partition("=")[0] for argument in arguments]
        return {name if name in flags.FLAGS else name.removeprefix("no") for name in names}

    return parse_all


@pytest.fixture
def process(monkeypatch):
    """What is asked of the whole process: the seed, and determinism."""
    asked = []
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: asked.append(seed))
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append("deterministic"))
    return asked


class Spy:
    """Remembers the arguments of its calls and returns the same every time."""

    def __init__(self, returned=None):
        self.returned, self.calls = returned, []

    def __call__(self, *arguments, **options):
        self.calls.append((arguments, options))
        return self.returned

    @property
    def only(self):
        (call,) = self.calls
        return call


@pytest.fixture
def spy(monkeypatch):
    """Returns a function that puts a spy in the place of an attribute."""

    def put(owner, name, returned=None):
        made = Spy(returned)
        monkeypatch.setattr(owner, name, made)
        return made

    return put
