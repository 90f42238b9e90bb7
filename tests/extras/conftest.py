"""A small classifier of the digits in Keras and the same network in PyTorch."""

import keras
import numpy as np
import pytest

from wasser_tf import data


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def images(digits):
    return digits.test.images[:48]


@pytest.fixture(scope="session")
def labels(digits):
    return digits.test.labels[:48]


@pytest.fixture(scope="session")
def classifier(digits):
    """Two convolutions and a dense layer, trained for a moment."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(8, 4, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    network.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(digits.train.images, digits.train.labels, epochs=8, verbose=0)
    return network


def to_torch(network, channels=1):
    """Returns a Keras network of convolutions (strides 1 or 2), Flatten and dense layers in PyTorch, in float32."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'wasser_tf[torch]'")

    class ChannelsLast(torch.nn.Module):
        """Keras flattens [n, H, W, C]."""

        def forward(self, values):
            return values.permute(0, 2, 3, 1).flatten(1)

    parts = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            (size, _), (stride, _) = layer.kernel_size, layer.strides
            padding = (size - 1) // 2 if layer.padding == "same" else 0
            part = torch.nn.Conv2d(*kernel.shape[2:], size, stride, padding=padding)
            weights = kernel.transpose(3, 2, 0, 1)
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            part, weights = torch.nn.Linear(*kernel.shape), kernel.T
        elif isinstance(layer, keras.layers.Flatten):
            parts.append(ChannelsLast())
            continue
        elif isinstance(layer, keras.layers.InputLayer):
            continue
        elif isinstance(layer, keras.layers.ZeroPadding2D):
            (top, bottom), (left, right) = layer.padding
            parts.append(torch.nn.ZeroPad2d((left, right, top, bottom)))
            continue
        else:
            raise ValueError(f"to_torch does not know {layer}.")
        with torch.no_grad():
            part.weight.copy_(torch.tensor(np.ascontiguousarray(weights)))
            part.bias.copy_(torch.tensor(bias))
        parts.append(part)
        if layer.activation is keras.activations.relu:
            parts.append(torch.nn.ReLU())
    return torch.nn.Sequential(*parts)


@pytest.fixture
def module(classifier):
    return to_torch(classifier)


def channels_first(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
