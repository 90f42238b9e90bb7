"""What certificates cost and prove: a network of potentials, the packaged classifiers, and attacks within their radii.

    python -m benchmarks.certificates speed
    python -m benchmarks.certificates prove --models=pretrained:mnist_wassertrain --num_examples=100 --data_dir=…
    python -m benchmarks.certificates attack --models=pretrained:mnist_wassertrain --num_examples=1000 --data_dir=…
    python -m benchmarks.certificates predict --models=pretrained:mnist_wassertrain,pretrained:mnist_certified

`attack` starts mirror ascent at the certified radius of each image, which must fool none; the exit is 1 if it does.
"""

import argparse
import functools
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import in_turns, ratio
from wasser_tf import models
from wasser_tf.attacks import MirrorAscent
from wasser_tf.certification.bounds import Bounds
from wasser_tf.certification.network import Network
from wasser_tf.certification.prover import Prover
from wasser_tf.certification.rules import Call, rule
from wasser_tf.certification.transforms import Affine, Interval
from wasser_tf.data.selection import ImageSource
from wasser_tf.threat_model import ThreatModel


class ShareOfMass(keras.layers.Layer):
    """x / m(x): what a network of potentials reads."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Divides images [B, H, W, C] by their mass."""
        return inputs / keras.ops.sum(inputs, axis=(1, 2, 3), keepdims=True)


