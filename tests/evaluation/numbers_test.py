"""Metrics, records and tables, compared with numbers computed by hand; every field has a different value."""

import csv
import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import RadiusSchedule, ThreatModel, attacks
from wasser_tf.attacks import AttackResult
from wasser_tf.evaluation import metrics, record
from wasser_tf.evaluation.metrics import Predictions, Scores
from wasser_tf.evaluation.record import evaluate_attack, make_record
from wasser_tf.reporting import tables
from wasser_tf.transport.feasibility import Feasibility


def _floats(*values):
    return np.array(values, np.float32)


_CERTIFIED = Feasibility(
    cost=_floats(0.1, 0.2, 0.3, 0.5),
    radius=_floats(0.5, 0.4, 0.4, 0.5),
    min_flow=_floats(0.04, 0.03, 0.02, 0.05),
    row_error=_floats(1e-7, 2e-7, 3e-7, 4e-8),
    column_error=_floats(5e-7, 6e-7, 1e-7, 4e-7),
    min_pixel=_floats(0.02, 0.01, 0.03, 0.04),
    max_pixel=_floats(0.7, 0.9, 0.8, 0.6),
    mass_error=_floats(1e-7, 2e-7, 3e-7, 6e-7),
)
# The second has left its ball, the third its pixels, the fourth neither.
_RAW = Feasibility(
    cost=_floats(0.25, 0.8, 0.1, 0.5),
    radius=_CERTIFIED.radius,
    min_flow=_floats(0.0, 0.01, 0.01, 0.01),
    row_error=_floats(0, 0, 0, 9e-7),
    column_error=_floats(0, 8e-7, 0, 0),
    min_pixel=_floats(-0.25, 0, 0, 0),
    max_pixel=_floats(1, 1, 1.5, 1),
    mass_error=_floats(0, 0, 0, 8e-7),
)
_WRONG = np.array([False, False, False, True])
_RESULT = AttackResult(
    adversarial=np.zeros([4, 2, 2, 1], np.float32),
    feasibility=_CERTIFIED,
    success=np.array([True, False, False, False]),
    loss=_floats(1, 2, 3, 6),
    radius=_CERTIFIED.radius,
    iterations=np.array([1, 2, 3, 10]),
    raw=np.zeros([4, 2, 2, 1], np.float32),
    raw_feasibility=_RAW,
    raw_success=np.array([True, True, False, True]),
    raw_loss=_floats(2, 4, 6, 20),
    flagged=np.array([True, False, True, False]),
)
_CLEAN = Predictions(np.array([0, 0, 0, 1]), _WRONG, _floats(0.5, 0.25, 0.25, 1.0))


def _metadata(**wanted):
    return {name: pytest.approx(value, rel=1e-5) for name, value in wanted.items()}


_CERTIFIED_SCORES = _metadata(
    success_rate=0.5,
    robust_accuracy=0.5,
    cross_entropy=3.0,
    precision_error_mean=3e-7,
    precision_error_max=6e-7,
    max_cost_ratio=1.0,
    min_pixel=0.01,
    max_pixel=0.9,
    max_row_error=3e-7,
    max_column_error=6e-7,
    min_flow=0.02,
    feasible_share=1.0,
)
_RAW_SCORES = _metadata(
    success_rate=0.75,
    robust_accuracy=0.25,
    cross_entropy=8.0,
    precision_error_mean=2e-7,
    precision_error_max=8e-7,
    max_cost_ratio=2.0,
    min_pixel=-0.25,
    max_pixel=1.5,
    max_row_error=9e-7,
    max_column_error=8e-7,
    min_flow=0.0,
    feasible_share=0.25,
)


def test_scores():
    assert dataclasses.asdict(metrics.score_feasible(_RESULT, _WRONG)) == _CERTIFIED_SCORES
    assert dataclasses.asdict(metrics.score_raw(_RESULT, _WRONG)) == _RAW_SCORES


def test_scores_need_the_capacity():
    assert metrics.score_feasible(_RESULT, _WRONG, 0.75).feasible_share == 0.5
    assert metrics.score_raw(_RESULT, _WRONG, None).feasible_share == 0.5


def test_cost_ratios():
    feasibility = _CERTIFIED._replace(cost=_floats(0.3, 0, 0.1, 0.2), radius=_floats(0.6, 0, 0, 0.1))
    np.testing.assert_allclose(metrics.cost_ratio(feasibility), [0.5, 0, np.inf, 2], rtol=1e-6)


def _classifier(images, training=False):
    """Logits (v, 1 − v, 0) of an image whose first pixel is v."""
    assert training is False
    value = images[:, 0, 0, 0]
    return tf.stack([value, 1 - value, 0 * value], axis=1)


