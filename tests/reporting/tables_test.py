import csv
import io

import pytest

from wasser_tf import RadiusSchedule, ThreatModel, attacks
from wasser_tf.evaluation.record import make_record
from wasser_tf.reporting import tables


@pytest.fixture
def make(make_examples):
    def record(attack, **options):
        examples = make_examples([True, False], [1, 0])
        options = {"radius": None, "model_name": "m", "dataset_name": "digits test", "seconds": 1, **options}
        return make_record(attack, examples.result, examples.clean, **options)

    return record


@pytest.fixture
def plain(make):
    return make(attacks.make("random_plan", ThreatModel()), radius=0.2)


def test_csv_has_a_line_a_record(plain):
    lines = list(csv.DictReader(io.StringIO(tables.to_csv([plain, plain]))))
    assert len(lines) == 2
    assert float(lines[0]["success_rate"]) == plain.feasible.success_rate == 0.5
    assert float(lines[0]["raw_max_pixel"]) == plain.raw.max_pixel == 3
    assert lines[0]["epsilon"] == "0.2" and lines[0]["kernel_size"] == "5" and lines[0]["setting_iterations"] == "1"


def test_markdown_has_a_table_for_each_threat_model(plain, make):
    dense = attacks.make("random_plan", ThreatModel(epsilon=0.3, p=2, kernel_size=None), schedule=RadiusSchedule())
    text = tables.to_markdown([plain, make(dense)])
    assert text.count("| :-") == 4  # Two text columns each.
    assert "local 5×5 plan" in text and "dense plan" in text and "p = 2" in text
    assert "| adaptive |" in text and "|      2 |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_the_summary_shows_feasible_and_raw_scores(plain):
    lines = tables.summary(plain).splitlines()
    assert lines[0] == "m under random_plan at ε = 0.2, 2 images of digits test."
    assert "p = 1" in lines[1] and lines[1].endswith("none crossed.") and "Natural accuracy 100.00 %" in lines[2]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:4]] for line in lines[4:]}
    assert cells["robust accuracy"] == ["50.00 %", "50.00 %"]
    assert cells["largest pixel"] == ["1", "3"] and cells["feasible"] == ["100.00 %", "0.00 %"]


def test_tables_are_aligned():
    assert tables.markdown_table(["a", "value"], [["long name", "1"]]) == (
        "| a         | value |\n| :-------- | ----: |\n| long name |     1 |\n"
    )
