import time

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds

from wasser_tf import data
from wasser_tf.data import tensorflow_datasets
from wasser_tf.data.streaming import is_streamed


def test_digits_are_the_same_1797_in_three_disjoint_parts():
    digits = data.load()
    assert [len(split.labels) for split in (digits.train, digits.validation, digits.test)] == [1197, 200, 400]
    assert digits.image_shape == (8, 8, 1) and digits.num_classes == 10 == len(digits.class_names)
    index = np.concatenate([digits.train.index, digits.validation.index, digits.test.index])
    assert np.array_equal(np.sort(index), np.arange(1797))
    for split in (digits.train, digits.validation, digits.test):
        assert (split.images.dtype, split.labels.dtype, split.index.dtype) == (np.float32, np.int32, np.int32)
        assert split.images.min() == 0 and split.images.max() == 1
        share = np.bincount(split.labels, minlength=10) / len(split.labels)
        np.testing.assert_allclose(share, 0.1, atol=0.01)
    # The split is part of every published figure: it must not move with a version of anything.
    assert digits.test.index[:5].tolist() == [11, 23, 24, 25, 28]
    assert digits.validation.index[:5].tolist() == [0, 3, 7, 26, 46]


def test_unrequested_splits_are_empty_and_do_not_change_the_others():
    alone = data.load("digits", splits=("test",))
    assert alone.train.images.shape == (0, 8, 8, 1) and alone.image_shape == (8, 8, 1)
    np.testing.assert_array_equal(alone.test.index, data.load("digits").test.index)


