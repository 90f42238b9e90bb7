"""The top-k accuracy."""

import numpy as np
import tensorflow as tf

from wasser_tf.evaluation import metrics


def test_top_accuracy_counts_the_most_probable_classes():
    logits = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    labels = np.arange(40, dtype=np.int32) % 12
    images = np.zeros((40, 1, 1, 1), np.float32)
    images[:, 0, 0, 0] = np.arange(40) / 40

    def classifier(batch, training=False):
        return tf.gather(logits, tf.clip_by_value(tf.cast(tf.round(batch[:, 0, 0, 0] * 40), tf.int32), 0, 39))

    for count in (1, 3, 5):
        expected = np.mean([label in np.argsort(-row)[:count] for row, label in zip(logits, labels, strict=True)])
        assert metrics.top_accuracy(classifier, images, labels, count) == expected
