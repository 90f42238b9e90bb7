"""Runs on a folder that is streamed: the same results as in memory, also after an interruption."""

import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from wasser_tf import ThreatModel, data, models
from wasser_tf.attacks import RandomPlan
from wasser_tf.data import ReadingOptions
from wasser_tf.data.selection import ImageSource
from wasser_tf.data.streaming import StreamedImages
from wasser_tf.evaluation import examples
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.runs import train
from wasser_tf.runs.attack import AttackRun, run_attack
from wasser_tf.runs.certify import CertificationRun, run_certification
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import interruption, storage
from wasser_tf.training import loop, run_folder
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The digits 0 to 2 as PNG files, and a linear classifier of three classes."""
    root = tmp_path_factory.mktemp("set")
    digits = data.load("digits").train
    for number in np.flatnonzero(digits.labels < 3)[:150]:
        path = root / "photos" / f"n{digits.labels[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number, ..., 0] * 240).astype(np.uint8)).save(path)
    models.build("linear", (8, 8, 1), 3, seed=1).save(root / "linear.keras")
    return root


def source(folder, streaming):
    return ImageSource(dataset=str(folder / "photos"), reading=ReadingOptions(streaming=streaming))


@pytest.mark.parametrize("stored", ["float32", "int16"])
def test_an_attack_on_a_stream(folder, tmp_path, stored):
    found = {}
    for streaming in ("never", "always"):
        config = AttackRun(
            model=str(folder / "linear.keras"),
            source=source(folder, streaming),
            attack=RandomPlan(ThreatModel(epsilon=0.1)),
            output_dir=str(tmp_path / streaming),
            batch_size=8,
            verbose=False,
            allow_chance_accuracy=True,
            stored_examples=stored,
        )
        record = run_attack(config).to_json()
        record.pop("seconds")
        clean = config.source.load().images
        found[streaming] = (
            record,
            examples.read_examples(tmp_path / streaming / "adversarial.npz", lambda count, clean=clean: clean[:count])[
                0
            ].to_arrays(),
        )
    assert found["never"][0] == found["always"][0] and found["always"][0]["num_images"] == 25
    for name, array in found["never"][1].items():
        np.testing.assert_array_equal(found["always"][1][name], array)


def test_an_evaluation_and_a_certification_of_a_stream(folder, tmp_path):
    found = {}
    for streaming in ("never", "always"):
        given = {"models": {"linear": str(folder / "linear.keras")}, "source": source(folder, streaming)}
        given |= {"radii": (0.1,), "batch_size": 8, "allow_chance_accuracy": True}
        allowed = given.pop("allow_chance_accuracy")
        config = EvaluationRun(
            **given,
            attacks={"random_plan": RandomPlan(ThreatModel())},
            minimal_radius=True,
            sanity=False,
            output_dir=str(tmp_path / streaming),
            stored_examples="none" if streaming == "always" else "float32",
        )
        (report,) = run_evaluation(config, allow_chance_accuracy=allowed)
        certified = run_certification(
            CertificationRun(
                **given,
                threat_model=ThreatModel(),
                method="ibp",
                output_dir=str(tmp_path / f"{streaming}_certified"),
                evaluation=str(tmp_path / streaming),
                allow_chance_accuracy=allowed,
            )
        )["linear"]
        found[streaming] = (report.records[0].feasible, report.minimal_radii, certified.certified, certified.fooled)
        digest = storage.read_json(tmp_path / streaming / "report.json")["images_digest"]
        assert found.setdefault("digest", digest) == digest
        assert (tmp_path / streaming / "figures" / "examples_linear_0.1.png").exists()
    for one, other in zip(found["never"], found["always"], strict=True):
        np.testing.assert_array_equal(other, one)


def test_a_training_on_a_stream_is_interrupted_and_resumed(folder, tmp_path, monkeypatch):
    """A stream and an array give the same weights, with and without an interruption within an epoch."""

    def weights(name, streaming):
        config = TrainConfig(
            output_dir=str(tmp_path / name),
            attack=RandomPlan(ThreatModel(epsilon=0.05)),
            dataset=str(folder / "photos"),
            augment="shift",
            streaming=streaming,
            **{"model": "linear", "standard_epochs": 3, "batch_size": 16},
        )
        dataset = train.load_dataset(config, Distribution())
        assert len(dataset.train.labels) // 16 == 7
        classifier = loop.classifier_of(config, dataset)
        context = loop.TrainingContext(config=config, dataset=dataset, folder=tmp_path / name)
        loop.train(context, "standard", classifier)
        return classifier.get_weights()

    held = weights("memory", "never")
    reads = []
    read = StreamedImages.read_in_pipeline

    def read_and_interrupt(images, rows):
        reads.append(len(rows))
        if len(reads) == 11:
            # The fourth step of the second epoch.
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return read(images, rows)

    monkeypatch.setattr(StreamedImages, "read_in_pipeline", read_and_interrupt)
    with pytest.raises(interruption.Interrupted), interruption.watched():
        weights("stream", "always")
    with np.load(tmp_path / "stream" / "checkpoints" / "standard.npz") as saved:
        state = json.loads(str(saved["state"]))
        assert (state["epochs_done"], 0 < state["steps_done"] < 7) == (1, True)
    for one, other in zip(held, weights("stream", "always"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
    # Batches that were read ahead are read twice, and no others.
    assert sum(reads) <= 16 * (3 * 7 + 3)


def test_a_run_is_resumed_as_it_was_read(tmp_path):
    def config(streaming):
        return TrainConfig(
            output_dir="x", attack=RandomPlan(ThreatModel(epsilon=0.05)), streaming=streaming, resume=True
        )

    storage.write_json(tmp_path / run_folder.CONFIG, {run_folder.DATASET_DIGEST: "listing:1"})
    run_folder.check_dataset(tmp_path, config("always"), "listing:1")
    with pytest.raises(ValueError, match="The run in .* read digits as a stream: give --streaming=always"):
        run_folder.check_dataset(tmp_path, config("never"), "1")
    storage.write_json(tmp_path / run_folder.CONFIG, {run_folder.DATASET_DIGEST: "1"})
    with pytest.raises(ValueError, match="The run in .* read digits into memory: give --streaming=never"):
        run_folder.check_dataset(tmp_path, config("auto"), "listing:1")
