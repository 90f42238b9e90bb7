import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wasser_tf.data import augmentation, pixel_sources
from wasser_tf.data.augmentation import RandomMirror, RandomShift

_CHANGES = [name for name in augmentation.AUGMENTATIONS if name != "none"]


def _images(count, height=8, width=9, channels=3, seed=0):
    return tf.constant(np.random.default_rng(seed).random((count, height, width, channels), np.float32))


@pytest.mark.parametrize("name", _CHANGES)
@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 5),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    channels=st.integers(1, 3),
    seed=st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)),
)
def test_augmentation_keeps_shape_and_pixel_values(name, count, height, width, channels, seed):
    images = _images(count, height, width, channels)
    changed = augmentation.make_augmentation(name, (height, width, channels))(images, tf.constant(seed, tf.int64))
    assert changed.shape == images.shape and changed.dtype == images.dtype
    for before, after in zip(images.numpy(), changed.numpy(), strict=True):
        for channel in range(channels):
            assert set(after[..., channel].ravel()) <= {0.0, 0.5, *before[..., channel].ravel()}


@pytest.mark.parametrize("name", _CHANGES)
def test_augmentation_is_a_function_of_the_seed(name):
    images, change = _images(16), augmentation.make_augmentation(name, (8, 9, 3))
    first = change(images, tf.constant([3, 4], tf.int64))
    np.testing.assert_array_equal(first, tf.function(change)(images, tf.constant([3, 4], tf.int64)))
    assert not np.array_equal(first, change(images, tf.constant([3, 5], tf.int64)))
    # Each image goes its own way; a flip has two.
    same = tf.repeat(images[:1], 16, axis=0)
    assert len({one.tobytes() for one in change(same, tf.constant([3, 4], tf.int64)).numpy()}) >= (
        2 if name == "flip" else 4
    )


@pytest.mark.parametrize(("fill", "mode"), [("constant", "constant"), ("reflect", "reflect")])
def test_every_shift_is_equally_likely_and_equals_a_crop_of_the_padded_image(fill, mode):
    image = _images(1, 5, 6, 2)[0].numpy()
    padded = np.pad(image, [(1, 1), (2, 2), (0, 0)], mode=mode)
    crops = {padded[i : i + 5, j : j + 6].tobytes(): (i, j) for i in range(3) for j in range(5)}
    assert len(crops) == 15
    shifted = RandomShift(1, 2, fill)(tf.repeat(image[None], 3000, axis=0), tf.constant([1, 2], tf.int64)).numpy()
    counts = np.zeros((3, 5))
    for one in shifted:
        counts[crops[one.tobytes()]] += 1
    # Of 200 each; five standard deviations are 68.
    assert abs(counts - 200).max() < 68


def test_half_of_the_images_are_mirrored():
    image = _images(1)[0].numpy()
    changed = RandomMirror()(tf.repeat(image[None], 1000, axis=0), tf.constant([1, 2], tf.int64)).numpy()
    mirrored = (changed == image[:, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (changed == image).all(axis=(1, 2, 3))).all() and 420 < mirrored.sum() < 580


@pytest.mark.parametrize("name", ["shift", "crop_flip"])
@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(8, 20), width=st.integers(8, 20), seed=st.tuples(st.integers(0, 2**31), st.integers(0, 2**31))
)
def test_pixels_come_from_their_sources(name, height, width, seed):
    images, seed = _images(3, height, width), tf.constant(seed, tf.int64)
    change = augmentation.make_augmentation(name, (height, width, 3))
    sources = change.sources(images, seed)
    np.testing.assert_array_equal(pixel_sources.to_augmented(images, sources), change(images, seed))
    # There and back: what the augmented image shows returns, and the rest is taken from elsewhere.
    there = change(images, seed)
    elsewhere = tf.fill(images.shape, -1.0)
    back = pixel_sources.to_original(there, sources, elsewhere).numpy()
    for one, image, rows, columns in zip(back, images.numpy(), *sources, strict=True):
        shown = np.isin(np.arange(height), rows)[:, None] & np.isin(np.arange(width), columns)[None]
        np.testing.assert_array_equal(one, np.where(shown[..., None], image, -1.0))


def test_of_a_pixel_that_a_border_reflects_the_unreflected_one_returns():
    # A crop that begins two rows above the image and shows its rows 2, 1, 0, 1, 2.
    sources = pixel_sources.PixelSources(tf.constant([[2, 1, 0, 1, 2]]), tf.constant([[0]]))
    values = tf.reshape(tf.range(5.0), [1, 5, 1, 1])
    back = pixel_sources.to_original(values, sources, tf.fill([1, 5, 1, 1], -1.0))
    assert back.numpy().ravel().tolist() in ([2, 3, 4, -1, -1], [2, 1, 4, -1, -1], [2, 3, 0, -1, -1], [2, 1, 0, -1, -1])


