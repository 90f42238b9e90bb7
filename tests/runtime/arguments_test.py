"""Validators of arguments: valid values, invalid values and messages."""

import numpy as np
import pytest

from wasser_tf.runtime import arguments


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (0.5, {}),
        (-3, {}),
        (np.float32(0.5), {}),
        (1e-9, {"above": 0}),
        (0, {"least": 0}),
        (0, {"least": 0, "most": 1}),
        (1, {"least": 0, "most": 1}),
        (0.999, {"least": 0, "below": 1}),
        (0.1, {"above": 0, "most": 1, "least": 0}),
    ],
)
def test_numbers_in_range_are_taken(value, limits):
    arguments.check_number("rate", value, **limits)


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        ("1", {}, "rate must be a finite number, got '1'"),
        (True, {}, "a finite number, got True"),
        (None, {}, "got None"),
        (float("nan"), {}, "got nan"),
        (float("inf"), {"least": 0}, "of at least 0, got inf"),
        (0, {"above": 0}, "a finite number above 0, got 0"),
        (-0.1, {"least": 0}, "of at least 0, got -0.1"),
        (1.1, {"least": 0, "most": 1}, "from 0 to 1, got 1.1"),
        (-1, {"least": 0, "most": 1}, "from 0 to 1, got -1"),
        (1, {"least": 0, "below": 1}, "from 0 to below 1, got 1"),
        (2, {"above": 0, "most": 1}, "got 2"),
    ],
)
def test_numbers_out_of_range_are_refused(value, limits, message):
    with pytest.raises(ValueError, match=f"^rate must be .*{message}|^{message}"):
        arguments.check_number("rate", value, **limits)


@pytest.mark.parametrize(("value", "most"), [(1, None), (10**9, None), (3, 3), (np.int64(2), 3)])
def test_whole_numbers_in_range_are_taken(value, most):
    arguments.check_whole("count", value, least=1, most=most)


@pytest.mark.parametrize(
    ("value", "most", "needed"),
    [
        (0, None, "of at least 1"),
        (1.5, None, "of at least 1"),
        (2.0, None, "of at least 1"),
        (True, None, "of at least 1"),
        ("2", None, "of at least 1"),
        (None, None, "of at least 1"),
        (4, 3, "from 1 to 3"),
        (0, 3, "from 1 to 3"),
    ],
)
def test_other_values_than_whole_numbers_in_range_are_refused(value, most, needed):
    with pytest.raises(ValueError, match=f"^count must be a whole number {needed}, got {value!r}.$"):
        arguments.check_whole("count", value, least=1, most=most)


def test_choices_are_compared_by_type_too():
    arguments.check_one_of("mode", "a", ("a", 1, None))
    arguments.check_one_of("mode", 1, ("a", 1, None))
    for value in (True, 1.0, "b", ["a"], {}):
        with pytest.raises(ValueError, match=r"^mode must be one of a, 1, None, got "):
            arguments.check_one_of("mode", value, ("a", 1, None))


def test_booleans():
    arguments.check_bool("flag", True)
    arguments.check_bool("flag", False)
    for value in (0, 1, "true", None, np.True_):
        with pytest.raises(ValueError, match="^flag must be True or False, got "):
            arguments.check_bool("flag", value)


def test_paths_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arguments.as_path("folder", "~/a") == tmp_path / "a"
    assert arguments.as_path("folder", tmp_path) == tmp_path
    for value in (3, None, b"x"):
        with pytest.raises(ValueError, match="^folder must be the path of a file or a folder, got "):
            arguments.as_path("folder", value)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(arguments, "physical_memory", lambda: 2**31)
    arguments.check_fits(2**31, "8 images", "take fewer")
    with pytest.raises(ValueError, match="^8 images need about 4 GiB and this machine has 2 GiB: take fewer.$"):
        arguments.check_fits(2**32, "8 images", "take fewer")
    monkeypatch.setattr(arguments, "physical_memory", lambda: None)
    arguments.check_fits(2**90, "8 images", "take fewer")


def test_physical_memory(monkeypatch):
    assert arguments.physical_memory() > 2**28
    monkeypatch.setattr(arguments.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 5, "SC_PAGE_SIZE": 7}[name])
    assert arguments.physical_memory() == 35

    def unknown(name):
        raise ValueError

    monkeypatch.setattr(arguments.os, "sysconf", unknown)
    assert arguments.physical_memory() is None


def test_the_first_line_of_an_error():
    assert arguments.first_line(ValueError("\n one. \ntwo")) == "one"
    assert arguments.first_line(KeyError()) == "KeyError"
    traced = 'in user code:\n\n    File "a.py", line 1, in b  *\n        x\n\n    NotImplementedError: Cannot: no.\n'
    assert arguments.first_line(ValueError(traced)) == "Cannot: no"
    layer = "Exception encountered when calling Dense.call().\n\n\x1b[1mWrong shape.\x1b[0m\n\nArguments received:"
    assert arguments.first_line(ValueError(layer)) == "Wrong shape"
    assert arguments.first_line(ValueError("in user code:")) == "in user code:"
    assert arguments.first_line(ValueError("x" * 400)) == "x" * 300
    assert arguments.first_line(ValueError("x" * 400), None) == "x" * 400
