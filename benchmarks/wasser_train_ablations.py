r"""What each part of WasserTrain brings at small radii: short trainings on CIFAR-10 that differ in one setting.

  python -m benchmarks.wasser_train_ablations --folder=runs/ablations --data_dir=… --results=docs/results

Each training is attacked on validation images; the test images are not used. Results are stored in the folder after
each training, and the same command continues.
"""

import pathlib
import time
from typing import Any

import keras
import numpy as np

from benchmarks import ablations
from wasser_tf import MirrorAscent, ThreatModel, attacks, data, load_pretrained
from wasser_tf.data import Dataset, Split
from wasser_tf.evaluation.metrics import predict
from wasser_tf.models import with_precision
from wasser_tf.runs.train import build_models
from wasser_tf.runtime import storage
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.loop import TrainingContext, train

RADII = (0.003, 0.005)
STEPS = 190
RECIPE: dict[str, Any] = {
    "initial": "pretrained:cifar10_wassertrain_near",
    "augment": "crop_flip",
    "optimizer": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.05,
    "warmup": 0.05,
    "decay": "linear",
    "weight_decay": 0.005,
    "ema_momentum": 0.99,
    "batch_size": 128,
    "label_smoothing": 0.1,
    "omega": 0.8,
    "precision": "mixed_bfloat16",
    "standard_epochs": 0,
    "epochs": 1,
    "keep": "last",
    "deterministic": False,
}
BEFORE = "before"
ATTACK: dict[str, Any] = {"loss": "cross_entropy", "iterations": 2, "step_size": 4, "polish": 3}
# Changes of the radius, of the attack, and of other settings.
ROWS: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    "the recipe": (0.01, {}, {}),
    "1 iteration of the default step": (0.01, {"iterations": 1, "step_size": None}, {}),
    "4 iterations": (0.01, {"iterations": 4}, {}),
    "ε = 0.006": (0.006, {}, {}),
    "ε = 0.015": (0.015, {}, {}),
    "radii from 0 to 0.015": (0.015, {}, {"random_radius": True}),
    "ω = 0.5": (0.01, {}, {"omega": 0.5}),
    "ω = 1": (0.01, {}, {"omega": 1.0}),
    "matching of outputs, weight 0.1": (0.01, {}, {"matching": 0.1}),
    "TRADES, β = 4": (0.01, {}, {"trades_beta": 4.0}),
    "cutout": (0.01, {}, {"augment": "crop_flip_cutout"}),
    "labels not smoothed": (0.01, {}, {"label_smoothing": 0.0}),
}


def run(name: str, dataset: Dataset) -> keras.Model:
    """Trains a classifier, and returns it with averaged weights."""
    epsilon, of_attack, changes = ROWS[name]
    options = {key: value for key, value in {**ATTACK, **of_attack}.items() if value is not None}
    attack = attacks.make("mirror_ascent", ThreatModel(epsilon=epsilon), **options)
    config = TrainConfig(output_dir="unused", dataset="cifar10", attack=attack, **{**RECIPE, **changes})
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    model = build_models(config, dataset, Distribution())[1]
    keras.config.set_dtype_policy("float32")
    train(TrainingContext(config=config, dataset=dataset), "wasser_train", model)
    return with_precision(model.classifier, "float32")


def measure(name: str, dataset: Dataset) -> dict[str, Any]:
    """Trains a classifier and attacks it, or attacks the one that all trainings begin with."""
    if name == BEFORE:
        return attacked(load_pretrained("cifar10_wassertrain_near"), dataset.validation)
    train_split = Split(*(array[: STEPS * RECIPE["batch_size"]] for array in dataset.train))
    begin = time.process_time()
    classifier = run(name, dataset._replace(train=train_split))
    seconds = time.process_time() - begin
    return {**attacked(classifier, dataset.validation), "cpu_seconds": seconds}


def attacked(classifier: keras.Model, images: Split) -> dict[str, Any]:
    """Returns natural and robust accuracy. An image that is fooled at a radius is fooled at the larger ones."""
    fooled = predict(classifier, images.images, images.labels).wrong
    found: dict[str, Any] = {"natural": float(1 - fooled.mean()), "robust": []}
    for radius in RADII:
        attack = MirrorAscent(ThreatModel(epsilon=radius), iterations=12, restarts=3)
        rows = np.flatnonzero(~fooled)
        for start in range(0, len(rows), 128):
            part = np.resize(rows[start : start + 128], 128)
            fooled[part[attack(classifier, images.images[part], images.labels[part]).success]] = True
        found["robust"].append(float(1 - fooled.mean()))
    return found


def write_page(found: dict[str, Any], path: pathlib.Path, count: int) -> None:
    """Writes the table."""
    text = (
        "# What each part of WasserTrain brings at small radii\n\n"
        f"Natural and robust accuracy in % of {count:,} validation images of CIFAR-10 (p = 1, k = 5, normalised, "
        "capacity 1; seed 0; mirror ascent with 3 restarts of 12 iterations). Each row is one training of "
        f"{STEPS} steps of 128 images, half an epoch, from `cifar10_wassertrain_near`, which is the first row, and "
        "differs from the second row in one setting. The recipe: two cold iterations of mirror ascent on the "
        "cross-entropy with a step of 4, at ε = 0.01; ω = 0.8, smoothed labels 0.1, crops and mirror images, SGD with "
        "a rate from 0.05 to 0 along a line, averaged weights 0.99, mixed_bfloat16. All rows are of the same images, "
        "and the standard error of a difference is about one point.\n\n"
        f"{ablations.table(found, (BEFORE, *ROWS), RADII, 'robust')}\n"
        "Made by `python -m benchmarks.wasser_train_ablations --folder=DIR --data_dir=DIR --results=docs/results`.\n"
    )
    storage.write_text(path, text)


def main() -> None:
    """Trains what is missing, and writes the page."""
    given = ablations.parse_arguments(__doc__, list(ROWS), "wasser_train_ablations.md")
    dataset = data.load("cifar10", data_dir=given.data_dir, validation_size=1000)
    found = ablations.complete(given.folder, (BEFORE, *given.recipes), lambda name: measure(name, dataset))
    if given.results:
        write_page(found, given.results / "wasser_train_ablations.md", len(dataset.validation.labels))


if __name__ == "__main__":
    main()
