"""Trains a classifier under noise on flows and certifies test images: python -m benchmarks.smoothing --help.

Both go on where they were: training from the file it saves at its end, certification from the votes of each image.
"""

import argparse
import json
import math
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import Smoothed, ThreatModel, data, models
from wasser_tf.data.selection import ImageSource
from wasser_tf.runtime import interruption, provenance, storage

_EPSILONS = (0.005, 0.01, 0.02, 0.03, 0.05)


def main() -> None:
    """Runs it by the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the model, the votes and the report")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data_dir", help="of the prepared dataset")
    parser.add_argument("--original_index", help=".npy: number of each test image in the original order")
    parser.add_argument("--model", default="lenet", help="see wasser_tf.models.build")
    parser.add_argument("--noise", default="laplace", choices=("laplace", "uniform"))
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--num_examples", type=int, default=1000, help="test images, the first ones")
    parser.add_argument("--num_samples", type=int, default=10_000)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(flags.threads)
    with interruption.watched():
        report = run(flags)
    storage.write_json(flags.folder / "report.json", report)
    print(json.dumps(report, indent=2, ensure_ascii=False))


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Trains, unless there is a model, certifies the images that have no votes yet, and returns the report."""
    path = flags.folder / "model.keras"
    if not path.exists():
        _train(flags, path)
    model = keras.saving.load_model(path)
    chosen = ImageSource(
        dataset=flags.dataset,
        data_dir=flags.data_dir,
        original_index=flags.original_index,
        num_examples=flags.num_examples,
    ).load()
    start = time.perf_counter()
    result = model.certify(
        chosen.images, chosen.labels, ThreatModel(), index=chosen.index, folder=flags.folder / "votes"
    )
    radius = result.radius
    return {
        "method": result.method,
        "confidence": result.confidence,
        "images": f"{len(radius)} of {chosen.name}",
        "natural_accuracy": float(np.mean(result.correct)),
        "abstained": float(np.mean(result.predicted < 0)),
        "median_radius": float(np.median(radius)),
        "mean_radius": float(np.mean(radius)),
        "median_radius_levine_feizi": float(np.median(_published(model, radius))),
        "certified_at": {f"{epsilon:g}": float(np.mean(radius >= epsilon)) for epsilon in _EPSILONS},
        "seconds": time.perf_counter() - start,
        "commit": provenance.commit(),
        "command": provenance.command(),
    }


def _published(model: Smoothed, radius: np.ndarray) -> np.ndarray:
    """Returns the radii of the formula of the paper, of the same bounds of the probabilities.

    With Laplace noise it is σ / 2^{3/2} · ln(p / (1 − p)) / √2, with uniform noise the same as ours.
    """
    if model.noise.kind == "uniform":
        return radius
    scale = model.noise.scale
    lost = 0.5 * np.exp(-radius * math.sqrt(2) * math.sqrt(2) / scale)
    return np.where(radius > 0, np.log((1 - lost) / lost) * scale / 2**1.5 / math.sqrt(2), 0.0)


def _train(flags: argparse.Namespace, path: pathlib.Path) -> None:
    keras.utils.set_random_seed(flags.seed)
    images = data.load(flags.dataset, data_dir=flags.data_dir, splits=("train", "validation"))
    train = images.train
    classifier = models.build(flags.model, images.image_shape, images.num_classes, seed=flags.seed)
    model = Smoothed(
        classifier,
        flags.noise,
        scale=flags.scale,
        num_samples=flags.num_samples,
        alpha=flags.alpha,
        seed=flags.seed,
    )
    steps = flags.epochs * math.ceil(len(train.labels) / 128)
    schedule = keras.optimizers.schedules.CosineDecay(flags.learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    model.fit(
        train.images,
        train.labels,
        validation_data=(images.validation.images, images.validation.labels),
        batch_size=128,
        epochs=flags.epochs,
        verbose=2,
    )
    print(f"trained in {time.perf_counter() - start:.0f} s", flush=True)
    with storage.atomic_path(path) as beside:
        model.save(beside)


if __name__ == "__main__":
    main()
