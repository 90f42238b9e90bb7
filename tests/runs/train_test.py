import json
import signal

import numpy as np
import pytest

from wasser_tf import data, MirrorAscent, models, ThreatModel
from wasser_tf.data import augmentation
from wasser_tf.runs import train
from wasser_tf.runtime import interruption, storage
from wasser_tf.attacks import RandomPlan
from wasser_tf.training import loop, run_folder
from wasser_tf.training.callbacks import EpochTable
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution

_ATTACK = MirrorAscent(ThreatModel(epsilon=0.1), iterations=3)


def _config(folder, **fields):
    return TrainConfig(**{"output_dir": str(folder), "attack": _ATTACK, **fields})


def _another_run(folder, **fields):
    folder.mkdir()
    identity = json.loads(json.dumps(_config(folder, **fields).identity()))
    (folder / "config.json").write_text(json.dumps({"config": identity}))
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("files", [["config.json"], ["best.keras", "report.json"]])
def test_refuses_a_folder_that_holds_another_run(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("something")
    with pytest.raises(ValueError, match=rf"holds another run \({', '.join(files)}\): .*--resume .*--overwrite"):
        train.run_training(_config(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_refuses_to_resume_another_run_and_names_what_differs(tmp_path):
    there = _another_run(tmp_path / "run", omega=0.5)
    other = MirrorAscent(ThreatModel(epsilon=0.2), iterations=3)
    with pytest.raises(ValueError) as refused:
        train.run_training(_config(tmp_path / "run", attack=other, resume=True))
    assert "omega is 0.5 there and 0.7 here" in str(refused.value)
    assert "attack.config.threat_model.epsilon is 0.1 there and 0.2 here" in str(refused.value)
    assert "epochs" not in str(refused.value)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == there


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_refuses_a_folder_that_a_run_is_writing_into(tmp_path, flag):
    there = _another_run(tmp_path / "run")
    with storage.locked(tmp_path / "run"):
        with pytest.raises(ValueError, match="A run that has not ended is writing into"):
            train.run_training(_config(tmp_path / "run", **{flag: True}))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == there


def test_refuses_a_file_and_a_broken_config(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="output_dir must be a folder"):
        train.run_training(_config(tmp_path / "file"))
    _another_run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not a JSON file"):
        train.run_training(_config(tmp_path / "run", resume=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "mnist"}, "--download"),
        ({"dataset": "no_such_set"}, "There is no dataset 'no_such_set'"),
        ({"batch_size": 2000}, "batch_size must be at most the 1197 training images"),
    ],
)
def test_writes_nothing_when_it_cannot_start(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        train.run_training(_config(tmp_path / "run", data_dir=str(tmp_path), **fields))
    assert not (tmp_path / "run").exists()


def test_refuses_a_batch_that_the_replicas_do_not_divide(tmp_path):
    distribution = Distribution()
    distribution.num_replicas = 3
    with pytest.raises(ValueError, match="must be a multiple of their number, 3, got 64"):
        train.run_training(_config(tmp_path / "run"), distribution)
    assert not (tmp_path / "run").exists()


def test_starts_from_a_saved_classifier(tmp_path):
    initial = models.build("linear", (8, 8, 1), 10, seed=5)
    initial.save(tmp_path / "mine.keras")
    # So slow that it ends where it starts.
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=1, polish=0)
    config = _config(
        tmp_path / "run",
        attack=attack,
        initial=str(tmp_path / "mine.keras"),
        standard_epochs=0,
        epochs=1,
        batch_size=1000,
        learning_rate=1e-9,
        radii=(0.1,),
        num_attack_examples=8,
        report_iterations=1,
    )
    finished = train.run_training(config)
    for one, two in zip(finished.classifier.get_weights(), initial.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 3), 10), ((8, 8, 1), 7)])
def test_refuses_a_saved_classifier_of_other_images(tmp_path, shape, classes):
    models.build("linear", shape, classes).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other.keras must take images of \(8, 8, 1\) to 10 logits"):
        train.run_training(_config(tmp_path / "run", initial=str(tmp_path / "other.keras")))
    assert not (tmp_path / "run").exists()


def _forty_digits():
    dataset = data.load("digits")
    return dataset._replace(train=data.Split(*(array[:40] for array in dataset.train)))


def _train(name, folder, dataset, config):
    """One phase of a run; returns its classifier."""
    first, robust = train.build_models(config, dataset, Distribution())
    trained, classifier = {"standard": (first, first), "wasser_train": (robust, robust.classifier)}[name]
    loop.train(name, trained, classifier, config, dataset, Distribution(), folder, [])
    return classifier


