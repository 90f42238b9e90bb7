"""decomon: its bounds of dense networks over boxes equal ours, by intervals and by CROWN."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import ThreatModel
from wasser_tf.certification.bounds import Bounds, _Pass
from wasser_tf.certification.network import Network
from wasser_tf.certification.prover import Prover

# decomon 0.2.1 names np.float_, in annotations only, which NumPy 2 does not have any more.
if not hasattr(np, "float_"):
    np.float_ = np.float64
decomon = pytest.importorskip("decomon", reason="decomon is not installed: pip install decomon")

BALL = ThreatModel(epsilon=0.1, kernel_size=3)


def network(seed, image_shape, first, hidden=12, classes=4):
    """Returns a network of the image whose first layer has `first` units, and the rest of it after that layer."""
    rng = np.random.default_rng(seed)
    image, features = keras.Input(image_shape), keras.Input((first,))
    start = keras.layers.Dense(first)
    later = [keras.layers.Activation("relu"), keras.layers.Dense(hidden), keras.layers.Activation("relu")]
    later += [keras.layers.Dense(hidden), keras.layers.Activation("relu"), keras.layers.Dense(classes)]
    outputs = []
    for inputs, tensor in ((image, start(keras.layers.Flatten()(image))), (features, features)):
        for layer in later:
            tensor = layer(tensor)
        outputs.append(keras.Model(inputs, tensor))
    whole, rest = outputs
    whole.set_weights([rng.normal(size=weight.shape) / len(weight) ** 0.5 for weight in whole.get_weights()])
    return whole, rest


def margins_of(rest, label):
    """Returns the network of the margins z_label − z_j: its last layer has the differences of the weights."""
    changed = keras.models.clone_model(rest)
    *weights, kernel, bias = rest.get_weights()
    changed.set_weights([*weights, kernel[:, label : label + 1] - kernel, bias[label] - bias])
    return changed


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_of_logits_are_those_of_decomon(seed):
    whole, rest = network(seed, (4, 4, 1), 8)
    images = np.random.default_rng(seed).random((5, 4, 4, 1)).astype(np.float32)
    bounds = Bounds(Network(whole), BALL)
    batch = bounds.prepare(tf.constant(images))
    ours = _Pass(bounds, batch, tf.constant([0.0, 0.05, 0.1, 0.3, 1.0], tf.float64), "ibp")
    (first,) = bounds.functionals
    low, high = (side.numpy() for side in ours.interval(first))
    found = [side.numpy() for side in ours.interval(bounds.network.output)]
    upper, lower = decomon.get_range_box(decomon.models.clone(rest, method="forward-ibp"), low, high)
    # Ours include the rounding of float32, on the sum of all magnitudes.
    np.testing.assert_allclose(found, [lower, upper], atol=1e-4 * np.abs(found).max())
    assert (found[0] <= lower + 1e-6).all() and (found[1] >= upper - 1e-6).all()
    assert (found[1] - found[0]).max() > 1


@pytest.mark.parametrize("seed", [0, 3])
def test_margins_by_crown_are_those_of_decomon_and_below_the_true_ones(seed):
    # Of two pixels one number can change, so the ball of an image is an interval, and so a box.
    whole, rest = network(seed, (1, 2, 1), 1)
    rng = np.random.default_rng(seed)
    images, labels = rng.random((5, 1, 2, 1)).astype(np.float32), rng.integers(0, 4, 5).astype(np.int32)
    bounds = Prover(whole, BALL).bounds
    batch = bounds.prepare(tf.constant(images))
    epsilon = tf.constant([0.01, 0.02, 0.05, 0.1, 0.3], tf.float64)
    ours = bounds.margins(batch, tf.constant(labels), epsilon, "crown").numpy()
    (first,) = bounds.functionals
    low, high = (side.numpy() for side in _Pass(bounds, batch, epsilon, "ibp").interval(first))
    tighter = []
    for row, label in enumerate(labels):
        theirs = decomon.get_lower_box(
            decomon.models.clone(margins_of(rest, label), method="crown"), low[row : row + 1], high[row : row + 1]
        )
        wanted = np.delete(theirs[0], label).min()
        assert ours[row] >= wanted - 2e-5
        tighter.append(ours[row] - wanted)
        logits = rest(np.linspace(low[row], high[row], 501, dtype=np.float32)).numpy()
        assert ours[row] <= (logits[:, label] - np.delete(logits, label, axis=1).max(axis=1)).min()
    # Where the intervals are wide, ours are higher: the inputs of an activation have the better of both bounds.
    assert np.median(tighter) < 1e-4
