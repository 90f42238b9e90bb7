"""Decoding of PNG and JPEG files: orientation, palettes, transparency and 16 bits.

- The content decides, not the extension: a PNG named .jpg is read.
- The EXIF orientation is applied, so that an image is as its viewer shows it.
- Palette images are read as the colours of their palette.
- 16-bit PNG keeps its precision.
- Transparent pixels are put on black: where nothing is visible, there is no mass.
"""

import io
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

FORMATS = ("PNG", "JPEG")
_PNG = b"\x89PNG\r\n\x1a\n"
# Places of the bit depth and the colour type in a PNG, whose first chunk is always IHDR.
_BIT_DEPTH, _COLOUR_TYPE = 24, 25
_ORIENTATION = 0x0112
_GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class Header(NamedTuple):
    """What is known about an image before it is decoded.

    Attributes:
      height: The height in pixels, after the EXIF orientation is applied.
      width: The width in pixels, likewise.
      colour: Whether the image can have colours; that of a palette counts as coloured.
    """

    height: int
    width: int
    colour: bool


def read_header(path: str) -> Header:
    """Reads the header of an image file, without decoding it.

    Raises:
      Exception: The file is missing, unreadable or of another format.
    """
    with open(path, "rb") as stream:
        start = stream.read(_COLOUR_TYPE + 1)
        stream.seek(0)
        image = Image.open(stream, formats=FORMATS)
        # getexif of a PNG without EXIF would decode the whole image.
        known = image.format != "PNG" or "exif" in image.info
        turned = known and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        # Pillow reads 16-bit greyscale with an alpha channel as RGBA.
        grey = start[_COLOUR_TYPE] in (0, 4) if image.format == "PNG" else image.mode in _GREY_MODES
        return Header(height, width, not grey)


def decode_image(content: bytes) -> tuple[np.ndarray, int]:
    """Decodes an image.

    Args:
      content: The bytes of a PNG or JPEG file.

    Returns:
      The image, uint8 or uint16 [H, W, C] with C = 1 or 3, and its largest value, 255 or 65535.

    Raises:
      Exception: The content is truncated, broken or of another format.
    """
    if content.startswith(_PNG):
        # Decoding does not notice every wrong checksum.
        Image.open(io.BytesIO(content), formats=FORMATS).verify()
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        deep = content.startswith(_PNG) and content[_BIT_DEPTH] == 16
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
        # Pillow reduces 16-bit colours to 8 bits, TensorFlow does not.
        pixels = tf.io.decode_png(content, dtype=tf.uint16).numpy() if deep else _eight_bits(image)
    return _turned(_opaque(pixels), orientation), 65535 if deep else 255


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Returns the pixels [H, W, C], greyscale or RGB, with an alpha channel if there is transparency."""
    grey = image.mode in _GREY_MODES
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if transparent:
        # Pillow converts "L" with a transparent value through RGBA only.
        pixels = np.asarray(image.convert("RGBA"))
        return pixels[..., 2:] if grey else pixels
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _opaque(pixels: np.ndarray) -> np.ndarray:
    """Puts pixels [H, W, 1 to 4] with an alpha channel on black; returns [H, W, 1 or 3]."""
    if pixels.shape[-1] in (1, 3):
        return pixels
    most = np.float64(np.iinfo(pixels.dtype).max)
    return np.rint(pixels[..., :-1] * (pixels[..., -1:] / most)).astype(pixels.dtype)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation, 1 to 8; other values are ignored, as viewers do."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
