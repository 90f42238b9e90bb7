"""The signatures of a served classifier: graphs that check their inputs, classify images, and name the classes.

A server passes every request to the graph unchecked, so the graph itself rejects invalid images: a failed assertion
answers this one request with INVALID_ARGUMENT and the assertion's message.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from wasser_tf.models.logits import LogitsFn
from wasser_tf.serving.robustness import RobustnessProbe, smallest_radius

DEFAULT, UINT8, ENCODED, ROBUSTNESS, LOGITS = "serving_default", "uint8", "encoded", "robustness", "logits"
CERTIFIED = "certified"

# A small file can decode to gigabytes, so both the size of the file and the size in its header are bounded.
MAX_IMAGE_BYTES = 8 * 2**20
MAX_IMAGE_PIXELS = 2**24

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"

Outputs = dict[str, tf.Tensor]


class Signature(NamedTuple):
    """A signature to export.

    Attributes:
      function: A function of one tensor that returns tensors by name.
      spec: The tensor it takes.
    """

    function: Callable[[tf.Tensor], Outputs]
    spec: tf.TensorSpec


def make_signatures(
    logits_fn: LogitsFn,
    image_shape: tuple[int, int, int],
    class_names: Sequence[str] | None = None,
    robustness: RobustnessProbe | None = None,
    radius_fn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> dict[str, Signature]:
    """Makes the signatures of a classifier.

    Args:
      logits_fn: The classifier in inference mode, float32 [n, H, W, C] to float32 [n, classes].
      image_shape: (H, W, C), fixed; the number of images is free.
      class_names: A name for each class; adds the output "label".
      robustness: Settings of the signature `robustness`; None to leave the signature out.
      radius_fn: Adds the signature `certified`: images and their classes to certified radii, float32 [n].

    Returns:
      The signatures by name. All but `logits` return probabilities and logits [n, classes], class_id [n] and label [n]
      (`robustness` returns class_id, label, margin, radius and flagged instead):

      - serving_default: "image", float32 [n, H, W, C] in [0, 1];
      - uint8: "image", uint8 [n, H, W, C];
      - encoded: "image_bytes", PNG or JPEG files [n], resized to H×W; only with 1 or 3 channels;
      - robustness: as serving_default;
      - logits: "image", returns only logits and accepts any values: for attacks, whose iterates may leave [0, 1].
      - certified: as serving_default; returns only class_id, label and the certified radius.
    """
    # All signatures share one function, so that its graph is stored once.
    classify = tf.function(
        lambda image: tf.ensure_shape(logits_fn(image), [None, None]),
        input_signature=[tf.TensorSpec([None, *image_shape], tf.float32, name="image")],
        autograph=False,
    )

    def answer(images: tf.Tensor) -> Outputs:
        logits = classify(images)
        return {"probabilities": tf.nn.softmax(logits), "logits": logits, **_classes(logits, class_names)}

    def of_floats(image: tf.Tensor) -> Outputs:
        return answer(checked(image, image_shape))

    def of_integers(image: tf.Tensor) -> Outputs:
        return answer(checked(tf.cast(image, tf.float32) / 255.0, image_shape))

    def of_files(image_bytes: tf.Tensor) -> Outputs:
        return answer(decode(image_bytes, image_shape))

    def of_robustness(image: tf.Tensor) -> Outputs:
        if robustness is None:
            raise ValueError("The signature `robustness` needs a RobustnessProbe, got None.")
        images = checked(image, image_shape)
        logits = classify(images)
        margin, radius, flagged = smallest_radius(robustness, classify, images, logits)
        return {**_classes(logits, class_names), "margin": margin, "radius": radius, "flagged": flagged}

    def of_certified(image: tf.Tensor) -> Outputs:
        if radius_fn is None:
            raise ValueError("There is no certificate.")
        images = checked(image, image_shape)
        classes = _classes(classify(images), class_names)
        return {**classes, "radius": radius_fn(images, classes["class_id"])}

    def of_logits(image: tf.Tensor) -> Outputs:
        return {"logits": classify(of_shape(image, image_shape))}

    floats = tf.TensorSpec([None, *image_shape], tf.float32, name="image")
    made = {
        DEFAULT: Signature(of_floats, floats),
        UINT8: Signature(of_integers, tf.TensorSpec([None, *image_shape], tf.uint8, name="image")),
        LOGITS: Signature(of_logits, floats),
    }
    if image_shape[2] in (1, 3):
        made[ENCODED] = Signature(of_files, tf.TensorSpec([None], tf.string, name="image_bytes"))
    if robustness is not None:
        made[ROBUSTNESS] = Signature(of_robustness, floats)
    if radius_fn is not None:
        made[CERTIFIED] = Signature(of_certified, floats)
    return made


def of_shape(images: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Returns the images after the graph has checked that their shape is [n, *image_shape].

    Servers do not check shapes, and a classifier without dense layers would accept images of any size.
    """
    return tf.ensure_shape(images, [None, *image_shape])


