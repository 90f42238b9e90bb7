"""The top-k accuracy."""

import dataclasses

import numpy as np
import tensorflow as tf

from wasser_tf import models
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.sweep import Model, Sweep
from wasser_tf.reporting.report import overview
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import storage


def test_top_accuracy_counts_the_most_probable_classes():
    logits = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    labels = np.arange(40, dtype=np.int32) % 12
    images = np.zeros((40, 1, 1, 1), np.float32)
    images[:, 0, 0, 0] = np.arange(40) / 40

    def classifier(batch, training=False):
        return tf.gather(logits, tf.clip_by_value(tf.cast(tf.round(batch[:, 0, 0, 0] * 40), tf.int32), 0, 39))

    for count in (1, 3, 5):
        expected = np.mean([label in np.argsort(-row)[:count] for row, label in zip(logits, labels, strict=True)])
        assert metrics.top_accuracy(classifier, images, labels, count) == expected


def test_a_sweep_keeps_the_ranks_of_classifiers_with_many_classes(tmp_path, digits, random_plan):
    classifier = models.build("linear", (8, 8, 1), 12, seed=1)
    sweep = Sweep(
        tmp_path, [Model("a", "a", classifier)], {"a": random_plan}, [0.2], digits, chunk_size=6, stored="none"
    )
    sweep.run()
    (cell,) = sweep.results(sweep.models[0], 0.2, images=0)
    attacked = random_plan(classifier, digits.images, digits.labels, radius=0.2, index=digits.index)
    logits = classifier(attacked.adversarial).numpy()
    expected = [list(np.argsort(-row)).index(label) for row, label in zip(logits, digits.labels, strict=True)]
    np.testing.assert_array_equal(cell.rank, expected)
    np.testing.assert_array_equal(cell.rank > 0, cell.examples.result.success)
    assert not metrics.has_many_classes(lambda images: images)
    assert not metrics.has_many_classes(models.build("linear", (8, 8, 1), 10))


def test_the_report_has_the_top_5_accuracy_under_attack(tmp_path, random_plan):
    path = tmp_path / "linear.keras"
    models.build("linear", (8, 8, 1), 12, seed=1).save(path)
    config = EvaluationRun(
        models={"linear": str(path)},
        source=ImageSource(num_examples=16),
        attacks={"first": random_plan, "second": dataclasses.replace(random_plan, seed=1)},
        radii=(0.2,),
        output_dir=str(tmp_path / "out"),
        sanity=False,
    )
    (found,) = run_evaluation(config, allow_chance_accuracy=True)
    shares = found.robust_top5
    assert set(shares) == {("first", 0.2), ("second", 0.2), ("worst case", 0.2)}
    assert shares["worst case", 0.2] <= min(shares["first", 0.2], shares["second", 0.2]) <= found.top5 <= 1
    for record in found.records:
        assert shares[record.attack, 0.2] >= record.feasible.robust_accuracy
    assert "| robust top-5 accuracy | ε = 0.2 |" in overview(found)
    stored = storage.read_json(tmp_path / "out" / "report.json")["models"]["linear"]["robust_top5_accuracy"]
    assert {(row["attack"], row["epsilon"]): row["accuracy"] for row in stored} == shares
