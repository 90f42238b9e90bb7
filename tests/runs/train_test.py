import json

import pytest

from wasser_tf import MirrorAscent, RadiusSchedule, ThreatModel, data, models
from wasser_tf.attacks import LinfPGD
from wasser_tf.runs import train
from wasser_tf.runtime import storage
from wasser_tf.training import loop, run_folder
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


def test_refuses_to_resume_another_run_and_names_the_differences(tmp_path):
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


@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 3), 10), ((8, 8, 1), 7)])
def test_refuses_a_saved_classifier_of_other_images(tmp_path, shape, classes):
    models.build("linear", shape, classes).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other.keras must take images of \(8, 8, 1\) to 10 logits"):
        train.run_training(_config(tmp_path / "run", initial=str(tmp_path / "other.keras")))
    assert not (tmp_path / "run").exists()


def test_refuses_augmentation_of_small_images_and_resumes_runs_of_older_versions(tmp_path):
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


def test_holds_out_the_set_number_of_images_and_smooths_labels(tmp_path):
    config = _config(tmp_path, model="linear", validation_size=50, label_smoothing=0.1)
    dataset = train.load_dataset(config, Distribution())
    assert (len(dataset.train.labels), len(dataset.validation.labels), len(dataset.test.labels)) == (1347, 50, 400)
    _, robust = train.build_models(config, dataset, Distribution())
    loop.prepare(loop.TrainingContext(config=config, dataset=dataset), "wasser_train", robust)
    assert robust.loss.label_smoothing == 0.1


@pytest.mark.parametrize(("asked", "got"), [("auto", True), (False, False)])
def test_on_a_gpu_xla_compiles_the_step_unless_disabled(tmp_path, monkeypatch, asked, got):
    monkeypatch.setattr(loop, "compile_whole_graph", lambda classifier: True)
    config = _config(tmp_path, model="linear", jit_compile=asked)
    dataset = data.load("digits")
    _, robust = train.build_models(config, dataset, Distribution())
    loop.prepare(loop.TrainingContext(config=config, dataset=dataset), "wasser_train", robust)
    assert robust.jit_compile is got


def _introduced(folder, model, best_epoch, **fields):
    return train._introduction(_config(folder, omega=0.25, epochs=9, report_iterations=7, **fields), model, best_epoch)


def test_the_report_begins_with_the_settings(tmp_path):
    assert _introduced(tmp_path, "lenet", 3) == (
        "# lenet on digits, before and after WasserTrain\n\n"
        "Trained with mirror_ascent, 3 iterations, at ε = 0.1, ω = 0.25; epoch 3 of 9 was the best on the validation "
        "split. Attacked with mirror_ascent, 7 iterations, 6 restarts, on test images that nothing was chosen by.\n"
    )
    assert "at ε from 0 to 0.1, ω" in _introduced(tmp_path, "lenet", 3, random_radius=True)
    assert "epoch 9 of 9 is kept, which was the last. " in _introduced(tmp_path, "lenet", 9, keep="last")
    adaptive = MirrorAscent(ThreatModel(epsilon=0.1), schedule=RadiusSchedule())
    assert "with an adaptive radius, ω" in _introduced(tmp_path, "lenet", 3, attack=adaptive)
    other = LinfPGD(ThreatModel(epsilon=0.1))
    assert f"no Wasserstein attack ({other.ball()}), ω" in _introduced(tmp_path, "lenet", 3, attack=other)
    assert train._metadata(_config(tmp_path, attack=other), data.load())["threat_model"] is None


def test_a_worker_that_is_not_the_chief_trains_the_same_and_writes_nothing(tmp_path, monkeypatch):
    calls, shared = [], []

    def record(context, name, trained):
        assert context.folder is None and not context.history and context.distribution is distribution
        classifier = getattr(trained, "classifier", trained)
        calls.append((name, classifier.get_weights()[0].mean(), trained is classifier))
        classifier.set_weights([weight + 1 for weight in classifier.get_weights()])

    monkeypatch.setattr(train, "train", record)
    distribution = Distribution()
    distribution.is_chief = False
    distribution.share = shared.append
    config = _config(tmp_path / "run", model="linear")
    assert train.run_training(config, distribution) is None
    assert [call[0] for call in calls] == ["standard", "wasser_train"] and [call[2] for call in calls] == [True, False]
    # The second goes on from the first.
    assert calls[1][1] == pytest.approx(calls[0][1] + 1, abs=1e-5)
    assert shared == [[0]] and not (tmp_path / "run").exists()


def test_a_process_takes_only_the_memory_of_a_gpu_that_it_needs(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(train.tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(
        train.tf.config.experimental, "set_memory_growth", lambda device, grows: calls.append((device, grows))
    )
    monkeypatch.setattr(train.tf.config.experimental, "enable_op_determinism", lambda: calls.append("determinism"))
    assert train.prepare_process(_config(tmp_path)).name == "none"
    assert calls == [("GPU:0", True), ("GPU:1", True), "determinism"]
