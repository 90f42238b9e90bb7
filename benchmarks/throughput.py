r"""Cost of attacks and of a WasserTrain step at 224×224×3 with 1,000 classes, and of the JPEGs that feed it.

  python -m benchmarks.throughput --folder=runs/throughput --batch=8

Measures, for MobileNetV2 and ResNet-50 with random weights: the classifier's own gradient with respect to the images,
an iteration of mirror ascent, the first call with its compilation; for MobileNetV2 a step of WasserTrain with 3
iterations, on one batch that stays in memory and on a stream of JPEGs; and the JPEGs alone. Results are stored in the
folder after each measurement, and the same command continues.
"""

import argparse
import json
import pathlib
import resource
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from wasser_tf import MirrorAscent, ThreatModel, WasserTrain, data, models
from wasser_tf.models.logits import compile_whole_graph
from wasser_tf.runtime import storage

SIDE, CLASSES, EPSILON = 224, 1000, 0.001
_SHAPE = (SIDE, SIDE, 3)
MODELS = ("MobileNetV2", "ResNet50")


def _median(work: Callable[[], Any], repeats: int = 3) -> float:
    """Returns the median seconds of some calls."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def attack_costs(name: str, batch: int) -> dict[str, float]:
    """Times the classifier's gradient, an iteration of mirror ascent and the first call, in turn."""
    classifier = models.build(f"keras:{name}", _SHAPE, CLASSES)
    rng = np.random.default_rng(0)
    images = rng.uniform(0.1, 0.9, (batch, *_SHAPE)).astype(np.float32)
    labels = rng.integers(0, CLASSES, batch).astype(np.int32)

    @tf.function(jit_compile=compile_whole_graph(classifier), autograph=False)
    def gradient(given: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(given)
            logits = classifier(given, training=False)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tape.gradient(loss, given)

    given = tf.constant(images)
    gradient(given)
    found = {}
    few, many = (MirrorAscent(ThreatModel(epsilon=EPSILON), iterations=count, loss="cross_entropy") for count in (2, 8))
    begin = time.perf_counter()
    few(classifier, images, labels, batch_size=batch)
    found["first_call"] = time.perf_counter() - begin
    many(classifier, images, labels, batch_size=batch)
    rounds = []
    for _ in range(3):
        own = _median(lambda: gradient(given).numpy(), 1)
        short = _median(lambda: few(classifier, images, labels, batch_size=batch), 1)
        long = _median(lambda: many(classifier, images, labels, batch_size=batch), 1)
        rounds.append((own, (long - short) / 6))
    found["gradient"], found["iteration"] = (float(value) for value in np.median(rounds, axis=0))
    return found


def make_images(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Writes JPEGs of 256×256 pixels in two classes, and returns their folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "images" / f"class{number % 2}" / f"{number:04d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder / "images"


def step_costs(folder: pathlib.Path, batch: int, steps: int = 2) -> dict[str, float]:
    """Times steps of WasserTrain on one batch in memory and on a stream, by turns, and the stream alone."""
    root = make_images(folder, 40 * batch)
    dataset = data.load(root, image_size=(SIDE, SIDE), crop="center", streaming="always", splits=("train",))
    stream = data.batches(dataset.train, batch, shuffle=True, drop_remainder=True)
    images, labels = next(iter(stream))
    model = WasserTrain(
        models.build("keras:MobileNetV2", _SHAPE, CLASSES),
        MirrorAscent(ThreatModel(epsilon=EPSILON), iterations=3, loss="cross_entropy"),
    )
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    begin = time.perf_counter()
    model.train_on_batch(images, labels)
    found = {"first_step": time.perf_counter() - begin}
    supply = iter(stream.repeat())
    rounds = []
    for _ in range(3):
        held = _median(lambda: model.train_on_batch(images, labels), steps)
        streamed = _median(lambda: model.train_on_batch(*next(supply)), steps)
        rounds.append((held, streamed))
    found["step_in_memory"], found["step_streamed"] = (float(value) for value in np.median(rounds, axis=0))
    begin = time.perf_counter()
    for _ in range(20):
        next(supply)
    found["read"] = (time.perf_counter() - begin) / 20
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    """Measures what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "throughput.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    tasks = {f"step {given.batch}": lambda: step_costs(given.folder, given.batch)}
    tasks |= {f"{name} {given.batch}": lambda name=name: attack_costs(name, given.batch) for name in MODELS}
    for key, task in tasks.items():
        if key not in found:
            found[key] = task()
            print(key, found[key], flush=True)
            storage.write_json(path, found)


if __name__ == "__main__":
    main()
