"""The description of a classifier from one look at it: axes, shapes and pixel ranges at their boundaries."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.models.inspection import _data_format, _input_range, _layout, _own_shape, input_spec
from wasser_tf.models.probe import Look, Step


def look(*steps, channels_first=None, **changes):
    return Look((), tuple(Step(*step) for step in steps), channels_first, True, **changes)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ((8, 8, 5), "channels_last"),
        ((4, 4, 8), "channels_last"),
        ((3, 8, 3), "channels_last"),
        ((8, 8, 1), "channels_last"),
        ((5, 8, 4), "channels_last"),
    ],
)
def test_many_channels_or_more_than_rows_mean_channels_last(own, expected):
    assert _data_format(own, look(), None, None) == expected


@pytest.mark.parametrize("own", [(1, 8, 8), (3, 8, 8), (4, 8, 8), (4, 5, 6), (13, 16, 16)])
def test_few_leading_channels_need_evidence(own):
    with pytest.raises(ValueError, match=rf"channels first or of {own[2]} channels: .*data_format='channels_first'"):
        _data_format(own, look(), None, None)
    with pytest.raises(ValueError, match="data_format"):
        _data_format(own, look(), own, None)
    assert _data_format(own, look(channels_first=True), None, None) == "channels_first"
    assert _data_format(own, look(channels_first=False), None, None) == "channels_last"
    # Images at hand that are channels last, in another order of the same sizes.
    assert _data_format(own, look(), (own[1], own[2], own[0]), None) == "channels_first"
    assert _data_format(own, look(), None, "channels_last") == "channels_last"


def test_flat_and_grey_inputs_have_no_order_of_axes():
    assert _data_format((64,), look(channels_first=True), None, None) is None
    assert _data_format((8, 8), look(channels_first=True), None, None) is None
    assert _data_format((64,), look(), None, "channels_first") == "channels_first"


@pytest.mark.parametrize(
    ("own", "shape", "image_shape", "data_format", "expected"),
    [
        ((3, 8, 9), None, None, "channels_first", ("image", (8, 9, 3))),
        ((8, 9, 3), None, None, "channels_last", ("image", (8, 9, 3))),
        ((8, 9), None, None, None, ("grey", (8, 9, 1))),
        ((72,), (8, 9, 1), None, None, ("flat", (8, 9, 1))),
        ((72,), (9, 8, 1), (8, 9, 1), None, ("flat", (8, 9, 1))),
        ((216,), (8, 9, 3), None, "channels_last", ("flat", (8, 9, 3))),
    ],
)
def test_layouts(own, shape, image_shape, data_format, expected):
    assert _layout(own, shape, image_shape, data_format) == expected


@pytest.mark.parametrize(
    ("own", "shape", "message"),
    [
        ((72,), None, "flattened images of 72 numbers: give image_shape"),
        ((72,), (72,), "give image_shape"),
        ((72,), (8, 8, 1), r"flattened images of 72 numbers, got images of shape \(8, 8, 1\)"),
        ((216,), (8, 9, 3), "flattened images of 3 channels: give data_format"),
        ((1, 2, 3, 4), None, r"must take images, got an input of shape \(1, 2, 3, 4\)"),
    ],
)
def test_layouts_that_are_refused(own, shape, message):
    with pytest.raises(ValueError, match=message):
        _layout(own, shape, None, None)


@pytest.mark.parametrize(
    ("known", "shape", "image_shape", "data_format", "expected"),
    [
        ((8, 9, 1), (5, 5, 1), None, None, (8, 9, 1)),
        ((None, None, 1), (5, 6, 1), None, None, (5, 6, 1)),
        ((3, None, None), None, (5, 6, 3), "channels_first", (3, 5, 6)),
        ((None, None, 3), None, (5, 6, 3), None, (5, 6, 3)),
        (None, (5, 6, 1), None, None, (5, 6, 1)),
        (None, (5, 6, 1), (7, 8, 1), None, (7, 8, 1)),
        (None, (3, 5, 6), None, "channels_first", (3, 5, 6)),
    ],
)
def test_the_shape_that_a_model_declares_precedes_that_of_the_images(known, shape, image_shape, data_format, expected):
    spec = None if known is None else ((None, *known), tf.float32)
    assert _own_shape(spec, shape, image_shape, data_format) == expected


def test_an_unknown_shape_is_asked_for():
    with pytest.raises(ValueError, match="give image_shape"):
        _own_shape(None, None, None, None)


@pytest.mark.parametrize(
    ("factor", "offset", "dtype", "expected"),
    [
        (1, 0, tf.float32, (0, 1)),
        (1, 0, tf.uint8, (0, 255)),
        (1 / 255, 0, tf.float32, (0, 255)),
        (1 / 127.5, -1, tf.float32, (0, 255)),
        (1 / 255, -0.5, tf.float32, (0, 255)),
        (1 / 58, -120 / 58, tf.float32, (0, 255)),
        (1, -117, tf.float32, (0, 255)),
        (4.0, -2.0, tf.float32, (0, 1)),
        (0.5, -1.0, tf.float32, (0, 1)),
        (-1 / 255, 1, tf.float32, (0, 255)),
        (-1.0, 1.0, tf.float32, (0, 1)),
    ],
)
def test_ranges_of_pixels_by_the_first_operations(factor, offset, dtype, expected):
    assert _input_range(look((factor, offset)), dtype) == expected


@pytest.mark.parametrize(
    ("factor", "offset", "dtype", "message"),
    [
        (1, 0, tf.int32, "takes int32 pixels"),
        (1 / 16, 0, tf.float32, "first multiplies pixels by 0.0625 and adds 0"),
        (1.0, -300.0, tf.float32, "adds -300"),
        (1.0, 3.0, tf.float32, "adds 3"),
        (4.0, -2.0, tf.int16, "first multiplies pixels by 4"),
        (1 / 140, -120 / 140, tf.float32, "first multiplies"),
        (1 / 4, -1.0, tf.float32, "first multiplies"),
    ],
)
def test_other_ranges_of_pixels_are_asked_for(factor, offset, dtype, message):
    with pytest.raises(ValueError, match=f"{message}.*give input_range"):
        _input_range(look((factor, offset)), dtype)


def test_several_uses_of_the_images_must_agree():
    assert _input_range(look(), tf.float32) == _input_range(look((1, 0), (2, -1)), tf.float32) == (0, 1)
    assert _input_range(look((1 / 255, 0), (1 / 127.5, -1)), tf.float32) == (0, 255)
    with pytest.raises(ValueError, match=r"by 0.003922 and adds 0, and elsewhere multiplies pixels by 1 .*input_range"):
        _input_range(look((1 / 255, 0), (1, 0)), tf.float32)
    with pytest.raises(ValueError, match=r"cannot be looked into.*input_range"):
        _input_range(look((1, 0), hidden=True), tf.float32)


class Declared:
    def __init__(self, input_shape):
        self.input_shape = input_shape


def test_input_shapes_of_models_without_inputs():
    assert input_spec(Declared((None, 8, 8, 1))) == ((None, 8, 8, 1), tf.float32)
    assert input_spec(Declared((None, 64))) == ((None, 64), tf.float32)
    for shape in ([(None, 8, 8, 1)], (None,), (None, 1, 2, 3, 4), None):
        assert input_spec(Declared(shape)) is None
    assert input_spec(np.sum) is None
