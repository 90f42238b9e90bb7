"""Decoding of PNG and JPEG: bit depths, palettes, transparency, orientation, and broken files."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from wasser_tf.data.decode import decode_image, read_header

_RNG = np.random.default_rng(0)
_COLOUR = _RNG.integers(0, 256, (6, 4, 3)).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def header(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    return tuple(read_header(tmp_path / "x"))


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_eight_bits_are_exact(mode, tmp_path):
    image = Image.fromarray(_COLOUR).convert(mode)
    pixels, most = decode_image(encoded(image))
    assert most == 255 and pixels.dtype == np.uint8 and pixels.shape == (6, 4, 3 if mode == "RGB" else 1)
    np.testing.assert_array_equal(pixels.squeeze(), np.asarray(image.convert("L" if mode == "1" else mode)))
    assert header(tmp_path, encoded(image)) == (6, 4, mode == "RGB")


def test_palettes_are_their_colours(tmp_path):
    image = Image.fromarray(_COLOUR).quantize(16)
    pixels, _ = decode_image(encoded(image))
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert header(tmp_path, encoded(image)) == (6, 4, True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_keep_their_precision(channels, tmp_path):
    given = _RNG.integers(0, 2**16, (6, 4, channels)).astype(np.uint16)
    content = tf.io.encode_png(given).numpy()
    pixels, most = decode_image(content)
    expected = given
    if channels in (2, 4):
        expected = np.rint(given[..., :-1] * (given[..., -1:] / 65535.0)).astype(np.uint16)
    assert most == 65535
    np.testing.assert_array_equal(pixels, expected)
    assert header(tmp_path, content) == (6, 4, channels > 2)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_are_black(mode):
    image = Image.fromarray(_COLOUR).convert(mode)
    alpha = np.full((6, 4), 255, np.uint8)
    alpha[0], alpha[1] = 0, 51
    image.putalpha(Image.fromarray(alpha))
    pixels, _ = decode_image(encoded(image))
    opaque = np.asarray(image.convert("L" if mode == "LA" else "RGB")).reshape(pixels.shape)
    np.testing.assert_array_equal(pixels[0], 0)
    np.testing.assert_array_equal(pixels[1], np.rint(opaque[1] * 0.2))
    np.testing.assert_array_equal(pixels[2:], opaque[2:])


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_black(mode):
    image = Image.new(mode, (2, 1), {"L": 7, "RGB": (7, 8, 9), "P": 1}[mode])
    if mode == "P":
        image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((1, 0), {"L": 99, "RGB": (99, 9, 9), "P": 0}[mode])
    pixels, _ = decode_image(encoded(image, transparency={"L": 7, "RGB": (7, 8, 9), "P": 1}[mode]))
    assert pixels.shape == (1, 2, 1 if mode == "L" else 3)
    assert not pixels[0, 0].any() and pixels[0, 1, 0] == {"L": 99, "RGB": 99, "P": 9}[mode]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_the_orientation_is_applied(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(_COLOUR), kind, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    pixels, _ = decode_image(content)
    np.testing.assert_array_equal(pixels, shown)
    assert header(tmp_path, content) == (*shown.shape[:2], True)


def test_other_jpegs(tmp_path):
    grey = encoded(Image.fromarray(_COLOUR).convert("L"), "JPEG")
    assert decode_image(grey)[0].shape == (6, 4, 1) and header(tmp_path, grey) == (6, 4, False)
    cmyk = encoded(Image.fromarray(_COLOUR).convert("CMYK"), "JPEG")
    assert decode_image(cmyk)[0].shape == (6, 4, 3) and header(tmp_path, cmyk) == (6, 4, True)


def _wrong_checksum(content):
    place = content.index(b"IDAT") + 6
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_broken_files_raise(tmp_path):
    png, jpeg = encoded(Image.fromarray(_COLOUR)), encoded(Image.fromarray(_COLOUR), "JPEG")
    gif = encoded(Image.fromarray(_COLOUR), "GIF")
    assert struct.unpack(">I", png[16:20]) == (4,) and zlib  # A header of the format that the cuts below assume.
    for content in (b"", b"no image", gif, png[:20], png[:-40], jpeg[:-40], _wrong_checksum(png)):
        with pytest.raises(Exception, match="."):
            decode_image(content)
    for content in (b"", gif, png[:20]):
        with pytest.raises(Exception, match="."):
            header(tmp_path, content)