def checked(images: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Returns the images [n, H, W, C] after the graph has checked that n > 0 and that all values lie in [0, 1]."""
    images = of_shape(images, image_shape)
    # NaN fails both comparisons.
    in_range = tf.reduce_all((images >= 0.0) & (images <= 1.0))
    checks = [
        tf.debugging.Assert(tf.shape(images)[0] > 0, ["image must hold at least one image, got an empty batch."]),
        tf.debugging.Assert(in_range, ["image must be in [0, 1] with no NaN: divide 8-bit images by 255."]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(images)


def decode(files: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes PNG and JPEG files, string [n], and resizes them to float32 [n, H, W, C] in [0, 1]."""
    height, width, channels = image_shape

    def decode_one(file: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies(_file_checks(file)):
            file = tf.identity(file)
        pixels = tf.io.decode_image(file, channels=channels, expand_animations=False)
        pixels = tf.ensure_shape(pixels, [None, None, channels])
        # The same resizing as in wasser_tf.data.
        return tf.image.resize(tf.cast(pixels, tf.float32) / 255.0, (height, width), antialias=True)

    not_empty = tf.debugging.Assert(
        tf.shape(files)[0] > 0, ["image_bytes must hold at least one file, got an empty batch."]
    )
    with tf.control_dependencies([not_empty]):
        files = tf.identity(files)
    images = tf.map_fn(decode_one, files, fn_output_signature=tf.TensorSpec(image_shape, tf.float32))
    return checked(tf.clip_by_value(images, 0.0, 1.0), image_shape)


def _file_checks(file: tf.Tensor) -> list[tf.Operation]:
    """Checks the length and the header of one file before it is decoded."""
    length = tf.strings.length(file)
    is_png = tf.strings.substr(file, 0, len(_PNG)) == tf.constant(_PNG)
    is_jpeg = tf.strings.substr(file, 0, len(_JPEG)) == tf.constant(_JPEG)
    # A PNG begins with its signature and the first chunk's header, 8 bytes each, followed by width and height.
    is_whole = tf.where(is_png, length >= 24, is_jpeg)
    wrong_kind = ["image_bytes must be PNG or JPEG files, got something else."]
    too_long = [f"image_bytes must be files of at most {MAX_IMAGE_BYTES} bytes, got", length]
    with tf.control_dependencies(
        [tf.debugging.Assert(length <= MAX_IMAGE_BYTES, too_long), tf.debugging.Assert(is_whole, wrong_kind)]
    ):
        size = tf.cond(is_png, lambda: _png_size(file), lambda: tf.io.extract_jpeg_shape(file)[:2])
    size = tf.cast(size, tf.int64)
    fits = tf.reduce_all(size > 0) & (size[0] * size[1] <= MAX_IMAGE_PIXELS)
    too_large = [f"image_bytes must be images of at most {MAX_IMAGE_PIXELS} pixels, got height and width", size]
    return [tf.debugging.Assert(fits, too_large)]


def _png_size(file: tf.Tensor) -> tf.Tensor:
    return tf.reverse(tf.io.decode_raw(tf.strings.substr(file, 16, 8), tf.int32, little_endian=False), [0])


def _classes(logits: tf.Tensor, class_names: Sequence[str] | None) -> Outputs:
    class_id = tf.argmax(logits, axis=1, output_type=tf.int32)
    if class_names is None:
        return {"class_id": class_id}
    return {"class_id": class_id, "label": tf.gather(tf.constant(list(class_names)), class_id)}
