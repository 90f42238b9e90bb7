"""The examples of the README run unchanged."""

import pathlib
import re

import numpy as np

import wasser_tf

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_the_python_example_runs():
    ours, proof, pretrained = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    # Each by itself, with no names but its own.
    found, loaded = {}, {}
    exec(ours.replace("epochs=20", "epochs=1"), found)
    result = found["result"]
    assert isinstance(result, wasser_tf.AttackResult)
    assert result.feasibility.feasible().all() and result.success.mean() > 0.5
    np.testing.assert_array_equal(result.adversarial.shape, found["images"].shape)
    # A fifth of them, in a fifth of the time.
    found["images"], found["labels"] = found["images"][:20], found["labels"][:20]
    exec(proof, found)
    proved = found["proof"]
    assert proved.certified.shape == (20,) and not (proved.radius[result.success[:20]] > 0.1).any()
    exec(pretrained, loaded)
    assert loaded["classifier"].input_shape == (None, 28, 28, 1)
