import json

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.evaluation.record import evaluate_attack, make_record
from wasser_tf.runtime import storage


@pytest.fixture(scope="module")
def evaluation(classifier, random_plan, digits):
    return evaluate_attack(
        classifier, random_plan, digits.images, digits.labels, radius=0.2, model_name="mlp", dataset_name="digits test"
    )


def test_the_record_holds_the_settings_and_the_results(evaluation, digits):
    record = evaluation.record
    assert (record.model, record.dataset, record.attack) == ("mlp", "digits test", "random_plan")
    assert record.epsilon == record.threat_model["epsilon"] == 0.2
    assert record.threat_model["p"] == 1 and record.threat_model["kernel_size"] == 5
    assert "threat_model" not in record.settings and record.settings["iterations"] == 1
    assert record.num_images == 16 and record.seconds > 0
    assert record.natural_accuracy == np.mean(evaluation.clean.predicted == digits.labels)
    assert record.feasible.robust_accuracy <= record.natural_accuracy
    assert record.feasible.feasible_share == 1
    assert record.feasible.max_cost_ratio <= 1 + 1e-5
    assert record.mean_radius == pytest.approx(0.2)
    assert record.max_iterations == 1


def test_records_are_valid_json_for_all_numbers(make_examples, tmp_path):
    # Something moved at radius 0: the cost ratio is infinite.
    examples = make_examples([True], [1], radius=0, cost=1)
    attack = attacks.make("random_plan", ThreatModel(epsilon=0))
    record = make_record(
        attack, examples.result, examples.clean, radius=None, model_name="m", dataset_name="d", seconds=1
    )
    storage.write_json(tmp_path / "record.json", record.to_json())
    values = json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert float(values["feasible"]["max_cost_ratio"]) == np.inf
    assert values["raw"]["max_pixel"] == 3
