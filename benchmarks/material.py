"""The classifiers and images of the benchmarks."""

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import data, models


def images_like(shape: tuple[int, int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns handwritten digits [count, *shape], repeated as needed, and their labels [count].

    Colour channels differ in brightness.
    """
    height, width, channels = shape
    split = data.load("digits", image_size=(height, width), splits=("train",)).train
    rows = np.arange(count) % len(split.labels)
    tint = np.linspace(1.0, 0.5, channels, dtype=np.float32)
    return np.ascontiguousarray(split.images[rows] * tint), split.labels[rows]


def lenet_on_digits(epochs: int = 4) -> tuple[keras.Model, data.Dataset]:
    """Returns a LeNet after a short training on digits of 28×28, and the digits. Nothing is downloaded."""
    dataset = data.load("digits", image_size=(28, 28))
    keras.utils.set_random_seed(0)
    model = models.build("lenet", dataset.image_shape, dataset.num_classes, seed=0)
    model.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(dataset.train.images, dataset.train.labels, batch_size=64, epochs=epochs, verbose=0)
    return model, dataset


def build(name: str, shape: tuple[int, int, int]) -> keras.Model:
    """Returns an untrained classifier of ten classes."""
    return models.build(name, shape, 10, seed=0)


def device() -> str:
    """Returns the names of the GPUs, or "CPU"."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus)
    return "CPU"
