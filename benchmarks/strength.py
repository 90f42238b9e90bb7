r"""How strong attacks are: the time to the same robust accuracy, a whole test set's, and the grid.

The first two are sections of benchmarks/run.py. The grid is robust accuracy over classifier × ε × attack × iterations
on validation images (benchmarks/strength_grid.py), resumable:

  python benchmarks/strength.py --grid --data_dir=DIR
  python benchmarks/strength.py --grid --data_dir=DIR --classifiers=cifar10_standard --radii=0.005 --iterations=50
  python benchmarks/strength.py --grid --classifiers=digits --attacks=mirror_ascent,mirror_ascent:step_size=3
"""

import pathlib
import sys
import time
from typing import Any, NamedTuple

import keras
import numpy as np

if __name__ == "__main__":
    # The benchmarks and the binaries' helpers are scripts of the repository, not of the package.
    _ROOT = pathlib.Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(_ROOT))

from benchmarks import material, timing  # noqa: E402
from wasser_tf import MirrorAscent, ThreatModel, attacks, models  # noqa: E402
from wasser_tf.attacks import Attack  # noqa: E402
from wasser_tf.data.selection import ImageSource, Selection  # noqa: E402

EPSILON = 0.5
_BASELINES = ("wasser_attack", "projected_sinkhorn", "frank_wolfe", "dual_projection", "constrained_sinkhorn")
# Iterations and restarts of mirror ascent.
_MIRROR = ((1, 1), (2, 1), (3, 1), (5, 1), (10, 1), (20, 1), (10, 3), (50, 1), (20, 3), (100, 1), (20, 6), (50, 6))
# Each baseline runs with these fractions of its default iterations, because it may converge earlier.
_FRACTIONS = (0.1, 0.3, 1.0)
# A baseline that took longer is not run with more iterations.
_PATIENCE_SECONDS = 40.0
# The number of calls after the first, which compiles, and the time in seconds after which no more calls are made.
_CALLS = 5
_PATIENCE_A_ROW = 20.0


class Victim(NamedTuple):
    """A classifier and the images that are attacked."""

    name: str
    classifier: keras.Model
    images: Selection


def victim(checkpoint: str | None, source: ImageSource, count: int) -> Victim:
    """Returns the checkpoint and its images, or, without a checkpoint, a LeNet on digits of 28×28 (no download)."""
    if checkpoint is None:
        model, dataset = material.lenet_on_digits()
        test = dataset.test
        images = Selection("digits of 28×28", test.index, test.images[:count], test.labels[:count], None)
        return Victim("a briefly trained LeNet", model, images)
    return Victim(checkpoint.rpartition("/")[2], models.load_classifier(checkpoint), source.load())


def equal_strength(given: Victim, quick: bool) -> dict[str, Any]:
    """Measures the time of each baseline to its lowest robust accuracy, and of mirror ascent to the same accuracy."""
    ball = ThreatModel(epsilon=EPSILON)
    mirror = [
        {**_measure(given, MirrorAscent(ball, iterations=iterations, restarts=restarts)), "restarts": restarts}
        for iterations, restarts in _MIRROR
    ]
    mirror.sort(key=lambda row: row["ms_per_image"])
    rows = []
    for name in _BASELINES[:2] if quick else _BASELINES:
        default = attacks.make(name, ThreatModel(epsilon=EPSILON)).iterations
        tried: list[dict[str, Any]] = []
        for fraction in _FRACTIONS[:1] if quick else _FRACTIONS:
            if tried and tried[-1]["ms_per_image"] * len(given.images.labels) > 1e3 * _PATIENCE_SECONDS:
                break
            iterations = max(1, round(default * fraction))
            tried.append(_measure(given, attacks.make(name, ThreatModel(epsilon=EPSILON), iterations=iterations)))
        lowest = min(row["robust_accuracy"] for row in tried)
        baseline = next(row for row in tried if row["robust_accuracy"] == lowest)
        equal = next((row for row in mirror if row["robust_accuracy"] <= lowest), None)
        rows.append(
            {
                "attack": name,
                "usual_iterations": default,
                "iterations": baseline["iterations"],
                "robust_accuracy": lowest,
                "ms_per_image": baseline["ms_per_image"],
                "mirror_iterations": equal and equal["iterations"],
                "mirror_restarts": equal and equal["restarts"],
                "mirror_ms_per_image": equal and equal["ms_per_image"],
                "attack / mirror": equal and baseline["ms_per_image"] / equal["ms_per_image"],
            }
        )
    return {
        "model": given.name,
        "images": f"{len(given.images.labels)} of {given.images.name}",
        "epsilon": EPSILON,
        "rows": rows,
        "mirror": mirror,
    }


