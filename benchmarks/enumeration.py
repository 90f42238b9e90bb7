"""The true worst margin of a tiny ReLU network in the ball, by a linear program for each pattern of its activations.

An oracle for certificates: where the signs of all hidden units are fixed, the network is affine and the ball is a
polytope, so the worst margin is the best of 2^hidden linear programs, in plans. The capacity is dropped, as bounds do.

    python -m benchmarks.enumeration --networks=200
"""

import argparse
import itertools
import sys
import time
from typing import NamedTuple

import keras
import numpy as np
import scipy.optimize
import scipy.sparse
import tensorflow as tf

from wasser_tf.certification.arguments import METHODS
from wasser_tf.certification.bounds import Bounds
from wasser_tf.certification.network import Network
from wasser_tf.threat_model import ThreatModel


class Polytope(NamedTuple):
    """The plans of a ball: variables Π_ij, one for each pair (i, j) of flat pixels, of the cost C_ij."""

    source: np.ndarray
    target: np.ndarray
    cost: np.ndarray
    budget: float


def plans(image: np.ndarray, threat_model: ThreatModel) -> Polytope:
    """Returns the plans of the ball around an image [H, W, C], written without the package's transport."""
    height, width, channels = image.shape
    reach = np.inf if threat_model.kernel_size is None else threat_model.kernel_size // 2
    places = list(np.ndindex(height, width, channels))
    pairs = [
        (i, j, np.hypot(a[0] - b[0], a[1] - b[1]) ** threat_model.p)
        for i, a in enumerate(places)
        for j, b in enumerate(places)
        if a[2] == b[2] and max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= reach
    ]
    source, target, cost = (np.array(column) for column in zip(*pairs, strict=True))
    budget = threat_model.epsilon * (image.sum() if threat_model.normalize_mass else 1.0)
    return Polytope(source.astype(int), target.astype(int), cost, float(budget))


def worst_margin(
    image: np.ndarray, label: int, layers: list[tuple[np.ndarray, np.ndarray]], threat_model: ThreatModel
) -> float:
    """Returns the least of z_y − max z_j over the ball, exactly, of Dense, ReLU, Dense.

    Args:
      image: x, [H, W, C].
      label: y.
      layers: Two pairs of kernel [in, out] and bias [out].
      threat_model: The ball; its capacity is not used.
    """
    (first, first_bias), (last, last_bias) = layers
    ball, pixels = plans(image, threat_model), image.size
    count = len(ball.cost)
    rows = scipy.sparse.csr_matrix((np.ones(count), (ball.source, np.arange(count))), (pixels, count))
    hidden = first[ball.target].T  # Each hidden unit as a functional of the plan.
    worst = np.inf
    for pattern in itertools.product((0, 1), repeat=first.shape[1]):
        signs = np.array(pattern)
        # On: −(w · x' + b) ≤ 0. Off: w · x' + b ≤ 0.
        side = np.where(signs, -1.0, 1.0)
        upper = np.vstack([ball.cost, side[:, None] * hidden])
        limits = np.concatenate([[ball.budget], -side * first_bias])
        for other in set(range(last.shape[1])) - {label}:
            slope = (last[:, label] - last[:, other]) * signs
            found = scipy.optimize.linprog(
                slope @ hidden, A_ub=upper, b_ub=limits, A_eq=rows, b_eq=image.ravel(), method="highs"
            )
            if found.status == 0:
                worst = min(worst, found.fun + slope @ first_bias + last_bias[label] - last_bias[other])
    return worst


def random_problem(seed: int, side: int = 6, hidden: int = 4, classes: int = 3) -> tuple:
    """Returns a classifier, its layers in float64, an image, its class and a ball, all random."""
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 1, 2]))
    image = (rng.random((side, side, channels)) * (rng.random((side, side, channels)) < 0.5)).astype(np.float32)
    inputs = keras.Input(image.shape)
    x = keras.layers.Dense(hidden, activation="relu")(keras.layers.Flatten()(inputs))
    classifier = keras.Model(inputs, keras.layers.Dense(classes)(x))
    scale = 1.0 / np.sqrt(image.size)
    weights = [rng.normal(size=weight.shape) for weight in classifier.get_weights()]
    weights[0] *= scale
    classifier.set_weights(weights)
    exact = [weight.astype(np.float64) for weight in classifier.get_weights()]
    layers = [(exact[0], exact[1]), (exact[2], exact[3])]
    logits = np.maximum(image.ravel() @ exact[0] + exact[1], 0) @ exact[2] + exact[3]
    threat_model = ThreatModel(
        epsilon=float(rng.choice([0.02, 0.1, 0.3, 1.0])),
        p=float(rng.choice([1.0, 2.0])),
        kernel_size=[3, 5, None][rng.integers(3)],
        normalize_mass=bool(rng.random() < 0.7),
    )
    return classifier, layers, image, int(logits.argmax()), threat_model


def gaps(seed: int) -> dict[str, float]:
    """Returns, for each method, the true worst margin less the bound, which is at least 0 if the bound is right."""
    classifier, layers, image, label, threat_model = random_problem(seed)
    true = worst_margin(image.astype(np.float64), label, layers, threat_model)
    # Not compiled: every network is another one.
    bounds = Bounds(Network(classifier), threat_model)
    batch, labels, epsilon = bounds.prepare(image[None]), tf.constant([label]), tf.constant([threat_model.epsilon])
    return {method: true - float(bounds.margins(batch, labels, epsilon, method)[0]) for method in METHODS}


def main() -> int:
    """Compares the bounds of so many random networks with their true worst margins; the exit is 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--first_seed", type=int, default=0)
    given = parser.parse_args()
    begin, found = time.perf_counter(), []
    for seed in range(given.first_seed, given.first_seed + given.networks):
        found.append(gaps(seed))
        keras.backend.clear_session()
        if len(found) % 20 == 0:
            least = min(min(each.values()) for each in found)
            print(f"{len(found)} networks, {time.perf_counter() - begin:.0f} s, least gap {least:.3g}", flush=True)
    for method in METHODS:
        values = np.array([each[method] for each in found])
        print(f"{method}: gap least {values.min():.3g}, median {np.median(values):.3g}, most {values.max():.3g}")
    wrong = sum(min(each.values()) < 0 for each in found)
    print(f"{len(found)} networks, {wrong} bounds above the true worst margin")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
