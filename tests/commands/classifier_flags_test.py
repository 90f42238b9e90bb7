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


_DESCRIPTION = {"signature", "output", "input_range", "data_format", "returns", "import"}


@pytest.mark.parametrize("name", ["attack", "certify", "evaluate", "leaderboard", "publish", "reproduce"])
def test_binaries_that_run_saved_classifiers_have_them(load, name):
    assert _DESCRIPTION | {"allow_chance_accuracy"} <= load(name).new_flags


def test_an_export_has_no_images_to_measure_an_accuracy_on(load):
    new = load("export").new_flags
    assert new >= _DESCRIPTION and "allow_chance_accuracy" not in new


@pytest.mark.parametrize("name", ["average", "train"])
def test_binaries_that_only_load_classifiers_import_their_layers(load, name):
    assert load(name).new_flags & (_DESCRIPTION - {"output"}) == {"import"}


def test_predict_loads_no_classifier(load):
    # Its --model is a name on a server, whose signatures take images in [0, 1].
    assert "import" not in load("predict").new_flags


def test_flags_become_options(binary):
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


def test_a_missing_module_is_named(binary):
    with pytest.raises(ValueError, match="--import=no_such_module cannot be imported .*working directory"):
        binary("--import=no_such_module").model_options()
