"""The flags that describe a saved classifier."""

import sys

import pytest
from absl import flags


@pytest.fixture
def binary(load):
    def parse(*arguments, name="attack"):
        module = load(name)
        flags.FLAGS(["bin", "--model=m", "--output_dir=o", *arguments])
        return module._flags

    return parse


def test_every_binary_of_models_has_them(load):
    module = load("attack")
    wanted = {"signature", "output", "input_range", "data_format", "returns", "import", "allow_chance_accuracy"}
    assert wanted <= module.new_flags


@pytest.mark.parametrize("name", ["evaluate", "leaderboard", "export"])
def test_the_others_have_them_too(load, name):
    assert {"signature", "output", "input_range", "data_format", "returns", "import"} <= load(name).new_flags


def test_they_become_options(binary):
    options = binary("--input_range=0,255", "--output=1", "--signature=s", "--returns=sigmoid").model_options()
    assert options.input_range == (0.0, 255.0) and options.output == 1 and options.signature == "s"
    assert options.returns == "sigmoid" and options.data_format is None


def test_a_bad_range_is_refused(binary):
    with pytest.raises(ValueError, match="--input_range must be two numbers such as 0,255, got 0,x"):
        binary("--input_range=0,x").model_options()


def test_modules_are_imported_or_named(binary, tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    binary("--import=layers_of_mine").model_options()
    assert sys.modules.pop("layers_of_mine").value == 3


def test_a_module_that_is_not_there_is_named(binary):
    with pytest.raises(ValueError, match="--import=no_such_module cannot be imported .*working directory"):
        binary("--import=no_such_module").model_options()