def test_predictions():
    images = np.float32([0.0, 0.25, 0.75])[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32)
    found = metrics.predict(_classifier, images, np.array([1, 0, 2]), from_logits=True, batch_size=2)
    assert found.predicted.tolist() == [1, 1, 0] and found.wrong.tolist() == [False, True, True]
    logits = np.array([[0, 1, 0], [0.25, 0.75, 0], [0.75, 0.25, 0]])
    wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), [1, 0, 2]]
    np.testing.assert_allclose(found.loss, wanted, rtol=1e-5)
    # The same outputs taken for probabilities, which sum to 1.
    loss = metrics.predict(_classifier, images, np.array([1, 0, 0]), from_logits=False).loss
    np.testing.assert_allclose(loss, -np.log([1, 0.25, 0.75]), atol=1e-5)
    assert not metrics.is_from_logits(_classifier, images)
    assert metrics.is_from_logits(lambda images, training: 5 * _classifier(images), images)


def _record(radius=0.5, **changes):
    attack = attacks.make("random_plan", ThreatModel(epsilon=0.25, p=2.0), seed=6, **changes)
    names = {"model_name": "m", "dataset_name": "d"}
    return make_record(attack, _RESULT, _CLEAN, radius=radius, seconds=2.5, **names), attack


def test_a_record_field_by_field():
    made, attack = _record()
    values = made.to_json()
    assert values.pop("feasible") == _CERTIFIED_SCORES and values.pop("raw") == _RAW_SCORES
    assert values == {
        "model": "m",
        "dataset": "d",
        "attack": "random_plan",
        "epsilon": 0.5,
        "threat_model": ThreatModel(epsilon=0.5, p=2.0).get_config(),
        "settings": {key: value for key, value in attack.get_config().items() if key != "threat_model"},
        "seed": 6,
        "num_images": 4,
        "natural_accuracy": 0.75,
        "natural_cross_entropy": 0.5,
        "mean_radius": pytest.approx(0.45),
        "mean_iterations": 4.0,
        "max_iterations": 10,
        "seconds": 2.5,
        "num_flagged": 2,
    }
    assert _record(radius=None)[0].epsilon == _record(radius=None)[0].threat_model["epsilon"] == 0.25


def test_a_record_uses_the_capacity_of_the_attack():
    attack = attacks.make("random_plan", ThreatModel(capacity=2.0))
    options = {"radius": None, "model_name": "m", "dataset_name": "d", "seconds": 1}
    made = make_record(attack, _RESULT._replace(feasibility=_RAW), _CLEAN, **options)
    assert made.feasible.feasible_share == made.raw.feasible_share == 0.5
    with pytest.raises(ValueError, match="is not a Wasserstein attack"):
        make_record(attacks.make("linf_pgd", ThreatModel()), _RESULT, _CLEAN, **options)


def test_evaluate_attack_passes_every_argument_to_the_attack(monkeypatch):
    images, labels, asked = np.zeros([4, 2, 2, 1], np.float32), np.array([1, 1, 1, 0]), []

    class Fake(attacks.RandomPlan):
        def __call__(self, *arguments, **options):
            asked.append((arguments, options))
            return _RESULT

    clock = iter([10.0, 13.5])
    monkeypatch.setattr(record.time, "perf_counter", lambda: next(clock))
    fake, index = Fake(ThreatModel(epsilon=0.3)), np.arange(4)
    found = evaluate_attack(
        _classifier, fake, images, labels, radius=0.2, model_name="m", dataset_name="d", index=index,
        from_logits=True, batch_size=3, verbose=True,
    )  # fmt: skip
    ((classifier, given, classes), options) = asked[0]
    assert classifier is _classifier and given is not None and classes.tolist() == [1, 1, 1, 0]
    np.testing.assert_array_equal(given, images)
    assert options.pop("index") is index
    assert options == {"radius": 0.2, "from_logits": True, "batch_size": 3, "verbose": True}
    assert found.result.adversarial is _RESULT.adversarial and found.clean.wrong.tolist() == [False, False, False, True]
    made = found.record
    assert (made.model, made.dataset, made.epsilon, made.seconds) == ("m", "d", 0.2, 3.5)
    clock = iter([0.0, 1.0])
    made = evaluate_attack(_classifier, fake, images, labels).record
    # These outputs are probabilities.
    assert asked[1][1] == {
        "radius": None, "index": None, "from_logits": False, "batch_size": 128, "verbose": False,
    } and made.epsilon == 0.3  # fmt: skip
    assert (made.model, made.dataset) == ("classifier", "images")
    with pytest.raises(ValueError, match="is not a Wasserstein attack"):
        evaluate_attack(_classifier, attacks.make("linf_pgd", ThreatModel()), images, labels)