def test_digits_resize_and_validation_size():
    digits = data.load("digits", image_size=(4, 6), validation_size=7)
    assert digits.image_shape == (4, 6, 1) and len(digits.validation.labels) == 7
    assert digits.train.images.min() >= 0 and digits.train.images.max() <= 1
    whole = sklearn.datasets.load_digits()
    small = tf.image.resize(whole.images[digits.test.index, :, :, None] / 16, (4, 6), antialias=True)
    np.testing.assert_allclose(digits.test.images, np.clip(small, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(digits.test.labels, whole.target[digits.test.index])
    plain = data.load("digits", validation_size=1396)
    np.testing.assert_array_equal(plain.test.images[..., 0], np.float32(whole.images[plain.test.index] / 16))
    assert _sizes(plain) == [1, 1396, 400]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": "test"}, "splits must be some of train, validation, test, got 'test'"),
        ({"splits": ("testing",)}, "splits must be some of"),
        ({"splits": ()}, "splits must be some of"),
        ({"validation_size": 0}, "validation_size must be a whole number of at least 1, got 0"),
        ({"validation_size": 1397}, "must leave examples to train on, got 1397 of the 1397"),
        ({"image_size": (8,)}, "image_size must be two whole numbers"),
        ({"image_size": (8, -1)}, "image_size must be two whole numbers"),
        ({"name": None}, "name must be a string"),
    ],
)
def test_load_refuses_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        data.load(**options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnsit",
            "no dataset 'mnsit' .did you mean mnist.*pass digits, a folder of images, an .npz file, or an image class",
        ),
        ("zzzzzz", "no dataset 'zzzzzz': pass digits"),
        ("kaggle:mnist", "no dataset 'kaggle:mnist'"),
        ("../mnist", r"There is no folder and no \.npz file \.\./mnist: give the path of one, or the name"),
        ("mnist/none", "tensorflow-datasets cannot build 'mnist/none': .*BuilderConfig none not found"),
        ("glue", "glue is not an image classification set"),
        ("mnist", "'mnist' is not in .*empty .looked for .*mnist.*: pass --download .* or --data_dir=.* holds mnist/"),
        ("stanford_dogs", "images of stanford_dogs differ in size: pass image_size"),
    ],
)
def test_wrong_or_missing_datasets_are_reported_at_once(tmp_path, name, message):
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        data.load(name, data_dir=tmp_path / "empty")
    assert time.monotonic() - start < 10


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """Twelve images of three classes, in class order; what is in them tells where they came from."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 12, "validation": 3, "test": 3}
    SHAPE = (4, 5, 1)
    SHUFFLED = True
    UNLABELLED = False

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"id": np.int64, **features}), disable_shuffling=not self.SHUFFLED
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, count) for split, count in self.SPLITS.items()}

    def _generate_examples(self, split, count):
        for i in range(count):
            side = 4 if self.SHAPE[0] else 4 + i
            image = np.full((side, 5, 1), 20 * i % 256, np.uint8)
            yield i, {"id": i, "image": image, "label": -1 if self.UNLABELLED else 3 * i // count}


class TinyTrainOnly(TinyImages):
    SPLITS = {"train": 12}


class TinyWithoutTest(TinyImages):
    SPLITS = {"train": 12, "validation": 3}


class TinySorted(TinyTrainOnly):
    SPLITS = {"train": 36}
    SHUFFLED = False


class TinyTestOnly(TinyImages):
    SPLITS = {"test": 3}


class TinyOfSizes(TinyImages):
    SHAPE = (None, 5, 1)


class TinyUnlabelled(TinyImages):
    UNLABELLED = True


def _tiny(name, tmp_path, **options):
    return data.load(name, data_dir=tmp_path, download=True, **options)


def test_a_failed_download_is_reported_with_its_innermost_cause(tmp_path, monkeypatch):
    def fetch(self):
        try:
            raise OSError(-2, "Name or service not known")
        except OSError as error:
            raise RuntimeError(f"Retries exceeded (Caused by {error}" + 300 * "…") from error

    monkeypatch.setattr(TinyImages, "download_and_prepare", fetch)
    with pytest.raises(ValueError, match=r"downloaded into .* \(\[Errno -2\] Name or service not known\): fix that"):
        _tiny("tiny_images", tmp_path)


def _sizes(dataset):
    return [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]


def test_own_splits_are_used(tmp_path):
    tiny = _tiny("tiny_images", tmp_path)
    assert _sizes(tiny) == [12, 3, 3]
    assert tiny.num_classes == 3 and tiny.class_names == ("a", "b", "c") and tiny.image_shape == (4, 5, 1)
    # Example i is 20·i of 255 everywhere, and of class ⌊i / 4⌋.
    i = np.round(tiny.train.images[:, 0, 0, 0] * 255 / 20).astype(int)
    np.testing.assert_array_equal(np.sort(i), np.arange(12))
    np.testing.assert_array_equal(tiny.train.labels, i // 4)
    np.testing.assert_allclose(
        tiny.train.images, np.broadcast_to(i[:, None, None, None] * 20 / 255, (12, 4, 5, 1)), rtol=1e-6
    )


def test_missing_splits_are_held_out_of_train(tmp_path):
    tiny = _tiny("tiny_train_only", tmp_path)
    assert _sizes(tiny) == [9, 1, 2]
    assert [split.index.tolist() for split in tiny[1:4]] == [list(range(9)), [9], [10, 11]]
    assert _sizes(_tiny("tiny_train_only", tmp_path, validation_size=4, splits=("validation",))) == [0, 4, 0]
    # What was not asked for is held out all the same, and not returned.
    assert _sizes(_tiny("tiny_train_only", tmp_path, splits=("train",))) == [9, 0, 0]
    with pytest.raises(ValueError, match="must leave examples to train on, got 10 of the 10 in tiny_train_only"):
        _tiny("tiny_train_only", tmp_path, validation_size=10)


def test_the_size_of_held_out_splits_is_bounded(tmp_path, monkeypatch):
    _tiny("tiny_train_only", tmp_path)
    stored = {}

    def read(builder, name, source, keys, shape, reading, training):
        count = stored["count"]
        return data.Split(np.zeros((count, 1, 1, 1), np.float32), np.zeros(count, np.int32), np.arange(count))

    monkeypatch.setattr(tensorflow_datasets, "_read", read)
    for count, sizes in ((60000, [45000, 5000, 10000]), (59988, [44991, 4999, 9998]), (72000, [57000, 5000, 10000])):
        stored["count"] = count
        tiny = _tiny("tiny_train_only", tmp_path)
        assert _sizes(tiny) == sizes
        # Validation before test, and both at the end.
        index = np.concatenate([split.index for split in tiny[1:4]])
        np.testing.assert_array_equal(index, np.arange(count))


def test_validation_replaces_a_missing_test_split(tmp_path):
    tiny = _tiny("tiny_without_test", tmp_path)
    assert _sizes(tiny) == [11, 1, 3]
    assert tiny.validation.index.tolist() == [11] and tiny.test.index.tolist() == [0, 1, 2]


def test_sorted_sets_are_held_out_class_by_class(tmp_path):
    tiny = _tiny("tiny_sorted", tmp_path)
    assert _sizes(tiny) == [27, 3, 6]
    for split in (tiny.train, tiny.validation, tiny.test):
        assert np.bincount(split.labels).tolist() == [len(split.labels) // 3] * 3


def test_sets_without_train_serve_for_testing(tmp_path):
    assert _sizes(_tiny("tiny_test_only", tmp_path, splits=("test",))) == [0, 0, 3]
    with pytest.raises(ValueError, match=r"has no train split, only test: load it with splits=\('test',\)"):
        _tiny("tiny_test_only", tmp_path)


def test_sizes_that_differ_are_resized(tmp_path):
    with pytest.raises(ValueError, match="differ in size: pass image_size"):
        _tiny("tiny_of_sizes", tmp_path)
    tiny = _tiny("tiny_of_sizes", tmp_path, image_size=(6, 3))
    assert tiny.image_shape == (6, 3, 1)
    np.testing.assert_allclose(np.ptp(tiny.train.images, axis=(1, 2, 3)), 0, atol=1e-6)


@pytest.mark.parametrize("name, reading", [("tiny_sorted", {}), ("tiny_of_sizes", {"image_size": (6, 3)})])
def test_streams_are_the_sets_in_memory(tmp_path, name, reading):
    _tiny(name, tmp_path / "records", **reading)
    held = _tiny(name, tmp_path / "records", **reading)
    with pytest.raises(ValueError, match=f"its files have no random access: prepare it .*tfds build {name} --file_for"):
        _tiny(name, tmp_path / "records", streaming="always", **reading)
    streamed = _tiny(name, tmp_path / "random", streaming="always", **reading)
    for one, other in zip(held[1:4], streamed[1:4], strict=True):
        assert is_streamed(other.images)
        np.testing.assert_array_equal(other.images, one.images)
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_array_equal(other.index, one.index)
    # Files with random access are read into memory as well.
    again = _tiny(name, tmp_path / "random", **reading)
    np.testing.assert_array_equal(again.train.images, held.train.images)
    with pytest.raises(ValueError, match="test split of tiny_unlabelled has examples without a label"):
        _tiny("tiny_unlabelled", tmp_path / "random", streaming="always")


def test_unlabelled_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="test split of tiny_unlabelled has examples without a label"):
        _tiny("tiny_unlabelled", tmp_path)


@pytest.mark.parametrize("level", ["", "tiny_images", "tiny_images/1.0.0"])
def test_data_dir_of_the_wrong_level_is_corrected(tmp_path, level):
    _tiny("tiny_images", tmp_path)
    assert _sizes(data.load("tiny_images", data_dir=tmp_path / level)) == [12, 3, 3]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_broken_files_are_reported(tmp_path, damage):
    _tiny("tiny_images", tmp_path)
    (record,) = (tmp_path / "tiny_images" / "1.0.0").glob("*-test.tfrecord*")
    if damage == "cut":
        record.write_bytes(record.read_bytes()[:-20])
    else:
        record.unlink()
    with pytest.raises(ValueError, match="test split of tiny_images .*: delete .* and pass --download"):
        data.load("tiny_images", data_dir=tmp_path)


def test_mnist_keeps_the_order_of_tensorflow_datasets(shared_data):
    mnist = data.load("mnist", data_dir=shared_data / "tfds", splits=("test",))
    assert _sizes(mnist) == [0, 0, 10000] and mnist.image_shape == (28, 28, 1)
    np.testing.assert_array_equal(mnist.test.index, np.arange(10000))
    original = np.load(shared_data / "published" / "mnist_test_original_index.npy")
    # The first ten labels of the original file t10k-labels.
    assert mnist.test.labels[np.argsort(original)[:10]].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def _split(count=23):
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) / 100
    return data.Split(images, np.arange(count, dtype=np.int32), np.arange(count, dtype=np.int32))


def _labels(dataset):
    return [labels.numpy().tolist() for _, labels in dataset]


def test_unshuffled_batches_are_in_order():
    dataset = data.batches(_split(), 10)
    assert _labels(dataset) == [list(range(10)), list(range(10, 20)), [20, 21, 22]]
    assert len(dataset) == 3 and len(data.batches(_split(), 10, drop_remainder=True)) == 2
    assert all(len(data.batches(_split(), 2**70, shuffle=shuffle)) == 1 for shuffle in (False, True))


def test_shuffled_batches_are_a_function_of_seed_and_epoch():
    dataset = data.batches(_split(), 10, shuffle=True, seed=7)
    assert len(dataset) == 3
    passes = [_labels(dataset) for _ in range(3)]
    assert [_labels(data.batches(_split(), 10, shuffle=True, seed=7, epoch=epoch)) for epoch in range(3)] == passes
    assert passes[0] != passes[1] != passes[2] and _labels(data.batches(_split(), 10, shuffle=True)) != passes[0]
    for one in passes:
        assert [len(batch) for batch in one] == [10, 10, 3] and sorted(sum(one, [])) == list(range(23))
    for images, labels in dataset:
        np.testing.assert_array_equal(images[:, 0, 0, 0], np.float32(labels) / np.float32(100))


def test_numbers_are_rows_of_the_split():
    for shuffle in (False, True):
        for images, labels in data.batches(_split(), 10, shuffle=shuffle, numbered=True):
            # A label is its row, and an image its label's hundredth.
            np.testing.assert_array_equal(images["number"], labels)
            np.testing.assert_array_equal(images["image"][:, 0, 0, 0], np.float32(labels) / np.float32(100))


def test_shapes_are_static_without_a_remainder():
    dataset = data.batches(_split(), 10, shuffle=True, drop_remainder=True)
    assert dataset.element_spec[0].shape == (10, 1, 1, 1) and len(dataset) == len(_labels(dataset)) == 2


def test_augmented_batches_are_a_function_of_seed_epoch_and_step():
    def draw(seed):
        return tf.random.stateless_uniform([], seed, 0, 2**20, tf.int32)

    def augmented(**options):
        # Images are their labels' hundredths, and what is added to them a whole number.
        return data.batches(
            _split(), 10, shuffle=True, augment=lambda images, seed: images + tf.cast(draw(seed), tf.float32), **options
        )

    def added(dataset):
        return [int(images.numpy()[0].item()) for images, _ in dataset]

    dataset = augmented(seed=7)
    passes = [added(dataset) for _ in range(3)]
    assert len({value for one in passes for value in one}) == 9
    assert [added(augmented(seed=7, epoch=epoch)) for epoch in range(3)] == passes
    assert [[int(draw(data.step_seed(7, epoch, step))) for step in range(3)] for epoch in range(3)] == passes
    # The rest of an epoch that was left within.
    assert added(augmented(seed=7, epoch=1).skip(2)) == passes[1][2:]
    assert added(augmented(seed=8)) != passes[0]
    plain = data.batches(_split(), 10, shuffle=True, seed=7, epoch=1)
    assert _labels(augmented(seed=7, epoch=1)) == _labels(plain)
    with pytest.raises(ValueError, match="augment needs shuffle=True"):
        data.batches(_split(), 10, augment=lambda images, seed: images)


class _Recorder(keras.Model):
    """Learns nothing, notes the labels of every batch by epoch."""

    def __init__(self, follower):
        super().__init__()
        self.follower, self.seen, self.weight = follower, {}, self.add_weight(shape=(), name="weight")

    def call(self, images):
        return images * self.weight

    def train_step(self, batch):
        tf.py_function(
            lambda labels: self.seen.setdefault(self.follower.epoch, []).append(labels.numpy().tolist()), [batch[1]], []
        )
        return {"loss": tf.constant(0.0)}


def _recorder(follower):
    model = _Recorder(follower)
    model.build((None, 1, 1, 1))
    model.compile("sgd", jit_compile=False)
    return model


def _fit(callbacks=(), **options):
    follower = data.EpochFollower()
    model = _recorder(follower)
    dataset = data.batches(_split(), 10, shuffle=True, seed=3, epoch=follower)
    model.fit(dataset, verbose=0, shuffle=False, callbacks=[follower, *callbacks], **options)
    return model.seen


def test_a_resumed_fit_sees_the_batches_of_the_uninterrupted_one(tmp_path):
    whole = _fit(epochs=4)
    assert whole == {e: _labels(data.batches(_split(), 10, shuffle=True, seed=3, epoch=e)) for e in range(4)}
    assert _fit(epochs=4, initial_epoch=2) == {epoch: whole[epoch] for epoch in (2, 3)}

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(KeyboardInterrupt):
        _fit([backup(), Interrupt()], epochs=4)
    assert _fit([backup()], epochs=4) == {3: whole[3]}


def test_a_strategy_gets_every_example_of_the_same_order():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.experimental_distribute_dataset(data.batches(_split(), 10, shuffle=True, seed=3))
    expected = _labels(data.batches(_split(), 10, shuffle=True, seed=3))
    assert [strategy.gather(labels, axis=0).numpy().tolist() for _, labels in distributed] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 24, "drop_remainder": True}, "batch_size must be at most the 23 examples"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**32}, "seed must be a whole number from 0"),
        ({"epoch": -1}, "epoch must be an EpochFollower or a whole number"),
        ({"epoch": 2**32, "shuffle": True}, "epoch must be an EpochFollower or a whole number"),
        ({"split": _split(0)}, "no examples: name it in splits"),
    ],
)
def test_batches_refuses_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        data.batches(**{"split": _split(), "batch_size": 10} | options)