@rule(ShareOfMass)
def _share_of_mass(call: Call) -> list[Any]:
    def linear(inputs: Any, absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return inputs[0] / mass[:, None, None, None]

    return [Affine(linear, terms=int(np.prod(call.shapes[0])) + 2, divides_by_mass=True)]


def potential_network(seed: int = 0, potentials: int = 512, hidden: int = 256) -> keras.Model:
    """Returns a random network of potentials for MNIST: sums of plane waves of Lipschitz constant about 1."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    image = keras.Input((28, 28, 1), name="image")
    first = keras.layers.Dense(potentials, activation="relu")
    x = first(keras.layers.Flatten()(ShareOfMass()(image)))
    for _ in range(2):
        x = keras.layers.Dense(hidden, activation="relu")(x)
    network = keras.Model(image, keras.layers.Dense(10)(x))
    rows, columns = np.mgrid[0:28, 0:28] - 13.5
    frequency, angle, phase = rng.uniform((0.1, 0, 0), (0.9, 2 * np.pi, 2 * np.pi), (potentials, 3)).T
    along = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
    waves = np.cos(frequency[:, None, None] * along + phase[:, None, None]) / frequency[:, None, None]
    first.set_weights([waves.reshape(potentials, -1).T, np.zeros(potentials)])
    return network


def speed(count: int) -> None:
    """Times the certified radii of images, and a step of IBP relative to a forward pass, on one thread."""
    network = potential_network()
    images = np.random.default_rng(0).random((count, 28, 28, 1), np.float32)
    images = np.where(np.random.default_rng(1).random(images.shape) < 0.18, images, 0).astype(np.float32)
    for dtype in (tf.float64, tf.float32):
        begin, busy = time.perf_counter(), time.process_time()
        prover = Prover(network, ThreatModel(epsilon=0.1), batch_size=1000, dtype=dtype)
        labels = network.predict(images, batch_size=1000, verbose=0).argmax(axis=1).astype(np.int32)
        result = prover.certify(images, labels, "ibp")
        print(
            f"{count} images, {dtype.name}: {time.perf_counter() - begin:.1f} s with compilation "
            f"({time.process_time() - busy:.1f} s of processor time), median radius "
            f"{np.median(result.radius):.4f}, {result.certified.mean():.1%} certified at 0.1"
        )
    for width in (1, 4):
        network = potential_network(potentials=512 * width, hidden=256 * width)
        forward = tf.function(lambda batch, network=network: network(batch, training=False))
        steps = {"forward pass": lambda batch, forward=forward: forward(batch)}
        for dtype in (tf.float32, tf.float64):
            steps[f"IBP, {dtype.name}"] = _ibp_step(network, dtype)
        batch = tf.constant(images[:256])
        steps["margins of certify at one radius"] = _margins_step(network, batch)
        times = {name: _least_time(step, batch) for name, step in steps.items()}
        usual = times["forward pass"]
        print(f"width {width}: " + ", ".join(f"{n} {1e3 * t:.2f} ms ({t / usual:.2f} ×)" for n, t in times.items()))


def _ibp_step(network: keras.Model, dtype: tf.DType) -> Any:
    """Returns a step of intervals, from the first layer's by its Lipschitz constant (1, as in training) on."""
    nodes = Network(network).nodes

    @tf.function(autograph=False)
    def step(batch: tf.Tensor) -> tf.Tensor:
        images = tf.cast(batch, dtype)
        mass = tf.reduce_sum(images, [1, 2, 3])
        known: list[Any] = [images]
        for node in nodes[1:]:
            inputs = [known[read] for read in node.inputs]
            if node.affine_in_image:
                known.append(node.transform.apply(inputs, mass))
                continue
            exact = [each if isinstance(each, Interval) else Interval(each - 0.1, each + 0.1) for each in inputs]
            known.append(node.transform.interval(exact, mass))
        return known[-1].lower

    return step


def _margins_step(network: keras.Model, batch: tf.Tensor) -> Any:
    """Returns what `certify` does at each radius: margins, the support function at the λ of each unit included."""
    bounds = Bounds(Network(network), ThreatModel(epsilon=0.1))
    prepared, labels = bounds.prepare(batch), tf.zeros([len(batch)], tf.int32)
    margins = tf.function(bounds.margins, autograph=False)
    epsilon = tf.fill([len(batch)], tf.constant(0.1, tf.float64))
    return lambda batch: margins(prepared, labels, epsilon, "ibp")


def _least_time(step: Any, batch: tf.Tensor) -> float:
    """Returns the least processor time of a call in seconds, of all threads together: other work hardly changes it."""
    step(batch)
    times = []
    for _ in range(30):
        begin = time.process_time()
        np.asarray(step(batch))
        times.append(time.process_time() - begin)
    return min(times)


def _load(given: argparse.Namespace) -> Any:
    source = ImageSource(dataset=given.dataset, data_dir=given.data_dir, num_examples=given.num_examples)
    return source.load()


def prove(given: argparse.Namespace) -> None:
    """Prints what IBP and CROWN certify of saved classifiers at some radii."""
    images = _load(given)
    for path in given.models.split(","):
        prover = Prover(models.load_classifier(path), ThreatModel(epsilon=given.epsilon))
        checked, labels = prover.check(images.images, images.labels)
        for method in given.methods.split(","):
            begin = time.perf_counter()
            result = prover.certify(checked, labels, method, given.epsilon / 50)
            shares = {radius: float((result.radius >= radius).mean()) for radius in map(float, given.radii.split(","))}
            print(
                f"{path}, {method}: natural {result.correct.mean():.1%}, median radius {np.median(result.radius):.4g}, "
                f"largest {result.radius.max():.4g}, certified {shares}, {time.perf_counter() - begin:.0f} s",
                flush=True,
            )


def attack(given: argparse.Namespace) -> int:
    """Attacks each image at its certified radius; returns the number of those fooled."""
    images, fooled = _load(given), 0
    for path in given.models.split(","):
        begin = time.perf_counter()
        classifier = models.load_classifier(path)
        prover = Prover(classifier, ThreatModel(epsilon=given.epsilon))
        checked, labels = prover.check(images.images, images.labels)
        result = prover.certify(checked, labels, given.methods.split(",")[0], given.epsilon / 50)
        proved = np.flatnonzero(result.radius > 0)
        certified = time.perf_counter() - begin
        found = 0
        if len(proved):
            adversary = MirrorAscent(ThreatModel(epsilon=given.epsilon), restarts=given.restarts)
            radius = np.minimum(result.radius[proved], 10.0)
            tried = adversary(classifier, checked[proved], labels[proved], radius=radius)
            found = int(tried.success.sum())
        fooled += found
        print(
            f"{path}: {result.correct.mean():.1%} natural, {len(proved)} of {len(labels)} with a radius above "
            f"0, median of these {np.median(result.radius[proved]) if len(proved) else 0:.4g}; {found} fooled within "
            f"theirs; {certified:.0f} s to certify, {time.perf_counter() - begin - certified:.0f} s to attack",
            flush=True,
        )
    return fooled


def predict(paths: list[str]) -> None:
    """Times predictions of classifiers of equal images, compiled graphs in turns, relative to the first classifier."""
    loaded = {path: models.load_classifier(path) for path in paths}
    shape = loaded[paths[0]].input_shape[1:]
    for size in (1, 32, 256):
        images = tf.constant(np.random.default_rng(0).random((size, *shape), np.float32))
        compiled = {
            path: tf.function(lambda batch, each=each: each(batch, training=False)) for path, each in loaded.items()
        }
        calls = {path: functools.partial(call, images) for path, call in compiled.items()}
        times, _ = in_turns(calls, 100)
        each = [f"{path} {1e3 * np.median(t):.2f} ms ({ratio(t, times[paths[0]]):.2f} ×)" for path, t in times.items()]
        print(f"{size} images: " + ", ".join(each), flush=True)


def main() -> int:
    """Runs one of the four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "prove", "attack", "predict"])
    parser.add_argument("--models", default="pretrained:mnist_wassertrain")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data_dir")
    parser.add_argument("--num_examples", type=int, default=100)
    parser.add_argument("--epsilon", type=float, default=0.02)
    parser.add_argument("--radii", default="0.001,0.005,0.01,0.02,0.05")
    parser.add_argument("--methods", default="ibp,crown")
    parser.add_argument("--restarts", type=int, default=6)
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.num_examples if given.num_examples != 100 else 10_000)
        return 0
    if given.what == "prove":
        prove(given)
        return 0
    if given.what == "predict":
        predict(given.models.split(","))
        return 0
    return int(attack(given) > 0)


if __name__ == "__main__":
    sys.exit(main())
