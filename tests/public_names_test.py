"""Every public name is documented, with an example that runs; `make test` runs the examples as doctests."""

import importlib
import pathlib

import pytest

import wasser_tf

PACKAGE = pathlib.Path(wasser_tf.__file__).parent
# The packages that say what is public: wasser_tf itself, and each folder of it with an __all__.
PUBLIC = [
    "wasser_tf",
    *sorted(f"wasser_tf.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py") if "__all__" in path.read_text()),
]


def names():
    for package in PUBLIC:
        module = importlib.import_module(package)
        yield from ((package, name) for name in module.__all__)


def test_the_public_packages():
    assert PUBLIC == ["wasser_tf", "wasser_tf.attacks", "wasser_tf.data", "wasser_tf.models"]


@pytest.mark.parametrize(("package", "name"), names())
def test_a_public_name_has_a_docstring_with_an_example(package, name):
    value = getattr(importlib.import_module(package), name)
    if not callable(value):
        # Version, tables and names of splits, and wasser_tf.attacks, whose members are checked themselves.
        assert isinstance(value, (str, dict, tuple)) or value is wasser_tf.attacks
        return
    # Its own: a class without a docstring would show that of its base class.
    documented = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    assert documented and documented[0].isupper(), f"{package}.{name} has no docstring"
    assert "\n    >>> " in documented, f"{package}.{name} has no example"
