"""The examples in the docstrings of bridges whose libraries `make test` does not have."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(("module", "library"), [("art", "art"), ("foolbox", "foolbox"), ("torch", "torch")])
def test_examples_run(module, library):
    pytest.importorskip(library)
    found = doctest.testmod(
        importlib.import_module(f"wasser_tf.bridges.{module}"),
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert found.attempted and not found.failed
