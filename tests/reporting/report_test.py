"""The files of an evaluation's report: figures by name, sections, verdicts and plain values."""

import json

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.check import Check
from wasser_tf.evaluation.fingerprint import array_digest
from wasser_tf.evaluation.record import WORST_CASE
from wasser_tf.evaluation.verification import ExactCheck
from wasser_tf.reporting import drawing, report
from wasser_tf.reporting.certification import Certified
from wasser_tf.reporting.report import ModelReport, write_report

BALL = ThreatModel(epsilon=0.0, p=2.0)
IMAGES = Selection("d test", np.arange(4), np.full([4, 2, 2, 1], 0.5, np.float32), np.zeros(4, int), ("zero", "one"))


@pytest.fixture
def saved(monkeypatch):
    """The figures, which are not written: the titles and captions by the names of the files."""
    found = {}
    monkeypatch.setattr(
        drawing, "save_figure", lambda figure, path, title, words: found.update({path.name: (figure, title, words)})
    )
    return found


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(report, "_draw", lambda *_: {})


@pytest.fixture
def model(make_examples):
    def make(name="m", **fields):
        made = ModelReport(name=name, path=f"{name}.keras", fingerprint="f" * 64, **fields)
        attack = attacks.make("random_plan", BALL)
        for radius, success in ((0.1, [True, False, False, False]), (0.3, [True, True, True, False])):
            examples = make_examples(success, [1, 2, 3, 4])
            made.add("plans", attack, radius, "d test", examples, 2.0)
            made.keep_pictures(radius, examples, lambda images, training: np.eye(2)[[0] * len(images)])
        made.minimal_radii = np.array([0.05, 0.2, 0.25, np.inf])
        return made

    return make


def written(folder, reports, **config):
    write_report(folder, {"skip_fooled": False, "attacks": {"a": 1, "b": 2}, **config}, BALL, IMAGES, reports)
    return json.loads((folder / "report.json").read_text()), (folder / "report.md").read_text()


def test_figures_are_those_that_the_results_allow(tmp_path, saved, model):
    _, text = written(tmp_path, [model()])
    assert set(saved) == {
        "panels_m.png", "success.png", "robust_accuracy.png", "examples_m_0.1.png", "examples_m_0.3.png",
    }  # fmt: skip
    for caption, name in (
        ("m: each attack against ε", "panels_m"),
        ("Success: plans", "success"),
        ("Robust accuracy", "robust_accuracy"),
        ("m at ε = 0.1: plans", "examples_m_0.1"),
    ):
        assert f"![{caption}](figures/{name}.png)" in text
    assert saved["panels_m.png"][0].legends[0].get_title().get_text() == "m on d test"
    figure, title, words = saved["success.png"]
    assert title == "Success on d test: plans" and words.endswith("; 4 images.") and "p = 2" in words.replace("^", "")
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [0, 0.1, 0.3] and line.get_ydata().tolist() == [0, 25, 75]
    figure, title, _ = saved["robust_accuracy.png"]
    assert title == "Robust accuracy on d test" and figure.axes[0].get_xlim() == pytest.approx((0, 0.309))
    figure, title, words = saved["examples_m_0.1.png"]
    assert title == "m at ε = 0.1: plans" and "0.1" in words
    assert figure.axes[0].get_title() == "zero → zero"


def test_bisected_radii_and_certificates_add_figures_and_sections(tmp_path, saved, model):
    certified = Certified(np.array([0.02, 0.1, 0.0, 0.3]), 1.0, "ibp", 1.0)
    stored, text = written(tmp_path, [model(bisected=True, certified=certified)])
    assert {"minimal_radius.png", "bracket.png"} <= set(saved)
    assert saved["minimal_radius.png"][1] == "Minimal radii on d test: the least cost that fooled"
    figure, title, _ = saved["bracket.png"]
    assert title == "Certified and not fooled on d test" and figure.axes[0].get_xlim() == (0, 0.3)
    assert "Minimal radius over all attacks and radii above: median 0.2; 1 of 4 images never fooled." in text
    assert "## Bracket" in text and "Method of certification: m: ibp." in text and "50.0 to 75.0" in text
    assert "fooled within their" not in text
    assert stored["models"]["m"]["minimal_radius_median"] == 0.2
    assert stored["models"]["m"]["certified"] == certified.to_json()
    wrong = certified._replace(radius=np.array([0.06, 0.3, 0.0, 0.3]))
    _, text = written(tmp_path, [model(certified=wrong)])
    assert "**Contradiction: images fooled within their certified radius (m: 2)." in text


