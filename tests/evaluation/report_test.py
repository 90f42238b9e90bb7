import csv
import io
import json

import numpy as np
import pytest

from wasser_tf import RadiusSchedule, ThreatModel, attacks, storage
from wasser_tf.evaluation import report
from wasser_tf.evaluation.report import Record


@pytest.fixture(scope="module")
def evaluation(classifier, random_plan, digits):
    return report.evaluate_attack(
        classifier, random_plan, digits.images, digits.labels, radius=0.2, model_name="mlp", dataset_name="digits test"
    )


def test_the_record_says_what_was_done(evaluation, digits):
    record = evaluation.record
    assert (record.model, record.dataset, record.attack) == ("mlp", "digits test", "random_plan")
    assert record.epsilon == record.threat_model["epsilon"] == 0.2
    assert record.threat_model["p"] == 1 and record.threat_model["kernel_size"] == 5
    assert "threat_model" not in record.settings and record.settings["iterations"] == 1
    assert record.num_images == 16 and record.seconds > 0
    assert record.natural_accuracy == np.mean(evaluation.clean.predicted == digits.labels)
    assert record.certified.robust_accuracy <= record.natural_accuracy
    assert record.certified.legal_share == 1
    assert record.certified.max_cost_ratio <= 1 + 1e-5
    assert record.mean_radius == pytest.approx(0.2)
    assert record.max_iterations == 1


def test_json_round_trip(evaluation, tmp_path):
    storage.write_json(tmp_path / "record.json", evaluation.record.to_json())
    assert Record.from_json(storage.read_json(tmp_path / "record.json")) == evaluation.record


def test_json_of_an_illegal_example_stays_json(make_examples, tmp_path):
    examples = make_examples([True], [1], radius=0, cost=1)
    attack = attacks.make("random_plan", ThreatModel(epsilon=0))
    record = report.make_record(
        attack, examples.result, examples.clean, radius=None, model_name="m", dataset_name="d", seconds=1
    )
    storage.write_json(tmp_path / "record.json", record.to_json())
    json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert Record.from_json(storage.read_json(tmp_path / "record.json")).certified.max_cost_ratio == np.inf


def test_csv_has_a_line_a_record(evaluation):
    lines = list(csv.DictReader(io.StringIO(report.to_csv([evaluation.record, evaluation.record]))))
    assert len(lines) == 2
    assert float(lines[0]["success_rate"]) == evaluation.record.certified.success_rate
    assert float(lines[0]["raw_max_pixel"]) == evaluation.record.raw.max_pixel
    assert lines[0]["epsilon"] == "0.2" and lines[0]["kernel_size"] == "5" and lines[0]["setting_iterations"] == "1"


def test_markdown_has_a_table_for_each_threat_model(evaluation, make_examples):
    dense = attacks.make("random_plan", ThreatModel(epsilon=0.3, p=2, kernel_size=None), schedule=RadiusSchedule())
    examples = make_examples([True], [1])
    other = report.make_record(
        dense, examples.result, examples.clean, radius=None, model_name="m", dataset_name="d", seconds=1
    )
    text = report.to_markdown([evaluation.record, other])
    assert text.count("| :-- |") == 2
    assert "local 5×5 plan" in text and "dense plan" in text and "p = 2" in text
    assert "| mlp | random_plan | 0.2 | 16 |" in text and "| adaptive |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
