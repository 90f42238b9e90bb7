"""bin/attack.py as a user runs it, and the function behind it."""

import errno
import json
import pathlib
import signal

import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks, data, models
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation import examples
from wasser_tf.runs.attack import AttackRun, run_attack
from wasser_tf.runtime import interruption, storage

pytestmark = pytest.mark.slow
_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    train = data.load("digits", splits=("train",)).train
    classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    classifier.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier.fit(train.images, train.labels, epochs=5, verbose=0)
    path = tmp_path_factory.mktemp("model") / "linear.keras"
    classifier.save(path)
    return path


@pytest.fixture(scope="module")
def random_plan():
    # One object, so that its compiled functions are shared.
    return attacks.make("random_plan", ThreatModel(epsilon=0.3))


@pytest.fixture
def config(model, random_plan, tmp_path):
    def make(**changes):
        fields = {
            "model": str(model),
            "source": ImageSource(num_examples=8),
            "attack": random_plan,
            "output_dir": str(tmp_path / "run"),
            "verbose": False,
        }
        return AttackRun(**{**fields, **changes})

    return make


def test_writes_examples_and_a_report(run_binary, model, tmp_path):
    (tmp_path / "positions.txt").write_text("9 5 7 300 8")
    folder = tmp_path / "run"
    code, out, errors = run_binary(
        "attack",
        f"--model={model}",
        "--attack=random_plan:seed=3",
        "--epsilon=0.3",
        f"--indices={tmp_path / 'positions.txt'}",
        "--num_examples=4",
        f"--output_dir={folder}",
    )
    assert code == 0, errors
    assert "[1/1] linear, random_plan" in out and "linear under random_plan at ε = 0.3, 4 images of digits" in out
    assert errors.strip() == ""
    assert {path.name for path in folder.iterdir()} == {"adversarial.npz", "report.json"}

    test = data.load("digits", splits=("test",)).test
    report = json.loads((folder / "report.json").read_text())
    with np.load(folder / "adversarial.npz") as file:
        arrays = dict(file)
    assert arrays["index"].tolist() == [9, 5, 7, 300]
    np.testing.assert_array_equal(arrays["image"], test.images[arrays["index"]])
    np.testing.assert_array_equal(arrays["label"], test.labels[arrays["index"]])
    assert arrays["adversarial"].dtype == np.float32 and arrays["adversarial"].shape == (4, 8, 8, 1)
    assert 0 <= arrays["adversarial"].min() and arrays["adversarial"].max() <= 1
    np.testing.assert_allclose(arrays["adversarial"].sum((1, 2, 3)), arrays["image"].sum((1, 2, 3)), rtol=2e-6)
    classifier = keras.models.load_model(model)
    predicted = np.argmax(classifier(arrays["adversarial"]), axis=1)
    np.testing.assert_array_equal(arrays["success"], predicted != arrays["label"])
    assert report["feasible"]["success_rate"] == arrays["success"].mean()
    assert report["feasible"]["max_cost_ratio"] == pytest.approx((arrays["cost"] / 0.3).max(), rel=1e-5)
    assert report["feasible"]["max_cost_ratio"] <= 1 + 1e-5
    assert report["raw"]["max_pixel"] == arrays["raw"].max()
    assert report["threat_model"] == ThreatModel(epsilon=0.3).get_config()
    assert (report["attack"], report["seed"], report["num_images"]) == ("random_plan", 3, 4)


def test_bad_input_is_refused_in_one_sentence(run_binary, model, tmp_path):
    code, _, errors = run_binary(
        "attack", f"--model={model}", "--attack=random_plan", "--alpha=2", f"--output_dir={tmp_path / 'run'}"
    )
    assert code == 1
    assert errors == "attack.py: --alpha is no setting of random_plan; leave it out.\n"
    assert not (tmp_path / "run").exists()


def test_another_run_is_only_replaced_when_asked(config, tmp_path):
    run_attack(config())
    with pytest.raises(ValueError, match="holds another run .* --overwrite"):
        run_attack(config())
    run_attack(config(source=ImageSource(num_examples=4), overwrite=True))
    assert len(examples.read_examples(tmp_path / "run" / "adversarial.npz")[0].labels) == 4
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder"):
        run_attack(config(output_dir=str(tmp_path / "file")))