def test_one_classifier_without_bisection_leaves_the_histogram_out(tmp_path, saved, model):
    stored, text = written(tmp_path, [model("m", bisected=True), model("n")])
    assert "minimal_radius.png" not in saved and text.count("Minimal radius over all") == 1
    assert stored["models"]["n"]["minimal_radius_median"] is None
    assert {"panels_m.png", "panels_n.png", "examples_n_0.3.png"} <= set(saved) and "bracket.png" not in saved
    assert "## Bracket" not in text and "certified" not in stored["models"]["n"]


def test_the_worst_case_alone_has_no_panels(tmp_path, saved, model):
    made = model()
    made.records = [report.dataclasses.replace(one, attack=WORST_CASE) for one in made.records]
    _, text = written(tmp_path, [made], skip_fooled=True)
    assert "panels_m.png" not in saved and saved["success.png"][1] == "Success on d test: worst case over attacks"
    assert "Attacked by a, then b, in order of the radii" in text


def test_the_document_holds_everything(tmp_path, undrawn, model):
    stored, text = written(tmp_path, [model()])
    assert stored["schema"].startswith("wasser_tf.evaluation_report/")
    assert stored["images"] == "d test" and stored["num_images"] == 4
    assert stored["images_digest"] == array_digest(IMAGES.images, IMAGES.labels)
    assert [(one["attack"], one["epsilon"], one["seconds"]) for one in stored["records"]] == [
        ("plans", 0.1, 2.0), ("plans", 0.3, 2.0),
    ]  # fmt: skip
    assert stored["models"]["m"]["path"] == "m.keras" and stored["models"]["m"]["fingerprint"] == "f" * 64
    assert list(map(float, stored["models"]["m"]["minimal_radius"])) == [0.05, 0.2, 0.25, np.inf]
    assert "Attacked by" not in text and "# Evaluation on d test" in text and "## m\n" in text
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3


def check(name, passed, masking):
    return Check(name=name, passed=passed, measured="x", needed="y", masking=masking)


@pytest.mark.parametrize(
    ("checks", "words", "without"),
    [
        ([("a", True, True), ("b", None, True)], ["No sign of gradient masking."], ["**"]),
        ([("a", False, True)], ["Gradient masking is likely (a): do not trust"], ["No sign", "strongest"]),
        (
            [("a", False, False)],
            ["No sign of gradient masking. **The attack is not at its strongest (a)"],
            ["masking is likely"],
        ),
    ],
)
def test_verdicts_of_the_sanity_checks(tmp_path, undrawn, model, checks, words, without):
    stored, text = written(tmp_path, [model(checks=[check(*one) for one in checks])])
    section = text.partition("### Sanity checks")[2].partition("## All scores")[0]
    states = {True: "pass", False: "**FAIL**", None: "–"}
    for name, passed, _ in checks:
        row = next(line for line in section.splitlines() if line.startswith(f"| {name} "))
        assert [cell.strip() for cell in row.split("|")[1:-1]] == [name, states[passed], "x", "y"]
    prose = section.strip().splitlines()[-1]
    assert all(part in prose for part in words) and not any(part in prose for part in without)
    assert stored["models"]["m"]["gradient_masking"] == [one[0] for one in checks if one[1] is False and one[2]]
    assert len(stored["models"]["m"]["sanity"]) == len(checks)


@pytest.mark.parametrize(
    ("within", "below", "verdict"), [(True, True, "yes"), (True, False, "**NO**"), (False, True, "**NO**")]
)
def test_verdicts_of_the_exact_verification(tmp_path, undrawn, model, within, below, verdict):
    check = ExactCheck(num_images=4, max_ratio=0.75, max_excess=1e-7, within_radius=within, below_cost=below)
    stored, text = written(tmp_path, [model(exact={("plans", 0.1): check})])
    row = next(line for line in text.partition("### Exact transport")[2].splitlines() if line.startswith("| plans"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["plans", "0.1", "4", "0.750000", "1.0e-07", verdict]
    (one,) = stored["models"]["m"]["exact"]
    assert (one["attack"], one["epsilon"], one["num_images"], one["within_radius"]) == ("plans", 0.1, 4, within)


def test_pictures_are_the_first_eight_with_both_predictions(make_examples):
    made = ModelReport(name="m", path="p")
    examples = make_examples([True] * 10, list(range(10)), wrong=[1] * 10)
    made.keep_pictures(0.2, examples, lambda images, training: np.eye(3)[[2] * len(images)])
    pictures = made.pictures[0.2]
    assert all(len(part) == 8 for part in pictures)
    np.testing.assert_array_equal(pictures.adversarial, examples.result.adversarial[:8])
    np.testing.assert_array_equal(pictures.images, examples.images[:8])
    assert (pictures.clean_predictions == 1).all() and (pictures.adversarial_predictions == 2).all()
    assert (pictures.labels == 0).all()
