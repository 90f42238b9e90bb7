"""Datasets out of .npz files, arrays and tf.data datasets."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import data

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.integers(0, 256, (24, 6, 5, 3)).astype(np.uint8)
_LABELS = np.arange(24) % 3


def sizes(dataset):
    return [len(getattr(dataset, split).labels) for split in data.SPLITS]


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_file(tmp_path):
    path = save(tmp_path / "a.npz", x_train=_IMAGES, y_train=_LABELS[:, None], x_test=_IMAGES[:6], y_test=_LABELS[:6])
    loaded = data.load(str(path))
    assert sizes(loaded) == [22, 2, 6] and loaded.num_classes == 3 and loaded.class_names is None
    np.testing.assert_array_equal(loaded.test.images, _IMAGES[:6] / np.float32(255))
    for split in (loaded.train, loaded.validation):
        np.testing.assert_array_equal(split.images, (_IMAGES / np.float32(255))[split.index])
        np.testing.assert_array_equal(split.labels, _LABELS[split.index])
    assert np.array_equal(np.sort(np.r_[loaded.train.index, loaded.validation.index]), np.arange(24))
    assert sizes(data.load(path, splits=("validation",), validation_size=5)) == [0, 5, 0]


def test_types_and_names(tmp_path):
    floats = (_IMAGES / 255).astype(np.float64)
    deep = (_IMAGES.astype(np.uint16)) * 257
    names = np.array(["x", "y", "z"])
    wanted = data.load(save(tmp_path / "a.npz", x_test=_IMAGES, y_test=_LABELS, class_names=names), splits=("test",))
    assert wanted.class_names == ("x", "y", "z")
    for images in (floats, deep):
        path = save(tmp_path / "b.npz", x_test=images, y_test=_LABELS.astype(np.uint8))
        loaded = data.load(path, splits=("test",), class_names=["p", "q", "r"])
        assert loaded.class_names == ("p", "q", "r") and loaded.digest != wanted.digest
        np.testing.assert_allclose(loaded.test.images, wanted.test.images, atol=1e-7)
    path = save(tmp_path / "c.npz", x_test=_IMAGES, y_test=_LABELS)
    small = data.load(path, splits=("test",), image_size=(3, 4), crop="center", channels=1)
    assert small.image_shape == (3, 4, 1) and small.digest != data.load(path, splits=("test",)).digest


def test_arrays_and_tf_data_are_alike():
    made = data.from_arrays((_IMAGES, _LABELS), name="mine")
    assert sizes(made) == [18, 2, 4] and made.name == "mine" and made.digest is None
    single = tf.data.Dataset.from_tensor_slices((_IMAGES, _LABELS))
    for other in (single, single.batch(7), [_IMAGES, _LABELS]):
        for ours, theirs in zip(made[1:4], data.from_arrays(other)[1:4], strict=True):
            for one, two in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, two)
    tested = data.from_arrays(test=(_IMAGES[..., 0], _LABELS), image_size=(3, 3), channels=3)
    assert sizes(tested) == [0, 0, 24] and tested.image_shape == (3, 3, 3)
    np.testing.assert_array_equal(tested.test.images[..., 0], tested.test.images[..., 2])


def test_random_crops_of_arrays_are_those_of_training():
    wide = np.tile(np.arange(24, dtype=np.uint8)[None, None, :, None] * 10, (24, 4, 1, 1))
    made = data.from_arrays((wide, _LABELS), image_size=(4, 4), crop="random")
    center = data.from_arrays((wide, _LABELS), image_size=(4, 4), crop="center")
    np.testing.assert_array_equal(made.test.images, center.test.images)
    np.testing.assert_array_equal(center.test.images[0, 0, :, 0], np.arange(100, 140, 10, np.float32) / np.float32(255))
    starts = made.train.images[:, 0, 0, 0] * 25.5
    np.testing.assert_allclose(starts, np.rint(starts), atol=1e-4)
    assert len(np.unique(np.rint(starts))) > 5


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (_IMAGES, _LABELS[:5], "one for each of the 24 images, got int64 .5,."),
        (_IMAGES, _LABELS / 2, "must be whole numbers, one for each"),
        (_IMAGES, np.eye(3)[_LABELS], r"pass labels.argmax\(1\)"),
        (_IMAGES, _LABELS - 1, "must count from 0, got -1 to 1"),
        (_IMAGES / 2.0, _LABELS, r"must lie in \[0, 1\], got .* divide them"),
        (_IMAGES.astype(int), _LABELS, "must be uint8, uint16 or floats"),
        (_IMAGES[0, 0], _LABELS, r"must be an array \[n, height, width, channels\]"),
        (_IMAGES.transpose(0, 3, 1, 2), _LABELS, r"channels last.*transpose\(0, 2, 3, 1\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data.from_arrays((images, labels))
    with pytest.raises(ValueError, match=message):
        data.load(save(tmp_path / "a.npz", x_train=images, y_train=labels))


@pytest.mark.parametrize("white", [16, 255, 1023, 4096])
def test_whole_numbers_of_a_known_depth_are_divided_by_white_with_a_warning(white):
    bright = np.random.default_rng(0).integers(0, white + 1, (24, 4, 4, 1)).astype(np.float64)
    bright[0, 0, 0] = white
    # A dark split is not brightened, and what is in [0, 1] already is not divided.
    with pytest.warns(UserWarning, match=f"whole numbers from 0 to {white}: they are divided by {white}"):
        made = data.from_arrays((bright, _LABELS), (np.floor(bright / 4), _LABELS))
    np.testing.assert_allclose(made.train.images, bright[made.train.index] / white, rtol=1e-6)
    np.testing.assert_allclose(made.test.images, np.floor(bright / 4) / white, rtol=1e-6)
    same = data.from_arrays((bright / white, _LABELS))
    np.testing.assert_allclose(same.train.images, bright[same.train.index] / white, rtol=1e-6)


@pytest.mark.parametrize("value", [1.5, 17.0, 255.5, -1.0, np.nan, np.inf])
def test_floats_without_a_known_white_are_refused(value):
    images = np.zeros((24, 4, 4, 1))
    images[3, 1, 2] = value
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got .* divide them"):
        data.from_arrays((np.zeros((24, 4, 4, 1)), _LABELS), (images, _LABELS))


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold x_train and y_train, and has only one of them"):
        data.load(save(tmp_path / "a.npz", x_train=_IMAGES))
    with pytest.raises(ValueError, match="must hold x_train and y_train or x_test and y_test, got z"):
        data.load(save(tmp_path / "a.npz", z=_IMAGES))
    path = save(tmp_path / "a.npz", x_train=_IMAGES, y_train=_LABELS, x_test=_IMAGES[:2], y_test=[0, 3])
    with pytest.raises(ValueError, match="class 3 of the test split of .* has no training image"):
        data.load(path)
    with pytest.raises(ValueError, match="class_names must name the classes 0 to 3 .* got 2 names"):
        data.load(path, class_names=("a", "b"))
    path = save(tmp_path / "a.npz", x_train=_IMAGES, y_train=_LABELS, x_test=_IMAGES[:, :4], y_test=_LABELS)
    with pytest.raises(ValueError, match="must have the same shape"):
        data.load(path)
    (tmp_path / "b.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="cannot be read as an .npz file"):
        data.load(tmp_path / "b.npz")
    pairs = tf.data.Dataset.from_tensor_slices((_IMAGES, _LABELS))
    with pytest.raises(ValueError, match=r"must be a finite tf.data.Dataset: leave out repeat\(\)"):
        data.from_arrays(pairs.repeat())
    with pytest.raises(ValueError, match="pairs .image, label., got elements"):
        data.from_arrays(pairs.map(lambda image, label: image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (0, 3)}, "image_size must be two whole numbers"),
        ({"crop": "center"}, r"crop=center needs the size of the crop: give image_size"),
        ({"crop": "left", "image_size": (2, 2)}, "crop must be one of none, center, random"),
        ({"channels": 2}, "channels must be one of None, 1, 3"),
        ({"class_names": ("a", "a")}, "class_names must be at least two different names"),
        ({"class_names": "ab"}, "class_names must be a list of names"),
        ({"bad_files": "ignore"}, "bad_files must be one of refuse, skip"),
    ],
)
def test_reading_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("digits", **options)


def test_reading_options_apply_to_the_digits():
    plain = data.load("digits")
    named = data.load("digits", class_names=[f"number {label}" for label in range(10)], channels=3)
    assert named.class_names[3] == "number 3" and named.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(named.test.images[..., :1], plain.test.images)
    with pytest.raises(ValueError, match="class_names must name the 10 classes of digits, got 2 names"):
        data.load("digits", class_names=("a", "b"))
    assert data.load("digits", image_size=(6, 3), crop="center", splits=("test",)).image_shape == (6, 3, 1)
