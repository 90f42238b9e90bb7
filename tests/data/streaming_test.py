"""Images that are read as they are needed: equal to those in memory, in the same order, and read only when used."""

import collections
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from wasser_tf import data
from wasser_tf.data import streaming
from wasser_tf.data.augmentation import make_augmentation
from wasser_tf.data.selection import ImageSource
from wasser_tf.data.streaming import StreamedImages, is_streamed
from wasser_tf.evaluation.fingerprint import array_digest
from wasser_tf.runtime import memory

_READING = {"image_size": (8, 8), "crop": "random"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of 80 JPEGs of different sizes in two classes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(40):
            pixels = rng.integers(0, 256, (12 + number % 3, 10, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def held(root):
    return data.load(root, **_READING)


@pytest.fixture(scope="module")
def streamed(root):
    return data.load(root, streaming="always", **_READING)


def equal(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


class Counted(StreamedImages):
    """Images whose pixels are their number, with a count of how often each was read."""

    def __init__(self, count):
        self.reads = collections.Counter()
        super().__init__(self._make, np.arange(count), (8, 8, 1))

    def _make(self, number):
        self.reads[number] += 1
        return np.full((8, 8, 1), number / 100, np.float32)


def counted_split(count=24):
    images = Counted(count)
    return images, data.Split(images, np.arange(count, dtype=np.int32) % 2, np.arange(count, dtype=np.int32))


def test_splits_are_those_in_memory(held, streamed):
    for one, other in zip(held[1:4], streamed[1:4], strict=True):
        assert is_streamed(other.images) and other.images.shape == one.images.shape
        np.testing.assert_array_equal(other.images, one.images)
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_array_equal(other.index, one.index)
    assert streamed.image_shape == held.image_shape
    assert array_digest(streamed.test.images, streamed.test.labels) == array_digest(held.test.images, held.test.labels)


def test_indexing_is_that_of_an_array(held, streamed):
    one, other = held.test.images, streamed.test.images
    assert (len(other), other.ndim, other.dtype, other.size) == (len(one), 4, np.float32, one.size)
    mask = np.arange(len(one)) % 2 == 0
    for key in (3, np.int64(2), slice(2, 5), slice(None, None, -1), [4, 1, 4], np.array([0]), mask, []):
        np.testing.assert_array_equal(other[key], one[key])
    np.testing.assert_array_equal(other.take(np.array([5, 2]))[:], one[[5, 2]])
    with pytest.raises(IndexError):
        other[len(one)]


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_batches_are_those_in_memory(held, streamed, augment):
    options = {"shuffle": True, "seed": 3, "epoch": 2, "drop_remainder": True, "numbered": True}
    options["augment"] = make_augmentation(augment, (8, 8, 3))
    wanted = list(data.batches(held.train, 8, **options))
    found = data.batches(streamed.train, 8, **options)
    assert len(found) == len(wanted)
    assert found.element_spec == data.batches(held.train, 8, **options).element_spec
    equal(wanted, list(found))
    # An epoch that is resumed after two steps, and the images of two workers.
    equal(wanted[2:], list(data.batches(streamed.train, 8, first_step=2, **options)))
    shares = [data.batches(streamed.train, 8, share=(number, number + 1, 2), **options) for number in range(2)]
    assert [len(share) for share in shares] == [len(wanted)] * 2
    for batch, *parts in zip(wanted, *shares, strict=True):
        equal(batch, tf.nest.map_structure(lambda *halves: tf.concat(halves, 0), *parts))
    both = list(data.batches(streamed.train, 8, share=(0, 2, 2), **options))
    assert len(both) == 2 * len(wanted)
    equal(wanted[1], tf.nest.map_structure(lambda *halves: tf.concat(halves, 0), *both[2:4]))
    equal(list(data.batches(held.train, 7)), list(data.batches(streamed.train, 7)))


def test_only_what_is_needed_is_read():
    images, split = counted_split()
    options = {"shuffle": True, "drop_remainder": True}
    for _ in data.batches(split, 8, share=(1, 2, 2), **options):
        pass
    assert len(images.reads) == 12 and set(images.reads.values()) == {1}
    images.reads.clear()
    for _ in data.batches(split, 8, first_step=2, **options):
        pass
    assert sum(images.reads.values()) == 8
    order = data.epoch_order(24, 0, 0)
    assert set(images.reads) == set(order[16:].tolist())


def test_shares_need_batches_that_can_be_divided():
    split = counted_split()[1]
    for parts, options in ((3, {"drop_remainder": True}), (2, {})):
        with pytest.raises(ValueError, match=f"share needs .* a multiple of the {parts} parts, got shuffle=True"):
            data.batches(split, 8, shuffle=True, share=(0, 1, parts), **options)


def test_a_selection_is_not_read(root, held, monkeypatch):
    reads = []
    decode = data.folder_loading._image
    monkeypatch.setattr(data.folder_loading, "_image", lambda *given: reads.append(1) or decode(*given))
    source = ImageSource(dataset=str(root), num_examples=3, reading=data.ReadingOptions(streaming="always", **_READING))
    chosen = source.load()
    assert not reads and is_streamed(chosen.images)
    np.testing.assert_array_equal(chosen.images[:], held.test.images[:3])
    assert len(reads) == 3
    # How images are read does not identify them.
    assert source.to_json()["reading"] == {"image_size": [8, 8], "crop": "random"}


def test_broken_files_are_named_when_they_are_read_or_skipped_before(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    path = copy / "cat" / "7.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    found = data.load(copy, streaming="always", **_READING)
    split = next(part for part in found[1:4] if _row_of(part, copy, path) is not None)
    with pytest.raises(ValueError, match=r"cat/7.jpg cannot be read \(.*repair or remove it, or pass --bad_files=skip"):
        split.images[:]
    with pytest.raises(ValueError, match="cat/7.jpg cannot be read"), streaming.report_unreadable(split.images):
        list(data.batches(split, 4))
    with pytest.warns(UserWarning, match="1 of the files in .* are skipped: cat/7.jpg"):
        skipped = data.load(copy, streaming="always", bad_files="skip", **_READING)
    assert sum(len(part.labels) for part in skipped[1:4]) == 79
    for part in skipped[1:4]:
        assert part.images[:].shape[0] == len(part.labels)


def _row_of(split, root, path):
    names = sorted(each.relative_to(root).as_posix() for each in root.rglob("*.jpg"))
    place = names.index(path.relative_to(root).as_posix())
    return next((row for row, index in enumerate(split.index) if index == place), None)


def test_the_digest_depends_on_names_and_sizes(root, streamed, tmp_path):
    assert streamed.digest.startswith("listing:")
    assert data.load(root, streaming="always", **_READING).digest == streamed.digest
    assert data.load(root, streaming="always", image_size=(6, 6)).digest != streamed.digest


def test_other_errors_pass_through():
    with pytest.raises(tf.errors.NotFoundError), streaming.report_unreadable(np.zeros(3)):
        raise tf.errors.NotFoundError(None, None, "gone")


def test_a_stream_becomes_an_array_if_it_fits(streamed, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    with pytest.raises(ValueError, match="The .* images need about .*: index some of them"):
        np.asarray(streamed.train.images)


def test_streams_are_of_folders(tmp_path):
    for name in ("digits", "a.npz"):
        with pytest.raises(ValueError, match="streaming=always needs a folder of images or a set of tensorflow-dat"):
            data.load(name, streaming="always")
    with pytest.raises(ValueError, match="streaming must be one of auto, always, never, got 'yes'"):
        data.load("digits", streaming="yes")
