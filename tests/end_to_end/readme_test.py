"""What the README shows runs as it stands there."""

import pathlib
import re

import numpy as np

import wasser_tf
from wasser_tf import data, models

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_the_lines_for_your_own_code_run():
    code = re.search(r"```python\n(.*?)```", README.read_text(), flags=re.S)[1]
    digits = data.load("digits")
    images, labels = digits.test.images[:16], digits.test.labels[:16]
    given = {
        "classifier": models.build("linear", digits.image_shape, digits.num_classes, seed=0),
        "train": data.batches(digits.train._replace(images=images, labels=labels, index=digits.test.index[:16]), 16),
        "validation": (images, labels),
        "images": images,
        "labels": labels,
    }
    exec(code.replace("epochs=50", "epochs=1"), given)
    result = given["result"]
    assert isinstance(result, wasser_tf.AttackResult)
    assert result.certificate.valid().all() and result.success.mean() > 0.5
    np.testing.assert_array_equal(result.adversarial.shape, images.shape)


def test_every_flag_it_shows_exists():
    for command in re.findall(r"bin/(\w+)\.py ((?:[^`\n]|\\\n)*)", README.read_text().replace("\\\n", " ")):
        source = "".join((README.parent / "bin" / name).read_text() for name in (f"{command[0]}.py", "_flags.py"))
        for flag in re.findall(r"--(\w+)", command[1]):
            assert f'"{flag}"' in source or flag == "flagfile", (command[0], flag)