def test_csv():
    made, _ = _record()
    adaptive, _ = _record(schedule=RadiusSchedule())
    lines = list(csv.DictReader(io.StringIO(tables.to_csv([made, adaptive]))))
    names = [field.name for field in dataclasses.fields(Scores)]
    ball = [field.name for field in dataclasses.fields(ThreatModel) if field.name != "epsilon"]
    before = [
        field.name
        for field in dataclasses.fields(record.Record)
        if field.name not in ("feasible", "raw", "threat_model", "settings")
    ]
    settings = ["setting_iterations", "setting_stop_when_fooled"]
    schedule = [f"schedule_{field.name}" for field in dataclasses.fields(RadiusSchedule)]
    assert list(lines[0]) == [*before, *names, *(f"raw_{name}" for name in names), *ball, *settings, *schedule]
    assert lines[0]["schedule_start"] == "" and float(lines[1]["schedule_start"]) == RadiusSchedule().start
    assert float(lines[0]["raw_success_rate"]) == 0.75 and float(lines[0]["success_rate"]) == 0.5
    assert (lines[0]["seed"], lines[0]["p"], lines[0]["epsilon"], lines[0]["num_flagged"]) == ("6", "2.0", "0.5", "2")


def _cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_markdown():
    made, _ = _record()
    caption = (
        "Wasserstein ball: ε normalised (× mass), p = 2 (cost Euclidean^p in pixels), local 5×5 plan, capacity 1, one "
        "budget for all channels, none crossed."
    )
    text = tables.to_markdown([made])
    assert text.startswith(f"{caption}\n\n| model | attack      |   ε | images |")
    header, rule, row = _cells(text)
    assert [cell[0] == ":" for cell in rule] == [True, True, *[False] * 16]
    assert [cell[-1] == ":" for cell in rule] == [False, False, *[True] * 16]
    assert dict(zip(header, row, strict=True)) == {
        "model": "m",
        "attack": "random_plan",
        "ε": "0.5",
        "images": "4",
        "natural accuracy": "75.00 %",
        "robust accuracy": "50.00 %",
        "success": "50.00 %",
        "cross-entropy": "3",
        "precision error": "3.0e-07",
        "max cost / ε": "1.000000",
        "feasible": "100.00 %",
        "raw success": "75.00 %",
        "raw precision error": "2.0e-07",
        "raw pixels": "-0.25 … 1.5",
        "raw feasible": "25.00 %",
        "flagged": "2",
        "iterations": "4",
        "seconds": "2.5",
    }
    adaptive, _ = _record(schedule=RadiusSchedule())
    other = dataclasses.replace(made, threat_model=ThreatModel(epsilon=0.5).get_config(), model="x")
    text = tables.to_markdown([made, other, adaptive])
    # Of one threat model one table, in order of appearance.
    assert [row[0] for row in _cells(text) if row[0] in "mx"] == ["m", "m", "x"] and text.count(caption) == 1
    assert _cells(text)[3][2] == "adaptive"


def test_summary():
    made, _ = _record()
    text = tables.summary(made)
    assert text.startswith("m under random_plan at ε = 0.5, 4 images of d.\nWasserstein ball: ε normalised")
    assert "\nNatural accuracy 75.00 %; 4 iterations per image, 2.5 s.\n**m: 2 of 4 images are flagged: the" in text
    assert _cells(text)[0] == ["", "feasible", "raw"]
    assert _cells(text)[2:] == [
        ["robust accuracy", "50.00 %", "25.00 %"],
        ["success", "50.00 %", "75.00 %"],
        ["mean cross-entropy", "3.000", "8.000"],
        ["precision error, mean", "3.0e-07", "2.0e-07"],
        ["precision error, largest", "6.0e-07", "8.0e-07"],
        ["largest cost / ε", "1.000000", "2.000000"],
        ["smallest pixel", "0.01", "-0.25"],
        ["largest pixel", "0.9", "1.5"],
        ["largest row error / mass", "3.0e-07", "9.0e-07"],
        ["feasible", "100.00 %", "25.00 %"],
    ]
    adaptive, _ = _record(schedule=RadiusSchedule())
    assert " at an adaptive ε, 4 images" in tables.summary(adaptive)
    assert "flagged" not in tables.summary(dataclasses.replace(made, num_flagged=0))


def test_captions():
    config = ThreatModel(epsilon=0.125, normalize_mass=False, kernel_size=None, capacity=None).get_config()
    sentence = (
        "Wasserstein ball: ε absolute (pixel mass), p = 1 (Euclidean cost in pixels), dense plan, no capacity, one "
        "budget for all channels, none crossed"
    )
    assert tables.threat_model_caption(config) == f"{sentence}."
    assert tables.threat_model_caption(config, 7) == f"{sentence}; 7 images."


def test_columns_of_text_are_aligned_left():
    text = tables.markdown_table(["a", "bb", "c"], [["x", "y", "1"], ["zz", "w", "100"]], text_columns=2)
    assert text == "| a  | bb |   c |\n| :- | :- | --: |\n| x  | y  |   1 |\n| zz | w  | 100 |\n"
