"""Commands in this process: their flags are defined for one test, and no function of theirs does its work."""

import importlib
import sys

import keras
import pytest
import tensorflow as tf
from absl import flags

import wasser_tf.commands


@pytest.fixture
def load():
    """Returns a function that imports a command, and leaves no flag and no module of it behind."""
    before, loaded = set(flags.FLAGS), ["_flags"]

    def forget():
        for name in loaded:
            sys.modules.pop(f"wasser_tf.commands.{name}", None)
            vars(wasser_tf.commands).pop(name, None)

    def load_one(name):
        loaded.append(name)
        forget()
        module = importlib.import_module(f"wasser_tf.commands.{name}")
        module.new_flags = set(flags.FLAGS) - before
        return module

    yield load_one
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    forget()


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