def _arrays(folder):
    with np.load(folder / "adversarial.npz") as file:
        return dict(file)


def _is_whole(folder, wanted):
    assert {path.name for path in folder.iterdir()} == {"adversarial.npz", "report.json"}
    for name, array in _arrays(wanted).items():
        np.testing.assert_array_equal(_arrays(folder)[name], array, err_msg=name)


def test_a_stop_or_a_full_disk_keeps_whole_batches_and_the_run_resumes(config, tmp_path, monkeypatch):
    whole, stopped, full = (tmp_path / name for name in ("whole", "stopped", "full"))
    run_attack(config(output_dir=str(whole), batch_size=4))
    saved = []
    save = np.savez_compressed

    def asks_to_stop(*arguments, **arrays):
        saved.append("stopped")
        signal.raise_signal(signal.SIGTERM)
        save(*arguments, **arrays)

    def is_full(*arguments, **arrays):
        saved.append("full")
        if len(saved) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*arguments, **arrays)

    monkeypatch.setattr(np, "savez_compressed", asks_to_stop)
    with pytest.raises(interruption.Interrupted, match="stopped by SIGTERM"), interruption.watched():
        run_attack(config(output_dir=str(stopped), batch_size=4))
    monkeypatch.setattr(np, "savez_compressed", is_full)
    with pytest.raises(OSError, match=r"npz cannot be written \(No space left on device\): free disk space"):
        run_attack(config(output_dir=str(full), batch_size=4))
    assert saved == ["stopped", "full", "full"]
    monkeypatch.setattr(np, "savez_compressed", save)
    for folder in (stopped, full):
        (part,) = folder.rglob("*.npz")
        before = part.stat().st_mtime_ns
        with storage.locked(folder):
            with pytest.raises(ValueError, match="A run that has not ended is writing into"):
                run_attack(config(output_dir=str(folder), batch_size=4))
        assert part.stat().st_mtime_ns == before
        run_attack(config(output_dir=str(folder), batch_size=4))
        _is_whole(folder, whole)


def test_a_saved_model_is_attacked_alike(config, model, tmp_path):
    classifier = keras.models.load_model(model)
    logits, probabilities = tmp_path / "logits", tmp_path / "probabilities"
    classifier.export(logits, verbose=False)
    keras.Sequential([classifier, keras.layers.Softmax()]).export(probabilities, verbose=False)
    wanted = run_attack(config())
    for path in (logits, probabilities):
        record = run_attack(config(model=str(path), output_dir=str(tmp_path / f"run_{path.name}")))
        assert record.feasible.success_rate == wanted.feasible.success_rate
        assert record.feasible.cross_entropy == pytest.approx(wanted.feasible.cross_entropy, abs=1e-4)


def test_a_published_checkpoint_in_the_order_of_the_papers(config, shared_data, tmp_path):
    published = shared_data / "published" / "mnist_test_original_index.npy"
    source = ImageSource(
        dataset="mnist", data_dir=str(shared_data / "tfds"), original_index=str(published), num_examples=10
    )
    record = run_attack(config(model=str(shared_data / "checkpoints" / "wong_standard.npz"), source=source))
    found, _ = examples.read_examples(tmp_path / "run" / "adversarial.npz")
    assert np.load(published)[found.index].tolist() == list(range(10))
    # The first ten labels of MNIST's test file.
    assert found.labels.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert record.natural_accuracy >= 0.9 and record.feasible.feasible_share == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"source": ImageSource(num_examples=9999)}, "at most the number of examples, 400"),
        ({"source": ImageSource(indices="nowhere.txt")}, "cannot be read"),
        ({"model": "nowhere.keras"}, "There is no file nowhere.keras"),
        ({"model": __file__}, "is not a classifier"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_writes_nothing(config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_attack(config(**changes))
    assert not (tmp_path / "run").exists()


def test_a_classifier_of_other_images_is_refused(config, tmp_path):
    models.build("linear", (28, 28, 1), 10, seed=0).save(tmp_path / "large.keras")
    with pytest.raises(ValueError, match=r"takes images of shape \(28, 28, 1\)"):
        run_attack(config(model=str(tmp_path / "large.keras")))
    models.build("linear", (8, 8, 1), 2, seed=0).save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match="has 2 classes"):
        run_attack(config(model=str(tmp_path / "two.keras")))
    assert not (tmp_path / "run").exists()
