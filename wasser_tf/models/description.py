"""What a classifier takes and returns, and the conversions between that and images in [0, 1] and logits."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.models import graphs

# Probabilities below this have no logarithm that float32 tells from others.
_SMALLEST = 1e-30
# Where logarithms of probabilities are further apart than this, most digits of the smaller one are lost.
LARGEST_GAP = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What a classifier takes and returns.

    Attributes:
      input_range: The values of a black and a white pixel.
      data_format: "channels_last" for images [n, H, W, C], "channels_first" for [n, C, H, W].
      layout: "image", "flat" for [n, H·W·C], or "grey" for [n, H, W] without channels.
      image_shape: (H, W, C).
      batch_size: The only batch size it takes, or None for any.
      output: The name or place of the output with the classes, or None where it is the only one.
      returns: "logits", "probabilities" or "sigmoid".
      num_units: The number of outputs of an image: the classes, or 1.
      inline: Whether to trace the classifier in the graph that uses it, where its last operations can be seen.
      plain: Whether it is called as it is, with images [n, H, W, C] in [0, 1].
      range_was_given: Whether the user specified the range.
      range_was_found: Whether the first operations specify it. With neither it is [0, 1].
      graph_error: Why the classifier cannot be part of a graph; empty where it can.
      unstable: How the outputs of an image vary from call to call; empty where they do not.
    """

    input_range: tuple[float, float] = (0.0, 1.0)
    data_format: str = "channels_last"
    layout: str = "image"
    image_shape: tuple[int, int, int]
    batch_size: int | None = None
    output: str | int | None = None
    returns: str
    num_units: int
    inline: bool = True
    plain: bool = False
    range_was_given: bool = False
    range_was_found: bool = False
    graph_error: str = ""
    unstable: str = ""

    @property
    def num_classes(self) -> int:
        """The number of classes; a single unit is for two."""
        return max(self.num_units, 2)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The shape of one image as the classifier takes it."""
        height, width, channels = self.image_shape
        if self.layout == "flat":
            return (height * width * channels,)
        if self.layout == "grey":
            return height, width
        return (channels, height, width) if self.data_format == "channels_first" else self.image_shape

    def to_own(self, images: tf.Tensor) -> tf.Tensor:
        """Converts images [n, H, W, C] in [0, 1] to those that the classifier takes; differentiable."""
        low, high = self.input_range
        if self.input_range != (0.0, 1.0):
            images = images * (high - low) + low
        if self.data_format == "channels_first":
            images = tf.transpose(images, [0, 3, 1, 2])
        return images if len(self.own_shape) == 3 else tf.reshape(images, [-1, *self.own_shape])

    def from_own(self, images: tf.Tensor) -> tf.Tensor:
        """The reverse of `to_own`; values within rounding of the range are clipped to [0, 1]."""
        height, width, channels = self.image_shape
        low, high = self.input_range
        if self.data_format == "channels_first":
            images = tf.transpose(tf.reshape(images, [-1, channels, height, width]), [0, 2, 3, 1])
        images = tf.reshape(tf.cast(images, tf.float32), [-1, *self.image_shape])
        if self.input_range == (0.0, 1.0):
            return images
        return clip_rounding((images - low) / (high - low))

    def select(self, outputs: Any) -> tf.Tensor:
        """Returns the output with the classes."""
        return outputs if self.output is None else outputs[self.output]

    def to_logits(self, outputs: tf.Tensor) -> tuple[tf.Tensor, bool]:
        """Converts the output to float32 logits [n, classes].

        The input of a softmax or sigmoid is used wherever the graph shows it, because it keeps its digits.

        Returns:
          The logits, and whether they are logarithms of probabilities.
        """
        logarithms = False
        if self.returns != "logits":
            before = getattr(outputs, "_keras_logits", None)
            if before is None and tf.is_symbolic_tensor(outputs):
                before = graphs.before_activation(outputs)
            logarithms = before is None
            outputs = before if before is not None else tf.cast(outputs, tf.float32)
            if logarithms:
                complement = 1.0 - outputs if self.returns == "sigmoid" else 1.0
                outputs = tf.math.log(tf.maximum(outputs, _SMALLEST))
                if self.returns == "sigmoid":
                    outputs -= tf.math.log(tf.maximum(complement, _SMALLEST))
        return self.of_classes(outputs), logarithms

    def of_classes(self, units: tf.Tensor) -> tf.Tensor:
        """Returns float32 logits [n, classes] of the logits of all units."""
        units = tf.reshape(tf.cast(units, tf.float32), [-1, self.num_units])
        return tf.concat([tf.zeros_like(units), units], axis=1) if self.num_units == 1 else units


def clip_rounding(images: Any) -> Any:
    """Clips pixels that are within float rounding (1e-6) of [0, 1], and leaves all others as they are."""
    if isinstance(images, np.ndarray):
        near = (images >= -1e-6) & (images <= 1 + 1e-6)
        return np.where(near, np.clip(images, 0, 1), images).astype(images.dtype)
    near = (images >= -1e-6) & (images <= 1 + 1e-6)
    return tf.where(near, tf.clip_by_value(images, 0.0, 1.0), images)
