import keras
import numpy as np

from wasser_tf.training.moving_average import WeightAverage


def _classifier():
    image = keras.Input((3, 3, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Dropout(0.2, seed=1)(x)))


def test_the_average_equals_one_computed_by_hand():
    model, averaged = _classifier(), _classifier()
    averaged.set_weights(start := model.get_weights())
    rng = np.random.default_rng(0)
    images, labels = 3 * rng.random((40, 3, 3, 1), np.float32), rng.integers(0, 2, 40)
    seen, expected = [], []

    def note(batch, logs):
        seen.append(model.get_weights())
        step = len(seen)
        keep = min(0.3, (1 + step) / (10 + step))
        before = expected[-1] if expected else start
        expected.append([keep * mean + (1 - keep) * now for mean, now in zip(before, seen[-1], strict=True)])
        for mean, wanted in zip(averaged.get_weights(), expected[-1], strict=True):
            np.testing.assert_allclose(mean, wanted, rtol=1e-5, atol=1e-6)

    model.compile(keras.optimizers.SGD(0.3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    average = WeightAverage(model, averaged, 0.3)
    model.fit(
        images,
        labels,
        batch_size=4,
        verbose=0,
        callbacks=[average, keras.callbacks.LambdaCallback(on_train_batch_end=note)],
    )
    # Both sides of the bound are met.
    assert (1 + 1) / (10 + 1) < 0.3 < (1 + 10) / (10 + 10)
    assert len(seen) == 10
    moved = [not np.allclose(mean, now, atol=1e-4) for mean, now in zip(averaged.get_weights(), seen[-1], strict=True)]
    # All but the bias before the normalisation, to which that is blind: its statistics too.
    assert sum(moved) == len(moved) - 1 == 7
    # The weights that are trained are left alone.
    for now, last in zip(model.get_weights(), seen[-1], strict=True):
        np.testing.assert_array_equal(now, last)
