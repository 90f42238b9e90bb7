"""Trains alike on one device and on two, and saves what came out: python two_devices.py OUTPUT.npz.

A process of its own, for logical devices must be set before TensorFlow starts.
"""

import functools
import sys

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import LinearRamp, Staircase, ThreatModel, WasserTrain, data
from wasser_tf.attacks import Attack, AttackResult
from wasser_tf.data.augmentation import Augmentation, RandomShift
from wasser_tf.data.streaming import StreamedImages
from wasser_tf.training.distribution import Distribution


class Noise(Attack):
    """Noise by the index, which every image of every step has to itself."""

    name = "noise"

    def perturb(self, problem):
        raise NotImplementedError

    def run(self, logits_fn, images, labels, radius=None, index=None):
        noise = tf.map_fn(
            lambda i: tf.random.stateless_uniform(images.shape[1:], tf.stack([0, i])),
            index,
            fn_output_signature=tf.float32,
        )
        return AttackResult(noise, *[None] * 9)


class Sign(Noise):
    """A step along the sign of the gradient, of the size of the radius."""

    name = "sign"

    def run(self, logits_fn, images, labels, radius=None, index=None):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits_fn(images))
        step = radius[:, None, None, None] * tf.sign(tape.gradient(loss, images))
        return AttackResult(tf.clip_by_value(images + step, 0, 1), *[None] * 9)


def _train(distribution, attack, *, keras_fit=False, streamed=False, rate=0.1, **options):
    rng = np.random.default_rng(0)
    images, labels = rng.random((24, 6, 5, 1), np.float32), rng.integers(0, 3, 24).astype(np.int32)
    keras.utils.set_random_seed(3)
    with distribution.scope():
        image = keras.Input((6, 5, 1), name="image")
        x = keras.layers.Flatten()(keras.layers.BatchNormalization(momentum=0.8)(image))
        x = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))(x)
        classifier = keras.Model(image, keras.layers.Dense(3)(x))
        distribution.prepare(classifier)
        model = WasserTrain(classifier, attack, **options)
        model.compile(
            keras.optimizers.SGD(rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True)
    if streamed:
        rows = np.arange(24)
        split = data.Split(StreamedImages(lambda row: images[row], rows, (6, 5, 1)), labels, rows)
        augment = Augmentation([RandomShift(1, 1)])
        make = functools.partial(data.batches, split, 8, shuffle=True, seed=1, drop_remainder=True, augment=augment)
        distribution.fit_from(model, make, 1, True, epochs=2, done=0, callbacks=())
        logs = []
    elif keras_fit:
        logs = model.fit(batches, epochs=2, verbose=0).history
        logs = [logs[key] for key in sorted(logs)]
    else:
        history = keras.callbacks.History()
        distribution.fit(model, batches, epochs=2, callbacks=[history])
        logs = [history.history[key] for key in sorted(history.history)]
    return [*model.get_weights(), np.array(logs)]


def main():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    one, two = Distribution(), Distribution("mirrored")
    sign = Sign(ThreatModel(epsilon=0.1), iterations=1)
    curricula = {
        "epsilon": LinearRamp(0.0, 0.2, epochs=2),
        "omega": Staircase([0.2, 0.8], steps=2),
        "steps_per_epoch": 3,
    }
    radii = {"random_radius": True, "trades_beta": 2.0}
    results = {
        "one": _train(one, sign),
        "two": _train(two, sign),
        "two_by_keras": _train(two, sign, keras_fit=True),
        "chunks": _train(two, sign, attack_chunk=3),
        "streamed_one": _train(one, sign, streamed=True),
        "streamed_two": _train(two, sign, streamed=True),
        "radii_one": _train(one, sign, **radii),
        "radii_two": _train(two, sign, **radii),
        "curricula_one": _train(one, sign, **curricula),
        "curricula_two": _train(two, sign, **curricula),
        "curricula_by_keras": _train(two, sign, keras_fit=True, epsilon=curricula["epsilon"], omega=curricula["omega"]),
        "noise_one": _train(one, Noise(ThreatModel(), iterations=1)),
        "noise_two": _train(two, Noise(ThreatModel(), iterations=1)),
    }
    arrays = {f"{name}_{number:02}": value for name, values in results.items() for number, value in enumerate(values)}
    np.savez(sys.argv[1], replicas=two.num_replicas, **arrays)


if __name__ == "__main__":
    main()
