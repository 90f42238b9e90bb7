import json

import numpy as np
import pytest

from wasser_tf import data
from wasser_tf.data.selection import ImageSource, read_positions


def test_the_first_images_of_the_split():
    chosen = ImageSource(num_examples=5).load()
    split = data.load("digits").test
    assert chosen.name == "digits test"
    np.testing.assert_array_equal(chosen.index, np.arange(5))
    np.testing.assert_array_equal(chosen.images, split.images[:5])
    np.testing.assert_array_equal(chosen.labels, split.labels[:5])
    assert len(ImageSource().load().labels) == 400


@pytest.mark.parametrize("name, text", [("a.txt", "7 3\n399  # the last\n"), ("a.csv", "7,3,399"), ("a.npy", None)])
def test_positions_from_a_file(tmp_path, name, text):
    path = tmp_path / name
    np.save(path, np.array([7, 3, 399])) if text is None else path.write_text(text)
    chosen = ImageSource(indices=str(path)).load()
    assert chosen.index.tolist() == [7, 3, 399]
    np.testing.assert_array_equal(chosen.images, data.load("digits").test.images[[7, 3, 399]])
    assert ImageSource(indices=str(path), num_examples=2).load().index.tolist() == [7, 3]


def test_images_in_another_order(tmp_path):
    # The image at position 5 is number 0 there, the one at 4 number 1, and so on.
    np.save(tmp_path / "order.npy", np.roll(np.arange(400)[::-1], 6).astype(np.int32))
    chosen = ImageSource(original_index=str(tmp_path / "order.npy"), num_examples=3).load()
    assert chosen.index.tolist() == [5, 4, 3]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 two", "is not a list of positions"),
        ("", "list of whole numbers"),
        ("-1 2", "at least 0"),
        ("400", "positions from 0 to 399, because the test split of digits has 400 examples, got 400"),
    ],
)
def test_bad_positions(tmp_path, text, message):
    (tmp_path / "positions.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        ImageSource(indices=str(tmp_path / "positions.txt")).load()


@pytest.mark.parametrize("array", [np.zeros([2, 2], int), np.array([0.5]), np.array(["a"])])
def test_bad_arrays_of_positions(tmp_path, array):
    np.save(tmp_path / "positions.npy", array)
    with pytest.raises(ValueError, match="list of whole numbers"):
        read_positions(str(tmp_path / "positions.npy"))


def test_a_truncated_array_of_positions(tmp_path):
    np.save(tmp_path / "positions.npy", np.arange(100))
    content = (tmp_path / "positions.npy").read_bytes()
    (tmp_path / "positions.npy").write_bytes(content[:200])
    with pytest.raises(ValueError, match="is not a list of positions"):
        read_positions(str(tmp_path / "positions.npy"))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"split": "all"}, "split must be one of"),
        ({"num_examples": 0}, "num_examples"),
        ({"num_examples": 401}, "num_examples must be at most the number of examples, 400, got 401"),
        ({"indices": "a", "original_index": "b"}, "give only one of them"),
        ({"indices": "nowhere.npy"}, "cannot be read"),
        ({"dataset": "no_such_set"}, "no_such_set"),
    ],
)
def test_bad_sources(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageSource(**fields).load()


def test_an_order_that_misses_images(tmp_path):
    np.save(tmp_path / "order.npy", np.arange(10))
    with pytest.raises(ValueError, match="each of the 400 examples"):
        ImageSource(original_index=str(tmp_path / "order.npy")).load()


def test_a_source_is_read_back_from_its_values():
    plain = ImageSource(dataset="mnist", num_examples=3)
    # Without options for reading, the values are those of older versions, whose folders can be resumed.
    assert "reading" not in plain.to_json() and ImageSource.from_json(plain.to_json()) == plain
    read = ImageSource(reading=data.ReadingOptions(image_size=(3, 4), crop="center", class_names=("a", "b")))
    values = json.loads(json.dumps(read.to_json()))
    assert values["reading"] == {"image_size": [3, 4], "crop": "center", "class_names": ["a", "b"]}
    assert ImageSource.from_json(values) == read


def test_a_selection_has_the_digest_of_its_folder(tmp_path):
    np.savez(tmp_path / "a.npz", x_test=np.zeros((4, 2, 2), np.uint8), y_test=np.arange(4) % 2)
    source = ImageSource(dataset=str(tmp_path / "a.npz"), reading=data.ReadingOptions(image_size=(3, 3)))
    selected = source.load()
    assert selected.images.shape == (4, 3, 3, 1) and len(selected.digest) == 64
    assert ImageSource(num_examples=1).load().digest is None
