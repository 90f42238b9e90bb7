import numpy as np
import pytest

from wasser_tf.evaluation import examples


def test_round_trip(make_examples, tmp_path):
    written = make_examples([True, False], [3, 1], wrong=[False, False])
    examples.write_examples(tmp_path / "adversarial.npz", written, seconds=np.float64(2.5))
    read, extra = examples.read_examples(tmp_path / "adversarial.npz")
    assert extra.keys() == {"seconds"} and extra["seconds"] == 2.5
    for name, array in written.to_arrays().items():
        np.testing.assert_array_equal(read.to_arrays()[name], array)
        assert read.to_arrays()[name].dtype == array.dtype


def test_the_arrays_that_users_read(make_examples, tmp_path):
    written = make_examples([False, False], [3, 1], wrong=[True, False])
    examples.write_examples(tmp_path / "adversarial.npz", written)
    with np.load(tmp_path / "adversarial.npz") as arrays:
        assert {"index", "image", "label", "adversarial", "success", "raw", "raw_success", "radius", "cost"} <= set(
            arrays
        )
        assert arrays["adversarial"].dtype == np.float32
        assert arrays["success"].tolist() == arrays["raw_success"].tolist() == [True, False]


def test_parts_are_put_together_and_cut(make_examples):
    parts = [make_examples([True, False], [3, 1]), make_examples([False], [2])]
    whole = examples.concatenate(parts)
    assert whole.result.loss.tolist() == [3, 1, 2]
    assert whole.result.feasibility.cost.shape == (3,)
    assert examples.first(whole, 2).result.loss.tolist() == [3, 1]


def test_unreadable_files(make_examples, tmp_path):
    path = tmp_path / "adversarial.npz"
    examples.write_examples(path, make_examples([True], [3]))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        examples.read_examples(path)
    np.savez(path, index=np.arange(3))
    with pytest.raises(ValueError, match="has no array"):
        examples.read_examples(path)
    with pytest.raises(ValueError, match="cannot be read"):
        examples.read_examples(tmp_path / "nowhere.npz")


def test_objects_are_not_pickled(make_examples, tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        examples.write_examples(tmp_path / "a.npz", make_examples([True], [3]), names=np.array([{"a": 1}], object))
    assert not list(tmp_path.iterdir())
