import dataclasses
import pathlib

import pytest

import wasser_tf
from wasser_tf import RadiusSchedule, ThreatModel, attacks, models, pretrained
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.publishing import card
from wasser_tf.runs import publish
from wasser_tf.runs.publish import Publication
from wasser_tf.runtime import storage
from wasser_tf.training.config import TrainConfig

_ROOT = pathlib.Path(__file__).parents[2]


def test_a_run_becomes_a_classifier_with_a_card(run, board, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    path = publish.publish(Publication(run=str(run), name="digits_linear", board=board))
    assert pretrained.names() == ("digits_linear",) and path == pretrained.path_of("digits_linear")
    assert wasser_tf.load_pretrained("digits_linear").count_params() == 650
    found = pretrained.card("digits_linear")
    # The evaluation is of the published file, not of its source.
    assert found["evaluation"]["fingerprint"] == fingerprint(path) != fingerprint(run / "best.keras")
    assert found["evaluation"]["num_images"] == 16 and found["training"]["config"]["seed"] == 5
    text = path.with_suffix(".md").read_text()
    accuracy = f"{100 * found['evaluation']['robust_accuracy']['0.1']:.2f} %"
    assert "robust at ε = 0.1" in text and accuracy in text and "16 images of digits test" in text
    assert found["training"]["command"] in text and "at commit cccccccc" in text
    entry = storage.read_json(
        tmp_path / "page" / "leaderboard" / "digits" / "p1-k5-normalized-capacity1" / "digits_linear.json"
    )
    assert entry == found["evaluation"] and entry["description"].startswith(
        "linear, WasserTrain, mirror_ascent, seed 5"
    )


def test_another_classifier_of_the_same_name_is_not_overwritten_by_default(run, board, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    config = Publication(run=str(run), name="digits_linear", board=board)
    path = publish.publish(config)
    first, ours = path.read_bytes(), path.with_suffix(".json").read_bytes()
    # The same command again: the same classifier.
    assert publish.publish(config).read_bytes() == first
    models.build("linear", (8, 8, 1), 10, seed=1).save(run / "best.keras")
    with pytest.raises(ValueError, match="classifier called 'digits_linear': give another --name, or --overwrite"):
        publish.publish(config)
    assert path.read_bytes() == first and path.with_suffix(".json").read_bytes() == ours
    publish.publish(dataclasses.replace(config, overwrite=True))
    assert path.read_bytes() != first and path.with_suffix(".json").read_bytes() != ours


def test_a_training_without_attacks_is_reported_as_standard(run, board, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    description = storage.read_json(run / "config.json")
    storage.write_json(run / "config.json", {**description, "config": {**description["config"], "omega": 0.0}})
    publish.publish(Publication(run=str(run), name="digits_linear", board=board))
    assert pretrained.card("digits_linear")["evaluation"]["description"].startswith("linear, standard training, seed 5")


def test_packaged_classifiers_can_be_evaluated_again(run, board, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    path = publish.publish(Publication(run=str(run), name="digits_linear", board=board), "As it was told.")
    first, bytes_before = pretrained.card("digits_linear"), path.read_bytes()
    more = dataclasses.replace(board, source=dataclasses.replace(board.source, num_examples=24))
    assert publish.publish(Publication(name="digits_linear", board=more)) == path
    found = pretrained.card("digits_linear")
    assert path.read_bytes() == bytes_before and found["evaluation"]["num_images"] == 24
    assert found["evaluation"]["description"] == "As it was told." and found["evaluation"] != first["evaluation"]
    assert {**found, "evaluation": None} == {**first, "evaluation": None}
    with pytest.raises(ValueError, match="No pretrained classifier is called 'none'"):
        publish.publish(Publication(name="none", board=board))
    with pytest.raises(ValueError, match="got no run: give --run"):
        Publication(name="digits_linear", board=board, overwrite=True)


def test_the_training_command_contains_all_non_default_settings(run):
    words = card.training_of(run)["command"].split()
    assert words[:2] == ["python", "bin/train.py"] and words[-1] == "--output_dir=…"
    assert set(words[2:-1]) == {
        "--dataset=digits",
        "--model=linear",
        "--attack=mirror_ascent:iterations=7",
        "--epsilon=0.3",
        "--p=2.0",
        "--omega=0.5",
        "--seed=5",
    }


def test_every_flag_of_a_training_command_exists():
    ball = ThreatModel(epsilon=0.2, kernel_size=None, capacity=None, normalize_mass=False)
    config = TrainConfig(
        output_dir="x",
        attack=attacks.make("wasser_attack", ball, alpha=3.0, schedule=RadiusSchedule()),
        validation_attack=attacks.make("mirror_ascent", ball, iterations=20, restarts=6),
        radii=(0.1, 0.2),
        keep="last",
        **{"dataset": "mnist", "model": "mlp", "batch_size": 7, "optimizer": "sgd", "learning_rate": 1.0},
        **{
            "standard_epochs": 1,
            "epochs": 2,
            "precision": "mixed_float16",
            "jit_compile": False,
            "report_iterations": 3,
        },
    )
    command = card.training_command(storage.through_json(config.identity()))
    source = "".join((_ROOT / "wasser_tf" / "commands" / name).read_text() for name in ("train.py", "_flags.py"))
    flags = dict(word.removeprefix("--").split("=", 1) for word in command.split()[2:])
    fields = {field.name for field in dataclasses.fields(TrainConfig) if field.metadata.get("help")}
    assert all(f'"{flag}"' in source or flag in fields for flag in flags)
    assert flags["kernel_size"] == flags["capacity"] == "0" and flags["normalize_mass"] == "false"
    assert flags["adaptive_radius"] == "true" and flags["radii"] == "0.1,0.2" and flags["attack"].endswith(":alpha=3.0")
    assert flags["validation_attack"] == "mirror_ascent:iterations=20:restarts=6" and flags["keep"] == "last"


def test_an_initial_classifier_replaces_the_model_flag():
    attack = attacks.make("mirror_ascent", ThreatModel())
    config = TrainConfig(output_dir="x", attack=attack, model="mlp", width=2.0, initial="runs/mine.keras", blur=1)
    words = card.training_command(storage.through_json(config.identity())).split()
    assert "--initial=runs/mine.keras" in words and "--blur=1" in words
    assert not any(word.startswith(("--model", "--width")) for word in words)


def test_invalid_publications_are_refused(run, board, tmp_path):
    with pytest.raises(ValueError, match="lower-case letters"):
        Publication(run=str(run), name="../x", board=board)
    other = dataclasses.replace(board, source=ImageSource(dataset="mnist"))
    with pytest.raises(ValueError, match="was trained on digits: give --dataset=digits"):
        publish.publish(Publication(run=str(run), name="x", board=other))
    with pytest.raises(ValueError, match="missing does not contain a training run: pass the --output_dir of bin/train"):
        publish.publish(Publication(run=str(tmp_path / "missing"), name="x", board=board))
    storage.write_json(tmp_path / "config.json", {"radii": [1]})
    with pytest.raises(ValueError, match="does not contain a training run"):
        publish.publish(Publication(run=str(tmp_path), name="x", board=board))