def test_cutout_makes_a_square_grey_and_moves_nothing():
    images, seed = _images(200, 8, 8), tf.constant([1, 2], tf.int64)
    cutout = augmentation.RandomCutout(3, 4)
    changed = cutout(images, seed).numpy() != images.numpy()
    rows, columns = changed.any(axis=(2, 3)).sum(axis=1), changed.any(axis=(1, 3)).sum(axis=1)
    assert (changed.any(axis=3).sum(axis=(1, 2)) == rows * columns).all()
    assert rows.max() == 3 and columns.max() == 4 and rows.min() >= 1 and columns.min() >= 2
    assert (cutout(images, seed).numpy()[changed] == 0.5).all()
    np.testing.assert_array_equal(pixel_sources.to_augmented(images, cutout.sources(images, seed)), images)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cutout))
    assert (again.height, again.width) == (3, 4)
    (*_, square) = augmentation.make_augmentation("crop_flip_cutout", (32, 40, 3)).layers
    assert (square.height, square.width) == (8, 10)


def test_layers_are_described_by_their_config():
    layer = RandomShift(1, 2, "reflect", name="shift")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config() and (again.height, again.width, again.fill) == (1, 2, "reflect")


def test_shifts_are_an_eighth_of_either_side_and_names_are_the_package_s():
    (shift,) = augmentation.make_augmentation("shift", (17, 24, 1)).layers
    crop, mirror = augmentation.make_augmentation("crop_flip", (32, 40, 3)).layers
    assert [(one.height, one.width, one.fill) for one in (shift, crop)] == [(2, 3, "constant"), (4, 5, "reflect")]
    assert isinstance(mirror, RandomMirror) and augmentation.make_augmentation("shift", (8, 8, 1)).layers[0].height == 1
    for layer in (RandomShift, RandomMirror):
        assert keras.saving.get_registered_name(layer) == f"wasser_tf>{layer.__name__}"


@pytest.mark.parametrize("fill", ["constant", "reflect"])
def test_rows_and_columns_are_shifted_by_numbers_of_their_own(fill):
    images, seed = _images(40, 8, 8, 1), tf.constant([5, 6], tf.int64)
    found = RandomShift(2, 1, fill)(images, seed).numpy()

    def offsets(number, most):
        return tf.random.stateless_uniform([40, 1], tf.random.fold_in(seed, number), 0, 2 * most + 1, tf.int32).numpy()

    padded = np.pad(images, [(0, 0), (2, 2), (1, 1), (0, 0)], mode=fill)
    for image, one, row, column in zip(padded, found, offsets(0, 2)[:, 0], offsets(1, 1)[:, 0], strict=True):
        np.testing.assert_array_equal(one, image[row : row + 8, column : column + 8])
    # Layers in a row draw from seeds of their own.
    both = augmentation.Augmentation([RandomShift(2, 1, fill), RandomMirror()])(images, seed)
    shifted = RandomShift(2, 1, fill)(images, tf.random.fold_in(seed, 0))
    np.testing.assert_array_equal(both, RandomMirror()(shifted, tf.random.fold_in(seed, 1)))


def test_none_makes_no_augmentation_and_unknown_names_are_refused():
    assert augmentation.make_augmentation("none", (1, 1, 1)) is None
    with pytest.raises(
        ValueError, match="augment must be one of none, shift, flip, crop_flip, crop_flip_cutout, got 'cutmix'"
    ):
        augmentation.make_augmentation("cutmix", (32, 32, 3))
    with pytest.raises(ValueError, match="at least 8×8 pixels, got 7×28"):
        augmentation.make_augmentation("shift", (7, 28, 1))
    with pytest.raises(ValueError, match="fill must be constant or reflect, got 'nearest'"):
        RandomShift(1, 1, "nearest")
    for dataset in ("cifar10", "fashion_mnist", "mnist_corrupted_not"):
        augmentation.check_suits("crop_flip", dataset)
    augmentation.check_suits("shift", "mnist")
    for dataset in ("digits", "mnist:3.0.1", "emnist/letters:3.0.0"):
        message = f"augment=crop_flip flips images, which changes the characters of {dataset}"
        with pytest.raises(ValueError, match=message):
            augmentation.check_suits("crop_flip", dataset)