def _whole_and_in_parts(name, folder, dataset, config, monkeypatch):
    """A phase that nothing disturbed, and one that was stopped within its second epoch: classifiers, checkpoints."""

    class Stopping(EpochTable):
        def on_train_batch_end(self, batch, logs=None):
            if (self._epoch, batch) == (1, 1):
                signal.raise_signal(signal.SIGTERM)

    whole = _train(name, folder / "whole", dataset, config)
    with monkeypatch.context() as patch, pytest.raises(interruption.Interrupted), interruption.watched():
        patch.setattr(loop, "EpochTable", Stopping)
        _train(name, folder / "parts", dataset, config)
    resumed = _train(name, folder / "parts", dataset, config)
    saved = [dict(np.load(folder / part / "checkpoints" / f"{name}.npz")) for part in ("whole", "parts")]
    assert saved[0].keys() == saved[1].keys()
    for key, array in saved[0].items():
        np.testing.assert_array_equal(array, saved[1][key], err_msg=key)
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    return whole, saved[0]


def test_stopped_and_resumed_it_augments_and_averages_as_if_it_had_not(tmp_path, monkeypatch):
    dataset = _forty_digits()
    config = _config(
        tmp_path,
        model="mlp",
        batch_size=10,
        standard_epochs=3,
        augment="shift",
        ema_momentum=0.8,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=1e-3,
        learning_rate=0.05,
        warmup=0.3,
    )
    whole, saved = _whole_and_in_parts("standard", tmp_path, dataset, config, monkeypatch)
    # What is left is the average that was best, not the weights that were trained.
    best = [array for key, array in sorted(saved.items()) if key.startswith("best_")]
    for one, two in zip(whole.get_weights(), best, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(best[0], saved["variable_0000"])


def test_stopped_and_resumed_its_attacks_go_on_where_they_ended(tmp_path, monkeypatch):
    dataset = _forty_digits()
    config = _config(
        tmp_path,
        model="linear",
        attack=MirrorAscent(_ATTACK.threat_model, iterations=1, polish=0),
        batch_size=10,
        epochs=2,
        warm_start=0.75,
        validation_attack=RandomPlan(_ATTACK.threat_model),
        num_attack_examples=8,
    )
    _whole_and_in_parts("wasser_train", tmp_path, dataset, config, monkeypatch)


def test_the_batch_that_was_not_finite_is_the_augmented_one(tmp_path):
    dataset = data.load("digits")
    config = _config(tmp_path, model="linear", augment="shift", batch_size=16, seed=3)
    change = augmentation.make_augmentation("shift", dataset.image_shape)
    batches = data.batches(dataset.train, 16, shuffle=True, seed=3, epoch=2, drop_remainder=True, augment=change)
    images, labels = list(batches.take(5))[-1]
    found = loop._finite("standard", config, dataset, change, tmp_path, 0)._batch(2, 4)
    np.testing.assert_array_equal(found["image"], images)
    np.testing.assert_array_equal(found["label"], labels)
    rows = np.searchsorted(dataset.train.index, found["index"])
    assert not np.array_equal(found["image"], dataset.train.images[rows])


def test_refuses_an_augmentation_of_small_images_and_resumes_what_an_older_version_began(tmp_path):
    small = data.load("digits", image_size=(6, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *_, **__: small)
        with pytest.raises(ValueError, match="augment=shift .* at least 8×8 pixels, got 6×6"):
            train.run_training(_config(tmp_path / "small", augment="shift"))
    assert not (tmp_path / "small").exists()
    _another_run(tmp_path / "run")
    metadata = storage.read_json(tmp_path / "run" / "config.json")
    del metadata["config"]["ema_momentum"], metadata["config"]["augment"]
    storage.write_json(tmp_path / "run" / "config.json", metadata)
    run_folder.check_run_folder(tmp_path / "run", _config(tmp_path / "run", resume=True))
    with pytest.raises(ValueError, match="ema_momentum is 0.0 there and 0.5 here"):
        run_folder.check_run_folder(tmp_path / "run", _config(tmp_path / "run", resume=True, ema_momentum=0.5))


def test_holds_out_as_many_images_as_told_and_smooths_labels(tmp_path):
    config = _config(tmp_path, model="linear", validation_size=50, label_smoothing=0.1)
    dataset = train.load_dataset(config, Distribution())
    assert (len(dataset.train.labels), len(dataset.validation.labels), len(dataset.test.labels)) == (1347, 50, 400)
    _, robust = train.build_models(config, dataset, Distribution())
    loop.prepare("wasser_train", robust, robust.classifier, config, dataset, Distribution())
    assert robust.loss.label_smoothing == 0.1


@pytest.mark.parametrize(("asked", "got"), [("auto", True), (False, False)])
def test_on_a_gpu_xla_compiles_the_step_unless_told_not_to(tmp_path, monkeypatch, asked, got):
    monkeypatch.setattr(loop, "compile_whole_graph", lambda classifier: True)
    config = _config(tmp_path, model="linear", jit_compile=asked)
    dataset = data.load("digits")
    _, robust = train.build_models(config, dataset, Distribution())
    loop.prepare("wasser_train", robust, robust.classifier, config, dataset, Distribution())
    assert robust.jit_compile is got