def whole_test_set(given: Victim, iterations: int = 20) -> dict[str, Any]:
    """Attacks all images at one radius with mirror ascent."""
    made = MirrorAscent(ThreatModel(epsilon=EPSILON), iterations=iterations)
    started = time.perf_counter()
    result = made(given.classifier, given.images.images, given.images.labels, from_logits=True)
    return {
        "model": given.name,
        "images": len(given.images.labels),
        "iterations": iterations,
        "seconds": time.perf_counter() - started,
        "robust_accuracy": 1 - float(np.mean(result.success)),
    }


def by_art(given: Victim, iterations: int = 10, count: int = 4) -> dict[str, Any]:
    """Times the Wasserstein attack of the adversarial robustness toolbox on the same classifier."""
    try:
        from art.attacks.evasion import Wasserstein
        from art.estimators.classification import TensorFlowV2Classifier
    except ImportError:
        return {"message": "not run: install the adversarial robustness toolbox with pip install -e '.[bench]'"}
    images, labels = given.images.images[:count], given.images.labels[:count]
    estimator = TensorFlowV2Classifier(
        given.classifier,
        nb_classes=given.classifier.output_shape[1],
        input_shape=images.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    attack = Wasserstein(
        estimator, regularization=1000, p=1, kernel_size=5, norm="inf", eps=EPSILON, eps_factor=1.0, max_iter=iterations
    )
    attack.batch_size = count
    started = time.perf_counter()
    attack.generate(images, labels)
    seconds = (time.perf_counter() - started) / count
    return {"iterations": iterations, "seconds_per_image": seconds}


def _measure(given: Victim, made: Attack) -> dict[str, Any]:
    seconds: list[float] = []
    while not seconds or (sum(seconds) < _PATIENCE_A_ROW and len(seconds) <= _CALLS):
        started = time.perf_counter()
        result = made(given.classifier, given.images.images, given.images.labels, from_logits=True)
        seconds.append(time.perf_counter() - started)
    return {
        "iterations": made.iterations,
        "robust_accuracy": 1 - float(np.mean(result.success)),
        "ms_per_image": 1e3 * timing.median(seconds[1:] or seconds) / len(given.images.labels),
    }


def _main() -> None:
    """Prints the grid."""
    from absl import flags

    from benchmarks import strength_grid
    from wasser_tf.commands import _flags

    flags.DEFINE_bool("grid", False, "Whether to measure and print the grid; there is nothing else to do here.")
    flags.DEFINE_list(
        "classifiers",
        ["digits", "cifar10_standard", "cifar10_pgd", "cifar10_wassertrain", "mnist_wassertrain"],
        "Each digits (a LeNet trained for a moment), a pretrained classifier or the path of a classifier of MNIST.",
    )
    flags.DEFINE_list("radii", None, "Radii ε. Those of each dataset's grid by default.")
    flags.DEFINE_list("attacks", ["wasser_attack", "mirror_ascent"], "Attacks as name or name:setting=value:….")
    flags.DEFINE_list("iterations", ["20", "50", "200"], "Iterations of each attack.")
    flags.DEFINE_integer("num_examples", 128, "Validation images, the first ones.", lower_bound=1)
    flags.DEFINE_string("data_dir", None, "Folder of the prepared sets (the parent of mnist/). TFDS's own by default.")
    flags.DEFINE_string("output", "runs/strength_grid.jsonl", "File of the cells, a JSON line each; made or added to.")
    _flags.define_threat_model()

    def main() -> None:
        given = flags.FLAGS
        if not given.grid:
            raise ValueError("Give --grid; the other measurements of strength are sections of benchmarks/run.py.")
        grid = strength_grid.Grid(
            classifiers=given.classifiers,
            attacks=given.attacks,
            iterations=[int(number) for number in given.iterations],
            radii=None if given.radii is None else [float(radius) for radius in given.radii],
            num_examples=given.num_examples,
            ball=_flags.threat_model(0.0),
            data_dir=given.data_dir,
        )
        cells = strength_grid.measure(grid, pathlib.Path(given.output).expanduser())
        print(strength_grid.table(cells))

    _flags.run(main)


if __name__ == "__main__":
    _main()
