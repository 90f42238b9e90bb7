"""Every rule: intervals and linear bounds hold for what the layer computes on feasible images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification.activations import ACTIVATIONS
from wasser_tf.certification.bounds import Bounds
from wasser_tf.certification.network import Network
from wasser_tf.certification.rules import RULES, Call, rule
from wasser_tf.certification.transforms import Affine
from wasser_tf.models import blurred, build

SHAPE = (6, 6, 2)
LAYERS = keras.layers


def normalization():
    return LAYERS.Normalization(mean=[0.2, 0.4], variance=[0.5, 0.1])


# Layers from an image to an image or to features; a Dense layer follows each.
CASES = {
    "dense": [LAYERS.Flatten(), LAYERS.Dense(5, activation="relu")],
    "dense on maps": [LAYERS.Dense(3, activation="relu"), LAYERS.Dense(2)],
    "conv": [LAYERS.Conv2D(4, 3, activation="relu"), LAYERS.Conv2D(3, 2, strides=2, padding="same")],
    "dilated conv": [LAYERS.Conv2D(3, 2, dilation_rate=2, use_bias=False), LAYERS.ReLU()],
    "depthwise": [LAYERS.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu")],
    "batch norm": [LAYERS.Conv2D(3, 3), LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.BatchNormalization()],
    "relu6": [LAYERS.Conv2D(3, 3), LAYERS.ReLU(max_value=0.5)],
    "leaky relu": [LAYERS.Conv2D(3, 3), LAYERS.LeakyReLU(0.1), LAYERS.ReLU(negative_slope=0.3)],
    "elu": [LAYERS.Conv2D(3, 3), LAYERS.ELU(0.7)],
    "average pooling": [LAYERS.Conv2D(3, 3, activation="relu"), LAYERS.AveragePooling2D(3, 2, padding="same")],
    "max pooling": [LAYERS.Conv2D(3, 3), LAYERS.MaxPooling2D(3, 2, padding="same"), LAYERS.MaxPooling2D(2)],
    "global pooling": [LAYERS.Conv2D(3, 3, activation="relu"), LAYERS.GlobalAveragePooling2D()],
    "global max pooling": [LAYERS.Conv2D(3, 3), LAYERS.GlobalMaxPooling2D()],
    "shapes": [LAYERS.ZeroPadding2D(((1, 0), (0, 2))), LAYERS.Reshape((14, 8)), LAYERS.Dense(2, activation="relu")],
    "scales": [LAYERS.Rescaling(2.0, -0.5), normalization(), LAYERS.Conv2D(2, 3, activation="relu")],
    "nothing": [LAYERS.Dropout(0.5), LAYERS.GaussianNoise(0.1), LAYERS.SpatialDropout2D(0.5), LAYERS.Conv2D(2, 3)],
} | {
    f"activation {function.__name__}": [LAYERS.Conv2D(3, 3), LAYERS.Activation(function), LAYERS.Conv2D(2, 2)]
    for function in ACTIVATIONS
    if function is not keras.activations.softmax
}


def randomised(classifier, seed=0):
    rng = np.random.default_rng(seed)
    for weight in classifier.weights:
        if "normalization" not in weight.path or "moving" in weight.path or "gamma" in weight.path:
            value = rng.normal(size=weight.shape) / np.sqrt(max(1, np.prod(weight.shape[:-1])))
            weight.assign(np.abs(value) + 0.1 if "variance" in weight.path else value)
    return classifier


def check(classifier, sample, ball, count=200, tolerance=1e-3):
    """Checks logits and margins of feasible images against their bounds; returns the bounds of the margins."""
    shape = classifier.input_shape[1:]
    image = np.random.default_rng(1).random(shape).astype(np.float32)
    bounds = Bounds(Network(classifier), ball)
    batch, epsilon = bounds.prepare(image[None]), tf.constant([ball.epsilon])
    logits = np.asarray(classifier(sample(image, ball, count), training=False), np.float64)
    low, high = bounds.logits(batch, epsilon)
    assert (low.numpy() <= logits).all() and (logits <= high.numpy()).all()
    label = int(logits[0].argmax())
    actual = (logits[:, [label]] - np.delete(logits, label, axis=1)).min()
    found = [float(bounds.margins(batch, tf.constant([label]), epsilon, method)[0]) for method in ("ibp", "crown")]
    assert np.isfinite(found).all()
    assert max(found) <= actual
    # At radius 0 there is only the allowance for rounding, so that a wrong rule cannot hide in the width of the bounds.
    alone = np.asarray(classifier(image[None], training=False), np.float64)
    for side in bounds.logits(batch, 0.0 * epsilon):
        np.testing.assert_allclose(side, alone, atol=tolerance)
    margin = alone[0, label] - np.delete(alone[0], label).max()
    proved = float(bounds.margins(batch, tf.constant([label]), 0.0 * epsilon, "crown")[0])
    assert margin - 2 * tolerance <= proved <= margin
    return found


@pytest.mark.parametrize("layers", CASES.values(), ids=CASES)
def test_bounds_hold_on_feasible_images(layers, sample, ball):
    inputs = keras.Input(SHAPE)
    # Layers of the parametrisation are made once; their copies have weights of their own.
    x = inputs
    for layer in layers:
        x = type(layer).from_config(layer.get_config())(x)
    if len(x.shape) > 2:
        x = LAYERS.Flatten()(x)
    check(randomised(keras.Model(inputs, LAYERS.Dense(3)(x))), sample, ball)


def test_bounds_hold_for_merged_branches(sample, ball):
    inputs = keras.Input(SHAPE)
    x = LAYERS.Conv2D(3, 3, padding="same")(inputs)
    y = LAYERS.Conv2D(3, 3, padding="same")(LAYERS.Activation("relu")(x))
    z = LAYERS.Concatenate()([LAYERS.Add()([x, y]), inputs, x + y])
    z = LAYERS.Activation("relu")(z)
    check(randomised(keras.Model(inputs, LAYERS.Dense(3)(LAYERS.Flatten()(z)))), sample, ball)


def test_bounds_hold_for_two_towers(sample, ball):
    inputs = keras.Input(SHAPE)
    towers = [LAYERS.Conv2D(2, 2)(LAYERS.Conv2D(2, 2)(inputs)) for _ in range(2)]
    hidden = [LAYERS.ReLU()(LAYERS.Dense(3)(LAYERS.Flatten()(LAYERS.ReLU()(tower)))) for tower in towers]
    merged = [LAYERS.Add()([*hidden, hidden[0]]), LAYERS.Average()([*hidden, hidden[0]])]
    for each in merged:
        check(randomised(keras.Model(inputs, LAYERS.Dense(3)(each))), sample, ball)
    check(randomised(keras.Model(inputs, LAYERS.Average()(hidden))), sample, ball)


@pytest.mark.parametrize("name", ["linear", "mlp", "lenet"])
def test_the_packages_models_behind_their_blur(name, sample, ball):
    check(blurred(build(name, (6, 6, 1), 3, seed=0), 2), sample, ball)


def test_models_within_models(sample, ball):
    inner = keras.Sequential([keras.Input(SHAPE), LAYERS.Conv2D(2, 3, activation="relu"), LAYERS.Flatten()])
    outer = keras.Sequential([keras.Input(SHAPE), inner, keras.Sequential([LAYERS.Dense(4), LAYERS.Dense(3)])])
    outer(np.zeros((1, *SHAPE), np.float32))
    check(randomised(outer), sample, ball)


def test_a_rule_for_a_new_layer_is_one_function(sample, ball):
    class Doubling(keras.layers.Layer):
        def call(self, inputs):
            return 2.0 * inputs

    inputs = keras.Input(SHAPE)
    classifier = keras.Model(inputs, LAYERS.Dense(3)(LAYERS.Flatten()(Doubling(name="twice")(inputs))))
    with pytest.raises(ValueError, match=r"The layer 'twice' \(Doubling\) cannot be certified: there is no rule"):
        Network(classifier)

    @rule(Doubling)
    def _doubling(call: Call):
        return [Affine(lambda inputs, absolute, mass: 2.0 * inputs[0], terms=1)]

    try:
        check(classifier, sample, ball)
    finally:
        del RULES[Doubling]


def test_division_by_the_mass(sample, ball):
    class Share(keras.layers.Layer):
        def call(self, inputs):
            return inputs / keras.ops.sum(inputs, axis=(1, 2, 3), keepdims=True)

    def share(call: Call):
        def divide(inputs, absolute, mass):
            return inputs[0] / mass[:, None, None, None]

        return [Affine(divide, terms=int(np.prod(SHAPE)) + 2, divides_by_mass=True)]

    RULES[Share] = share
    try:
        inputs = keras.Input(SHAPE)
        potentials = LAYERS.Dense(6)(LAYERS.Flatten()(Share()(inputs)))
        masses = LAYERS.GlobalAveragePooling2D()(inputs)
        x = LAYERS.Concatenate()([LAYERS.ReLU()(potentials), masses])
        check(randomised(keras.Model(inputs, LAYERS.Dense(3)(x))), sample, ball)
        late = keras.Model(inputs, LAYERS.Flatten()(Share()(LAYERS.Conv2D(2, 3)(inputs))))
        with pytest.raises(ValueError, match="Only the image itself can be divided by its mass"):
            Network(late)
    finally:
        del RULES[Share]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: LAYERS.Conv2D(2, 3, groups=2)(x), "has 2 groups"),
        (lambda x: LAYERS.LayerNormalization()(x), "LayerNormalization.*no rule"),
        (lambda x: LAYERS.ReLU(threshold=0.5)(x), "threshold must be 0"),
        (lambda x: LAYERS.Dense(2, activation="mish")(x), "activation mish"),
        (lambda x: LAYERS.Dense(2, activation="softmax")(x), "reads the softmax"),
        (lambda x: LAYERS.Conv2D(2, 3, dtype="mixed_bfloat16")(x), "computes in bfloat16"),
        (lambda x: LAYERS.Dropout(0.5)(x, training=True), "training=True"),
        (lambda x: x * x, "Multiply.*no rule"),
    ],
)
def test_layers_without_a_rule_are_named(make, message):
    inputs = keras.Input(SHAPE)
    classifier = keras.Model(inputs, LAYERS.Dense(3)(LAYERS.Flatten()(make(inputs))))
    with pytest.raises(ValueError, match=message):
        Network(classifier)


def test_models_other_than_graphs_of_layers_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="has a call of its own"):
        Network(Own())
    with pytest.raises(ValueError, match="must be a keras.Model made of layers, got a function"):
        Network(lambda images, training: images)
    with pytest.raises(ValueError, match="is not built"):
        Network(keras.Sequential([LAYERS.Dense(2)]))
