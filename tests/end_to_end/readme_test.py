"""What the README shows runs as it stands there."""

import pathlib
import re

import numpy as np

import wasser_tf

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_the_lines_for_your_own_code_run():
    ours, pretrained = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    # Each by itself, with no names but its own.
    found, loaded = {}, {}
    exec(ours.replace("epochs=20", "epochs=1"), found)
    result = found["result"]
    assert isinstance(result, wasser_tf.AttackResult)
    assert result.feasibility.feasible().all() and result.success.mean() > 0.5
    np.testing.assert_array_equal(result.adversarial.shape, found["images"].shape)
    exec(pretrained, loaded)
    assert loaded["classifier"].input_shape == (None, 28, 28, 1)


def test_every_flag_it_shows_exists():
    for command in re.findall(r"bin/(\w+)\.py ((?:[^`\n]|\\\n)*)", README.read_text().replace("\\\n", " ")):
        source = "".join((README.parent / "bin" / name).read_text() for name in (f"{command[0]}.py", "_flags.py"))
        for flag in re.findall(r"--(\w+)", command[1]):
            assert f'"{flag}"' in source or flag == "flagfile", (command[0], flag)
