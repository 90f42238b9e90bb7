"""Negative verdicts: the exact verification, the worst case and the report of both."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import ThreatModel, attacks
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import verification
from wasser_tf.evaluation.check import Check, worst_case_is_per_example
from wasser_tf.evaluation.record import WORST_CASE, make_record
from wasser_tf.evaluation.verification import ExactCheck, summarize_exact_checks
from wasser_tf.evaluation.worst_case import least_costs, update_worst_case, worst_case
from wasser_tf.reporting import figures, report, tables
from wasser_tf.reporting.report import ModelReport, write_report


def _verify(make_examples, monkeypatch, exact, radius, cost, limit=None):
    """Verifies examples whose exact distances are laid down; the balls have other radii than the threat model."""
    made = make_examples([True] * len(exact), [1] * len(exact))
    fields = {"radius": np.float32(radius), "cost": np.float32(cost)}
    made = made._replace(result=made.result._replace(feasibility=made.result.feasibility._replace(**fields)))
    distances, asked = iter(exact), []
    monkeypatch.setattr(
        verification,
        "wasserstein_distance",
        lambda image, target, ball: asked.append((image, target, ball)) or next(distances),
    )
    found = verification.verify(made, ThreatModel(epsilon=9.0), limit)
    assert all(ball == ThreatModel(epsilon=9.0) for _, _, ball in asked) and found.num_images == len(asked)
    for place, (image, target, _) in enumerate(asked):
        assert image is not made.result.adversarial and (image == made.images[place]).all()
        assert (target == made.result.adversarial[place]).all()
    return found


@pytest.mark.parametrize(
    "exact, radius, cost, within, below",
    [
        ([0.25, 0.5], [0.5, 0.5], [0.25, 0.5], True, True),
        # To a hundred-thousandth of the radius.
        ([0.25, 0.500004], [0.5, 0.5], [0.25, 0.500004], True, True),
        ([0.25, 0.50001], [0.5, 0.5], [0.25, 0.50001], False, True),
        ([0.3, 0.25], [0.25, 0.5], [0.3, 0.25], False, True),
        # To a millionth of the cost, and what float32 rounds.
        ([0.25, 0.125], [0.5, 0.5], [0.25, 0.1249], True, False),
        ([0.25, 0.125], [0.5, 0.5], [0.25, 0.124998], True, True),
        ([0.0, 5e-7], [0.0, 0.0], [0.0, 0.0], True, True),
        ([0.0, 2e-6], [0.0, 0.0], [0.0, 1.0], False, True),
        ([0.0, 2e-6], [0.0, 0.0], [0.0, 0.0], False, False),
    ],
)
def test_exact_verdicts(make_examples, monkeypatch, exact, radius, cost, within, below):
    found = _verify(make_examples, monkeypatch, exact, radius, cost)
    assert (found.within_radius, found.below_cost) == (within, below)
    assert found.max_excess == pytest.approx(max(np.subtract(exact, np.float32(cost))), abs=1e-9)


def test_exact_ratios(make_examples, monkeypatch):
    assert _verify(make_examples, monkeypatch, [0.1, 0.3], [0.5, 0.4], [1, 1]).max_ratio == pytest.approx(0.75)
    assert _verify(make_examples, monkeypatch, [5e-7, 0.1], [0.0, 0.4], [1, 1]).max_ratio == pytest.approx(0.25)
    assert _verify(make_examples, monkeypatch, [2e-6, 0.1], [0.0, 0.4], [1, 1]).max_ratio == np.inf
    found = _verify(make_examples, monkeypatch, [0.1, 0.2, 9.0], [0.5] * 3, [0.5] * 3, limit=2)
    assert found.num_images == 2 and found.within_radius and found.max_ratio == pytest.approx(0.4)


def _exact(**changes):
    usual = {"num_images": 700, "max_ratio": 0.5, "max_excess": 1e-7, "within_radius": True, "below_cost": True}
    return ExactCheck(**{**usual, **changes})


def test_exact_verdicts_in_words():
    words = "Exact transport of 1,400 examples: largest distance / radius 0.750000, "
    assert summarize_exact_checks([_exact(), _exact(max_ratio=0.75)]) == words + "all within their radius"
    checks = [_exact(max_ratio=0.75, within_radius=False), _exact()]
    assert summarize_exact_checks(checks) == words + "1 of 2 attacks and radii have examples outside"


@pytest.fixture
def record(make_examples):
    attack = attacks.make("random_plan", ThreatModel())

    def make(success, name="a", radius=0.1, model="m"):
        examples = make_examples(success, [1.0, 3.0, 2.0, 2.0])
        options = {"radius": radius, "model_name": model, "dataset_name": "d", "seconds": 1}
        return dataclasses.replace(make_record(attack, examples.result, examples.clean, **options), attack=name)

    return make


def _shares(count):
    return [place < count for place in range(4)]


@pytest.mark.parametrize(
    "worst, passed", [((2, 3), True), ((3, 4), True), ((2, 2), False), ((1, 3), False), ((4, 2), False)]
)
def test_the_worst_case_is_compared_at_each_radius(record, worst, passed):
    records = [record(_shares(1), "a", 0.1), record(_shares(2), "b", 0.1)]
    records += [record(_shares(3), "a", 0.3), record(_shares(0), "b", 0.3)]
    records += [record(_shares(count), WORST_CASE, at) for count, at in zip(worst, (0.1, 0.3), strict=True)]
    check = worst_case_is_per_example(records)
    assert check.passed is passed and not check.masking and check.name == "the worst case is per example"
    shown = [f"{25 * count:.1f} %" for count in worst]
    assert check.measured == f"{shown[0]} over 50.0 % at 0.1, {shown[1]} over 75.0 % at 0.3"
    assert check.needed == "at each ε at least the best attack alone"


def test_the_worst_case_check_needs_several_attacks(record):
    assert worst_case_is_per_example([record([True] * 4)]).measured == "there is one attack only"
    alone = worst_case_is_per_example([record([True] * 4, WORST_CASE)])
    assert alone.passed is None and alone.measured == "no attack has scores of its own"


def test_the_worst_case_takes_all_fields_from_the_same_run(make_examples):
    def run(number, success, loss, raw_success, raw_loss):
        made = make_examples(success, loss, raw_success=raw_success)

        def numbered(feasibility, offset):
            return feasibility._replace(**{name: np.float32([offset + number] * 3) for name in feasibility._fields})

        result = made.result
        return made._replace(
            result=result._replace(
                feasibility=numbered(result.feasibility, 0),
                raw_feasibility=numbered(result.raw_feasibility, 10),
                radius=np.float32([20 + number] * 3),
                iterations=np.array([1, 2, 3]) * 10**number,
                raw=np.full([3, 2, 2, 1], 30 + number, np.float32),
                adversarial=np.full([3, 2, 2, 1], 40 + number, np.float32),
                raw_loss=np.float32(raw_loss),
                flagged=np.array([number == 1] * 3),
            )
        )

    one = run(0, [False, True, False], [9, 1, 5], [True, False, False], [1, 7, 1])
    two = run(1, [True, True, False], [2, 1, 6], [True, True, False], [2, 3, 0.5])
    worst = worst_case([one, two]).result
    # Success first; then the larger loss; of equals the first run.
    chosen, raw = np.array([1, 0, 1]), np.array([1, 1, 0])
    for name in worst.feasibility._fields:
        np.testing.assert_array_equal(getattr(worst.feasibility, name), chosen)
        np.testing.assert_array_equal(getattr(worst.raw_feasibility, name), 10 + raw)
    np.testing.assert_array_equal(worst.radius, 20 + chosen)
    np.testing.assert_array_equal(worst.adversarial[:, 0, 0, 0], 40 + chosen)
    np.testing.assert_array_equal(worst.raw[:, 1, 1, 0], 30 + raw)
    np.testing.assert_array_equal(worst.flagged, chosen == 1)
    np.testing.assert_array_equal(worst.iterations, [11, 22, 33])
    assert worst.success.tolist() == [True, True, False] and worst.raw_success.tolist() == [True, True, False]
    assert worst.loss.tolist() == [2, 1, 6] and worst.raw_loss.tolist() == [2, 3, 1]
    with pytest.raises(ValueError, match="same images"):
        worst_case([one, two._replace(labels=two.labels + 1)])
    with pytest.raises(ValueError, match="same images"):
        worst_case([one, two._replace(index=two.index + 1)])
    # What is merged later leaves the others as they were.
    merged = update_worst_case(one, tf.nest.map_structure(lambda field: field[[0]], two), np.array([0])).result
    assert merged.loss.tolist() == [2, 1, 5] and one.result.loss.tolist() == [9, 1, 5]


def test_least_costs_are_of_successes_with_a_plan(make_examples):
    made = make_examples([True, True, False], [1, 1, 1], radius=0.3, cost=0.2)
    cost = np.float32([0.2, np.inf, 0.1])
    made = made._replace(result=made.result._replace(feasibility=made.result.feasibility._replace(cost=cost)))
    np.testing.assert_allclose(least_costs([made]), [0.2, np.inf, np.inf])
    lower = make_examples([True] * 3, [1] * 3, radius=0.1, cost=0.05)
    np.testing.assert_allclose(least_costs([made, lower]), [0.05] * 3)
    np.testing.assert_allclose(least_costs([lower, made]), [0.05] * 3)


def _model(record, name="m", **changes):
    made = ModelReport(name=name, path=f"{name}.keras", fingerprint="f")
    made.records += [record(_shares(1), "a", 0.1, name), record(_shares(2), WORST_CASE, 0.1, name)]
    made.records += [record(_shares(3), "a", 0.3, name), record(_shares(4), WORST_CASE, 0.3, name)]
    made.minimal_radii = np.array([0.0, 0.1, 0.2, np.inf])
    return dataclasses.replace(made, **changes)


def _images():
    return Selection("d test", np.arange(4), np.zeros([4, 2, 2, 1], np.float32), np.zeros(4, int), None)


def _cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_overview(record):
    text = report.overview(_model(record))
    assert text.startswith("Natural accuracy 100.00 %.\n\n|")
    assert _cells(text)[0] == ["robust accuracy", "ε = 0.1", "ε = 0.3"]
    assert _cells(text)[2:] == [["a", "75.00 %", "25.00 %"], ["worst case", "50.00 %", "0.00 %"]]


def _check(passed, masking, name="one"):
    return Check(name=name, passed=passed, measured="measured", needed="needed", masking=masking)


@pytest.mark.parametrize(
    "checks, verdict",
    [
        ([_check(True, True), _check(None, True)], "No sign of gradient masking."),
        (
            [_check(False, True), _check(False, True, "two"), _check(True, True)],
            "**Gradient masking is likely (one, two): do not trust the robust accuracy.**",
        ),
        (
            [_check(False, False), _check(None, False)],
            "No sign of gradient masking. "
            "**The attack is not at its strongest (one): the robust accuracy may be lower.**",
        ),
        (
            [_check(False, False), _check(False, True, "two")],
            "**Gradient masking is likely (two): do not trust the robust accuracy.** "
            "**The attack is not at its strongest (one): the robust accuracy may be lower.**",
        ),
    ],
)
def test_sanity_verdicts_in_the_report(checks, verdict):
    text = report._sanity_table(checks)
    assert text.endswith(f"\n\n{verdict}\n")
    states = {True: "pass", False: "**FAIL**", None: "–"}
    assert _cells(text)[2:] == [[check.name, states[check.passed], "measured", "needed"] for check in checks]


@pytest.mark.parametrize(
    "within, below, verdict", [(True, True, "yes"), (False, True, "**NO**"), (True, False, "**NO**")]
)
def test_exact_verdicts_in_the_report(record, within, below, verdict):
    exact = {("a", 0.1): _exact(within_radius=within, below_cost=below)}
    text = report._exact_table(_model(record, exact=exact))
    assert _cells(text)[0] == ["attack", "ε", "images", "max exact distance / ε", "max exact − cost", "feasible"]
    assert _cells(text)[2:] == [["a", "0.1", "700", "0.500000", "1.0e-07", verdict]]


def test_a_report_of_everything(record, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "_draw", lambda *given: {"A picture": "figures/a.png", "Another": "figures/b.png"})
    exact, checks = {("a", 0.3): _exact()}, [_check(False, True)]
    full, plain = _model(record, exact=exact, checks=checks, bisected=True), _model(record, name="other")
    full.commits = {"b", "a"}
    config = {"skip_fooled": False, "attacks": {"a": {}, "b": {}}}
    write_report(tmp_path, config, ThreatModel(epsilon=0.7), _images(), [full, plain])
    text = (tmp_path / "report.md").read_text()
    ball = tables.threat_model_caption(ThreatModel(epsilon=0.7).get_config())
    assert text.startswith(
        f"# Evaluation on d test\n\n{ball.rstrip('.')}; 4 images.\nEvery example is feasible; raw examples are"
    )
    first, second = text.split("## m\n\n")[1].split("## other\n\n")
    assert first.startswith(report.overview(full)) and "### Sanity checks\n\n| check" in first
    line = "Minimal radius over all attacks and radii above: median 0.1; 1 of 4 images never fooled.\n"
    assert line in first and "### Exact transport\n\n| attack" in first
    assert "Minimal radius" not in second and "### " not in second and "Attacked by" not in text
    assert f"## All scores\n\n{tables.to_markdown([*full.records, *plain.records])}" in text
    assert text.endswith("## Pictures\n\n![A picture](figures/a.png)\n\n![Another](figures/b.png)\n")
    assert (tmp_path / "results.csv").read_text() == tables.to_csv([*full.records, *plain.records])
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["config"] == config and stored["threat_model_in_words"] == ball
    assert (stored["images"], stored["num_images"], len(stored["records"])) == ("d test", 4, 8)
    assert stored["models"].keys() == {"m", "other"} and stored["command"].startswith("python ") and "commit" in stored
    ours = stored["models"]["m"]
    assert ours.pop("exact") == [{"attack": "a", "epsilon": 0.3, **dataclasses.asdict(exact["a", 0.3])}]
    assert ours.pop("sanity") == [dataclasses.asdict(checks[0])] and ours.pop("gradient_masking") == ["one"]
    assert [float(radius) for radius in ours.pop("minimal_radius")] == [0.0, 0.1, 0.2, np.inf]
    assert ours.pop("attacked_at") == ["a", "b"] and stored["models"]["other"]["attacked_at"] == []
    assert ours == {"path": "m.keras", "fingerprint": "f", "minimal_radius_median": 0.1}
    assert stored["models"]["other"]["minimal_radius_median"] is None


@pytest.mark.parametrize(
    "radii, median", [([0.3, 0.1, 0.2], 0.2), ([0.1, 0.4, 0.2, 0.3], 0.2), ([0.1, np.inf, np.inf], np.inf)]
)
def test_medians_are_of_the_radii(radii, median):
    assert report._median(np.array(radii)) == median


def test_pictures_are_of_the_first_examples(make_examples):
    examples = make_examples([True] * 10, np.arange(10), wrong=[True, *[False] * 9])
    made, asked = ModelReport(name="m", path="p"), []

    def classifier(images, training=False):
        asked.append(np.asarray(images))
        return tf.one_hot(tf.range(len(images)), 10)

    made.keep_pictures(0.3, examples, classifier)
    kept = made.pictures[0.3]
    assert len(kept.images) == len(kept.labels) == report.PICTURES == 8
    np.testing.assert_array_equal(kept.images, examples.images[:8])
    np.testing.assert_array_equal(kept.adversarial, examples.result.adversarial[:8])
    np.testing.assert_array_equal(asked[-1], kept.adversarial)
    assert kept.clean_predictions.tolist() == [1, *[0] * 7] and kept.adversarial_predictions.tolist() == list(range(8))


@pytest.fixture
def drawn(monkeypatch):
    found = {}
    for name in ("panels", "success_curves", "radius_histogram", "accuracy_curves", "examples"):

        def save(path, *given, name=name, **options):
            found.setdefault(name, []).append((path.name, given, options))

        monkeypatch.setattr(figures, f"save_{name}", save)
    return found


def test_the_report_draws_the_expected_figures(record, drawn, tmp_path):
    pictures = {0.3: report.Pictures(*(f"field {number}" for number in range(5)))}
    models = [_model(record, name="m/1", pictures=pictures, bisected=True), _model(record, name="n", bisected=True)]
    ball = ThreatModel(epsilon=0.7)
    captions = report._draw(tmp_path / "figures", ball, _images()._replace(class_names=("x",)), models)
    worst = "worst case over attacks"
    assert captions == {
        "m/1: each attack against ε": "figures/panels_m_1.png",
        "n: each attack against ε": "figures/panels_n.png",
        f"Success: {worst}": "figures/success.png",
        "Minimal radii": "figures/minimal_radius.png",
        "Robust accuracy": "figures/robust_accuracy.png",
        f"m/1 at ε = 0.3: {worst}": "figures/examples_m_1_0.3.png",
    }
    assert drawn["panels"][0] == ("panels_m_1.png", (models[0].records,), {"title": "m/1 on d test"})
    (path, (curves,), options) = drawn["success_curves"][0]
    # The last of each radius is the worst case.
    assert path == "success.png" and curves["n"] == ([0.0, 0.1, 0.3], [0.0, 0.5, 1.0])
    assert options == {"threat_model": ball, "num_images": 4, "title": f"Success on d test: {worst}", "warnings": []}
    radii = {"m/1": models[0].minimal_radii, "n": models[1].minimal_radii}
    assert drawn["radius_histogram"][0][1] == (radii,) == drawn["accuracy_curves"][0][1]
    title = "Robust accuracy on d test"
    assert drawn["accuracy_curves"][0][2] == {"threat_model": ball, "title": title, "max_radius": 0.3, "warnings": []}
    title = "Minimal radii on d test: the least cost that fooled"
    assert drawn["radius_histogram"][0][2] == {"threat_model": ball, "title": title, "warnings": []}
    assert drawn["examples"] == [
        (
            "examples_m_1_0.3.png",
            tuple(pictures[0.3]),
            {"threat_model": ball.with_epsilon(0.3), "title": f"m/1 at ε = 0.3: {worst}", "class_names": ("x",)},
        )
    ]


def test_figures_that_cannot_be_drawn_are_left_out(record, drawn, tmp_path):
    models = [_model(record, bisected=True, pictures={0.1: ()}), _model(record, name="n")]
    for model in models:
        model.records = [one for one in model.records if one.attack == WORST_CASE]
    two_channels = _images()._replace(images=np.zeros([4, 2, 2, 2]))
    captions = report._draw(tmp_path, ThreatModel(), two_channels, models)
    # No attack has rows of its own, one model has no bisected radii, and two channels are no picture.
    assert list(captions) == ["Success: worst case over attacks", "Robust accuracy"]
    models[0].records[-1] = dataclasses.replace(models[0].records[-1], attack="b")
    assert "m: each attack against ε" in report._draw(tmp_path, ThreatModel(), two_channels, models)
