"""Folders of images as datasets: what is read, how splits are made, and what is refused."""

import pathlib
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from wasser_tf import data


def pictures(root, classes=("cat", "dog"), count=12, shape=(6, 5), mode="RGB", suffix=".png"):
    """Writes images whose pixels are all different; returns the folder."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{number}{suffix}")
    return root


def sizes(dataset):
    return [len(getattr(dataset, split).labels) for split in data.SPLITS]


def pixels_of(path):
    return np.asarray(Image.open(path), np.float32) / np.float32(255)


def test_a_folder_of_classes_is_divided_in_proportion(tmp_path):
    root = pictures(tmp_path / "set")
    loaded = data.load(root)
    assert sizes(loaded) == [18, 2, 4] and loaded.image_shape == (6, 5, 3)
    assert (loaded.num_classes, loaded.class_names) == (2, ("cat", "dog"))
    names = [f"{name}/{number}.png" for name, number in sorted((n, str(k)) for n in ("cat", "dog") for k in range(12))]
    names = sorted(names)
    seen = []
    for split in (loaded.train, loaded.validation, loaded.test):
        assert np.bincount(split.labels).tolist() == [len(split.labels) // 2] * 2
        for image, label, index in zip(*split, strict=True):
            assert names[index].startswith(loaded.class_names[label])
            np.testing.assert_array_equal(image, pixels_of(root / names[index]))
            seen.append(index)
    assert sorted(seen) == list(range(24))
    # A split that is loaded alone is the same, as is a copy of the folder.
    np.testing.assert_array_equal(data.load(root, splits=("test",)).test.images, loaded.test.images)
    copy = shutil.copytree(root, tmp_path / "copy")
    assert data.load(copy).digest == loaded.digest


def test_split_folders_are_read_as_they_are(tmp_path):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        pictures(tmp_path / part, count=count)
    loaded = data.load(tmp_path)
    assert sizes(loaded) == [12, 4, 6]
    np.testing.assert_array_equal(loaded.test.images[4], pixels_of(tmp_path / "test" / "dog" / "1.png"))
    assert sizes(data.load(tmp_path, splits=("validation",))) == [0, 4, 0]
    shutil.rmtree(tmp_path / "test")
    # As for tensorflow-datasets, validation replaces a missing test split.
    replaced = data.load(tmp_path, validation_size=3)
    assert sizes(replaced) == [9, 3, 4]
    shutil.rmtree(tmp_path / "train")
    assert sizes(data.load(tmp_path, splits=("test",))) == [0, 0, 4]
    with pytest.raises(ValueError, match="has no train split, only validation"):
        data.load(tmp_path)


def test_the_digest_depends_on_what_was_read(tmp_path):
    root = pictures(tmp_path / "a")
    first = data.load(root, splits=("test",))
    assert data.load(root, splits=("test",), image_size=(3, 3)).digest != first.digest
    assert data.load(root).digest != first.digest
    for path in root.rglob("*.png"):
        Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(path)
    assert data.load(root, splits=("test",)).digest != first.digest


def test_sizes_that_differ(tmp_path):
    root = pictures(tmp_path, shape=(6, 6))
    Image.fromarray(np.full((4, 8, 3), 200, np.uint8)).save(root / "cat" / "wide.png")
    with pytest.raises(ValueError, match="differ in size .*0.png is 6×6, cat/wide.png is 4×8.: pass --image_size=H,W"):
        data.load(root)
    assert data.load(root, image_size=(3, 3)).image_shape == (3, 3, 3)


def test_crops(tmp_path):
    # A left half of 0 and a right half of 1, with a thin ramp; three times as wide as high.
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 12:] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.fromarray(wide).save(tmp_path / name / f"{number}.png")
    stretched = data.load(tmp_path, image_size=(8, 8)).train.images
    np.testing.assert_allclose(stretched[:, :, :3], 0, atol=1e-6)
    center = data.load(tmp_path, image_size=(8, 8), crop="center")
    np.testing.assert_array_equal(center.train.images[0], wide[:, 8:16] / np.float32(255))
    chance = data.load(tmp_path, image_size=(8, 8), crop="random")
    np.testing.assert_array_equal(chance.test.images, center.test.images)
    assert len({image.tobytes() for image in chance.train.images}) > 3
    np.testing.assert_array_equal(
        chance.train.images, data.load(tmp_path, image_size=(8, 8), crop="random").train.images
    )
    # The size of a crop of half the height is twice as fine.
    half = data.load(tmp_path, image_size=(4, 4), crop="center").train.images
    assert half.shape[1:] == (4, 4, 3) and half[:, :, 0].max() < 0.2 and half[:, :, 3].min() > 0.8


def test_grey_among_colours(tmp_path):
    pictures(tmp_path / "train", count=4)
    pictures(tmp_path / "test", count=4, mode="L")
    loaded = data.load(tmp_path, splits=("test",), channels=None)
    assert loaded.image_shape == (6, 5, 3)
    grey = data.load(tmp_path, splits=("test",), channels=1).test.images
    np.testing.assert_allclose(loaded.test.images, np.repeat(grey, 3, -1), atol=1e-6)
    assert data.load(tmp_path / "test").image_shape == (6, 5, 1)
    luma = data.load(tmp_path, splits=("train",), channels=1).train.images
    colours = data.load(tmp_path, splits=("train",)).train.images
    np.testing.assert_allclose(luma[..., 0], colours @ np.array([0.299, 0.587, 0.114]), atol=1e-6)


def _spoil(root):
    (root / "notes.txt").write_text("x")
    (root / "cat" / "0.png").write_bytes(b"")
    (root / "cat" / "1.png").write_bytes((root / "cat" / "1.png").read_bytes()[:-40])
    Image.fromarray(np.zeros((6, 5), np.uint8)).save(root / "cat" / "2.png", "GIF")


def test_bad_files_are_named_or_skipped(tmp_path):
    root = pictures(tmp_path)
    whole = data.load(root)
    _spoil(root)
    message = (
        r"3 of the files in .*, which .* 24 images, cannot be used: cat/0.png \(not a PNG or JPEG image\); cat/2.png "
        r".*; notes.txt \(not a PNG or JPEG image in a folder of a class\)\. Repair .* or pass --bad_files=skip"
    )
    with pytest.raises(ValueError, match=message):
        data.load(root)
    with pytest.warns(UserWarning, match="3 of the files in .* are skipped: cat/0.png"):
        with pytest.warns(UserWarning, match=r"1 of the files in .* are skipped: cat/1.png \(Truncated"):
            rest = data.load(root, bad_files="skip")
    # Other files are in the splits where they were.
    for before, after in zip(whole[1:4], rest[1:4], strict=True):
        kept = np.isin(before.index, after.index)
        np.testing.assert_array_equal(before.images[kept], after.images)
    assert sum(sizes(rest)) == 21
    for name in ("cat/0.png", "cat/2.png", "notes.txt"):
        (root / name).unlink()
    with pytest.raises(ValueError, match="1 of the files in .* cannot be used: cat/1.png .Truncated"):
        data.load(root)


def test_missing_classes(tmp_path):
    pictures(tmp_path / "train", ("a", "b", "c"), count=3)
    pictures(tmp_path / "test", ("a", "b"), count=3)
    with pytest.warns(UserWarning, match="class c has no image in the test split"):
        loaded = data.load(tmp_path, splits=("test",))
    assert loaded.num_classes == 3
    pictures(tmp_path / "test", ("d",), count=1)
    with pytest.raises(ValueError, match="class d of the test split of .* has no training image: add some, or remove"):
        data.load(tmp_path, splits=("test",))
    shutil.rmtree(tmp_path / "test" / "d")
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match="class empty has no image in the train split of .*: add some, or leave"):
        data.load(tmp_path, splits=("train",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A folder with a test split only, with the names of the classifier's classes.
        pictures(tmp_path / "other" / "test", ("a", "b", "c"), count=2)
        names = ("c", "b", "a")
        alone = data.load(tmp_path / "other", splits=("test",), class_names=names)
    assert alone.test.labels.tolist() == [2, 2, 1, 1, 0, 0] and alone.class_names == names


def test_paths_and_names(tmp_path, monkeypatch):
    pictures(tmp_path / "photos", count=6)
    pictures(tmp_path / "mnist", count=6)
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "./photos", "photos/", pathlib.Path("photos"), str(tmp_path / "photos"), "./mnist"):
        assert data.load(name).num_classes == 2
    # The name of a known set is not that of a folder.
    with pytest.raises(ValueError, match="'mnist' is not in"):
        data.load("mnist", data_dir=tmp_path / "none")
    with pytest.raises(ValueError, match="There is no folder and no .npz file nowhere"):
        data.load("nowhere/")
    with pytest.raises(ValueError, match="There is no dataset 'fotos'.*pass digits, a folder of images, an .npz file"):
        data.load("fotos")


def test_a_set_that_does_not_fit_is_streamed_or_refused_before_it_is_read(tmp_path, monkeypatch):
    from wasser_tf.data.streaming import is_streamed
    from wasser_tf.runtime import memory

    root = pictures(tmp_path, count=6)
    monkeypatch.setattr(memory, "available_memory", lambda: 12 * 6 * 5 * 3 * 4 - 1)
    with pytest.raises(ValueError, match="The 12 images of .* need about .* GiB and .* GiB of memory are available"):
        data.load(root, streaming="never")
    assert is_streamed(data.load(root).train.images)
    # A sixth of them takes less than half of the memory.
    assert not is_streamed(data.load(root, splits=("test",)).test.images)
    assert sizes(data.load(root, splits=("test",), streaming="never")) == [0, 0, 2]
