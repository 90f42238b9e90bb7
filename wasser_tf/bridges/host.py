"""A classifier of another library as a differentiable TensorFlow function: it computes on numpy arrays, on the host."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

Forward = Callable[[np.ndarray], np.ndarray]
Backward = Callable[[np.ndarray, np.ndarray], np.ndarray]


class HostClassifier:
    """A classifier whose outputs and gradients are computed by two Python functions.

    TensorFlow calls them through `tf.numpy_function`, so every attack and evaluation works, within graphs too. XLA
    cannot compile them: attacks on a GPU run without XLA around the classifier. There are no second derivatives.

    Attributes:
      forward: Images, float32 [n, …], to outputs [n, classes].
      backward: Images [n, …] and weights of the outputs [n, classes] to the gradient of the weighted sum of the
        outputs with respect to the images, [n, …] (a vector-Jacobian product).
      calls_python: True.

    Example:
    >>> import numpy as np
    >>> matrix = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")
    >>> linear = HostClassifier(
    ...     lambda images: images.reshape(len(images), -1) @ matrix,
    ...     lambda images, weights: (weights @ matrix.T).reshape(images.shape),
    ... )
    >>> linear(np.zeros((2, 8, 8, 1), "float32")).shape
    TensorShape([2, 10])
    """

    calls_python = True

    def __init__(self, forward: Forward, backward: Backward) -> None:
        """Creates the classifier from its two functions."""
        self.forward, self.backward = forward, backward
        self._classes: dict[tuple[int, ...], int] = {}

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """Returns the outputs, float32 [n, classes], of images [n, …] in the format of the other library."""
        del training
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        classes = self.num_classes(tuple(images.shape[1:]))
        return tf.ensure_shape(self._differentiable(images), [images.shape[0], classes])

    def num_classes(self, image_shape: tuple[int, ...]) -> int:
        """Returns the number of outputs for images of a shape; the classifier is called once to count them.

        Raises:
          ValueError: The classifier does not return [n, classes].
        """
        if image_shape not in self._classes:
            # Outside of the graph that is being built, because the other library may be TensorFlow.
            with tf.init_scope():
                outputs = np.asarray(self.forward(np.zeros((1, *image_shape), np.float32)))
            if outputs.ndim != 2:
                raise ValueError(f"The classifier must return [n, classes], got {outputs.shape} for one image.")
            self._classes[image_shape] = outputs.shape[1]
        return self._classes[image_shape]

    @property
    def _differentiable(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def forward(images: np.ndarray) -> np.ndarray:
            return np.asarray(self.forward(images), np.float32)

        def backward(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return np.asarray(self.backward(images, weights), np.float32)

        @tf.custom_gradient
        def outputs_of(images: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
            def gradient(weights: tf.Tensor, variables: Any = None) -> Any:
                found = tf.numpy_function(backward, [images, weights], tf.float32, stateful=False)
                found = tf.ensure_shape(found, images.shape)
                # Eagerly, TensorFlow sees the variables of a model of TensorFlow. Only images get gradients.
                return found if variables is None else (found, [None] * len(variables))

            # Not stateful: equal inputs have equal outputs, and an output that is not used is not computed.
            outputs = tf.numpy_function(forward, [images], tf.float32, stateful=False)
            return tf.ensure_shape(outputs, [images.shape[0], None]), gradient

        return outputs_of
