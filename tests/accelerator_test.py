import json

import numpy as np
import tensorflow as tf

from benchmarks.accelerator import import_training, pack, program
from wasser_tf import ThreatModel, attacks
from wasser_tf.reporting import comparison
from wasser_tf.runs import train
from wasser_tf.training.config import TrainConfig


def test_the_metadata_of_a_program_describe_its_inputs(tmp_path):
    weight, count, scale = tf.Variable([1.0, 2.0]), tf.Variable(3), tf.Variable([5.0, 6.0])

    def step(given):
        weight.assign_add(given * scale)
        count.assign_add(1)
        return {"sum": tf.reduce_sum(weight)}

    program.export(tmp_path, step, [tf.constant([1.0, 1.0])], [count, weight], expected=True, seed=7)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    # In the order of use: the constant, the weight, and the count.
    assert metadata["inputs"] == [-1, 1, 0]
    assert metadata["returned"] == ["sum"] and metadata["variables"] == 2 and metadata["seed"] == 7
    with np.load(tmp_path / "state.npz") as state:
        assert int(state["variable_0000"]) == 3
        np.testing.assert_array_equal(state["variable_0001"], [1.0, 2.0])
        (constant,) = (state[name] for name in state.files if name.startswith("constant_"))
    np.testing.assert_array_equal(constant, [5.0, 6.0])
    with np.load(tmp_path / "example.npz") as example:
        assert example["sum"] == 1 + 5 + 2 + 6
    # No operations that need TensorFlow.
    assert b"custom_call" not in (tmp_path / "program.mlirbc").read_bytes()


def test_a_finished_training_is_imported(tmp_path, monkeypatch):
    # The report and the export take longer than all the rest, and read only what is compared below.
    for module, name in ((train, "_compare"), (train, "export_saved_model"), (comparison, "save_report")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(comparison, "save_figures", lambda *_: [])
    config = {
        "output_dir": str(tmp_path / "run"),
        "attack": attacks.make("linf_pgd", ThreatModel(epsilon=0.1), iterations=1),
        "validation_attack": attacks.make("linf_pgd", ThreatModel(epsilon=0.1), iterations=1),
        "model": "linear",
        "standard_epochs": 0,
        "batch_size": 1000,
        "radii": (0.1,),
        "num_attack_examples": 8,
        "report_iterations": 1,
        "ema_momentum": 0.9,
    }
    first = train.run_training(TrainConfig(**config, epochs=1))
    weights = [np.full_like(weight, 0.25) for weight in first.classifier.get_weights()]
    history = [{"epoch": epoch, "loss": 1.0 / epoch} for epoch in (1, 2)]
    best = {f"best_{number:04}": weight for number, weight in enumerate(weights)}
    np.savez(tmp_path / "after.npz", history=np.array(json.dumps(history)), kept_epoch=1, **best)

    import_training.main(tmp_path / "run", tmp_path / "after.npz")
    second = train.run_training(TrainConfig(**config, epochs=2, resume=True))
    for one, two in zip(second.classifier.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, two)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["wasser_train", "1"], ["wasser_train", "2"]]


def test_packed_trainings_are_restored_unchanged(tmp_path):
    random = np.random.RandomState(0)
    shared = random.standard_normal((3, 3)).astype(np.float32)
    # More than one picture of 960.
    images = random.randint(0, 256, (1000, 4, 6, 3), dtype=np.uint8)
    whole = tmp_path / "exported"
    for name in ("one", "two"):
        (whole / name / "validation").mkdir(parents=True)
        (whole / name / "metadata.json").write_text('{"dataset": "photographs"}')
        (whole / name / "program.mlirbc").write_bytes(name.encode())
        np.savez(whole / name / "state.npz", variable_0000=shared, variable_0001=np.float64(len(name)))
        np.savez(whole / name / "validation" / "images.npz", images=images[:2])
        np.savez(whole / name / "example.npz", argument_0=images)
    np.savez(whole / "photographs.npz", images=images, labels=np.arange(1000))

    pack.pack(tmp_path / "packed", [whole / "one", whole / "two"])
    pack.unpack(tmp_path / "packed", tmp_path / "there")
    with np.load(tmp_path / "packed" / "arrays.npz") as arrays:
        # The weight, a number, images of validation, labels.
        assert len(arrays.files) == 4
    files = [file.relative_to(whole) for file in whole.rglob("*") if file.is_file() and file.name != "example.npz"]
    assert len(files) == 9
    for file in files:
        if file.suffix != ".npz":
            assert (tmp_path / "there" / file).read_bytes() == (whole / file).read_bytes()
            continue
        with np.load(whole / file) as before, np.load(tmp_path / "there" / file) as after:
            assert sorted(before.files) == sorted(after.files)
            for name in before.files:
                np.testing.assert_array_equal(before[name], after[name])
                assert before[name].dtype == after[name].dtype
