"""Smaller files of adversarial examples."""

import numpy as np
import pytest

from wasser_tf.evaluation import examples, stored_examples
from wasser_tf.evaluation.sweep import Model, Sweep


def changed(make_examples, count=5):
    """Examples with random images and changes, of which the second has none."""
    made = make_examples([True] * count, range(count))
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.8, (count, 6, 6, 3)).astype(np.float32)
    change = rng.uniform(-0.1, 0.1, images.shape).astype(np.float32)
    change[1] = 0
    return made._replace(images=images, result=made.result._replace(adversarial=images + change, raw=images - change))


@pytest.mark.parametrize("stored, levels", [("int16", 32767), ("int8", 127)])
def test_changes_are_exact_to_half_a_step(make_examples, tmp_path, stored, levels):
    written = changed(make_examples)
    examples.write_examples(tmp_path / "a.npz", written, stored)
    with np.load(tmp_path / "a.npz") as arrays:
        assert "image" not in arrays and arrays["adversarial_change"].dtype == np.dtype(stored)
    read, extra = examples.read_examples(tmp_path / "a.npz", lambda count: written.images[:count])
    assert not extra
    for name in ("adversarial", "raw"):
        before, after = getattr(written.result, name), getattr(read.result, name)
        largest = np.abs(before - written.images).max(axis=(1, 2, 3), keepdims=True)
        assert (np.abs(after - before) <= 0.5001 * largest / levels + 1e-7).all()
        np.testing.assert_array_equal(after[1], written.images[1])
    for name, array in written.to_arrays().items():
        if name not in ("image", "adversarial", "raw"):
            np.testing.assert_array_equal(read.to_arrays()[name], array)
    some, _ = examples.read_examples(tmp_path / "a.npz", lambda count: written.images[:count], 2)
    assert len(some.images) == len(some.result.adversarial) == 2 and len(some.labels) == 5
    without, _ = examples.read_examples(tmp_path / "a.npz")
    assert len(without.result.raw) == 0
    with pytest.raises(ValueError, match="does not hold the exact images, which need --stored_examples=float32"):
        examples.read_examples(tmp_path / "a.npz", exact=True)


def test_an_example_does_not_leave_its_range(make_examples, tmp_path):
    written = changed(make_examples)
    low, high = (getattr(written.result.adversarial, end)(axis=(1, 2, 3)) for end in ("min", "max"))
    feasibility = written.result.feasibility._replace(min_pixel=low, max_pixel=high)
    examples.write_examples(
        tmp_path / "a.npz", written._replace(result=written.result._replace(feasibility=feasibility)), "int8"
    )
    read, _ = examples.read_examples(tmp_path / "a.npz", lambda count: written.images[:count])
    assert (read.result.adversarial.max(axis=(1, 2, 3)) <= high).all()
    assert (read.result.adversarial.min(axis=(1, 2, 3)) >= low).all()
    # The range of the raw examples is that of their own record, from 0 to 3, into which they are not forced.
    assert (np.abs(read.result.raw - written.result.raw) < 1e-3).all()


def test_files_are_concatenated_array_by_array(make_examples, tmp_path):
    parts = [changed(make_examples, 3), changed(make_examples, 2)]
    paths = [tmp_path / f"{number}.npz" for number in range(2)]
    for path, part in zip(paths, parts, strict=True):
        examples.write_examples(path, part, seconds=np.float64(1))
    stored_examples.concatenate_files(paths, tmp_path / "whole.npz", skip=("seconds",))
    read, extra = examples.read_examples(tmp_path / "whole.npz", exact=True)
    assert not extra
    for name, array in examples.concatenate(parts).to_arrays().items():
        np.testing.assert_array_equal(read.to_arrays()[name], array)


@pytest.mark.parametrize("stored", ["int16", "none"])
def test_the_scores_of_a_sweep_do_not_depend_on_what_is_stored(tmp_path, classifier, digits, random_plan, stored):
    found = {}
    for form in ("float32", stored):
        model = Model("mlp", "a", classifier)
        sweep = Sweep(tmp_path / form, [model], {"a": random_plan}, [0.2], digits, chunk_size=6, stored=form)
        sweep.run()
        found[form] = (sweep, model)
    (exact,) = found["float32"][0].results(found["float32"][1], 0.2, images=8)
    (small,) = found[stored][0].results(found[stored][1], 0.2, images=8)
    np.testing.assert_array_equal(small.examples.result.success, exact.examples.result.success)
    np.testing.assert_array_equal(small.examples.result.feasibility.cost, exact.examples.result.feasibility.cost)
    np.testing.assert_array_equal(small.examples.images, exact.examples.images)
    np.testing.assert_allclose(small.examples.result.adversarial, exact.examples.result.adversarial, atol=2e-5)
    assert len(small.examples.images) == 8 and small.rank is None
    for options in ({"rescored": True}, {"exact": True}):
        with pytest.raises(ValueError, match="does not hold the exact images"):
            list(found[stored][0].results(found[stored][1], 0.2, images=8, **options))


def test_unknown_forms_are_refused(tmp_path, classifier, digits, random_plan):
    with pytest.raises(ValueError, match="stored_examples must be one of float32, int16, int8, none, got 'png'"):
        Sweep(tmp_path, [Model("a", "a", classifier)], {"a": random_plan}, [0.2], digits, stored="png")
