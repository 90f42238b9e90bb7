"""Outputs of experiments from given records; attacks and trainings are in tests/end_to_end/reproduce_test.py."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from wasser_tf import ThreatModel, certify, models
from wasser_tf.evaluation.metrics import Scores
from wasser_tf.evaluation.record import Record
from wasser_tf.paper import certified as certified_module
from wasser_tf.paper import drawings, experiments
from wasser_tf.paper.context import ExperimentContext, Reproduction
from wasser_tf.paper.presets import QUICK
from wasser_tf.paper.reproduce import reproduce
from wasser_tf.reporting import figures
from wasser_tf.reporting.report import ModelReport
from wasser_tf.runtime import storage


def _record(attack, epsilon, model):
    def scores(success):
        zeros = {field.name: 0.0 for field in dataclasses.fields(Scores)}
        shares = {"success_rate": success, "robust_accuracy": 1 - success, "cross_entropy": 3 * success}
        return Scores(**{**zeros, **shares, "precision_error_mean": 1e-5})

    return Record(
        model=model,
        dataset="digits test",
        attack=attack,
        epsilon=epsilon,
        threat_model=ThreatModel(epsilon=epsilon).get_config(),
        settings={} if attack == "worst case" else {"iterations": 7},
        seed=0,
        num_images=8,
        natural_accuracy=0.75,
        natural_cross_entropy=0.5,
        feasible=scores(epsilon),
        raw=scores(2 * epsilon),
        mean_radius=epsilon,
        mean_iterations=7.0,
        max_iterations=7,
        seconds=1.0,
    )


@pytest.fixture
def context(tmp_path, monkeypatch):
    models.build("linear", (8, 8, 1), 10, seed=0).save(tmp_path / "linear.keras")
    given = dict.fromkeys(("standard", "pgd", "wasser_train"), str(tmp_path / "linear.keras"))
    config = Reproduction(
        experiments=["fig4"],
        dataset="digits",
        output_dir=str(tmp_path / "out"),
        preset=QUICK["digits"],
        given=given,
        others={"other": given["pgd"]},
        attacks=("mirror_ascent", "ensemble"),
        # Its weights are random.
        allow_chance_accuracy=True,
    )
    made = ExperimentContext(config, lambda line: None)

    def evaluation(name, attack_names):
        labels = [*attack_names, "worst case"]
        return ModelReport(
            name=name,
            path="x",
            records=[_record(attack, epsilon, name) for epsilon in (0.1, 0.4) for attack in labels],
            minimal_radii=np.array([0.0, 0.2, np.inf]),
        )

    monkeypatch.setattr(made, "evaluation", evaluation)
    return made


def test_certified_has_both_sides_of_every_classifier_and_smoothing(context, monkeypatch):
    asked = []

    def certified_radii(name, method):
        asked.append((name, method))
        # The second image of "pgd" contradicts its smallest radius that fooled, 0.2.
        return np.array([0.0, 0.3 if name == "pgd" else 0.1, 0.5])

    monkeypatch.setattr(context, "certified_radii", certified_radii)
    monkeypatch.setattr(certified_module, "_packaged", lambda dataset: [f"{dataset}_packaged"])
    monkeypatch.setattr(certified_module, "fingerprint", lambda path: f"mark of {path}")
    made = certified_module.certified(context)
    names = ["standard", "pgd", "wasser_train", "other", "digits_packaged"]
    assert asked == [*((name, "ibp") for name in names), ("standard", "smoothing")]
    assert made.settings["classifiers"]["digits_packaged"] == "mark of pretrained:digits_packaged"
    assert made.settings["methods"]["standard, smoothed"] == "smoothing"
    rows = {(row["classifier"], row["epsilon"]): row for row in made.rows}
    first, last = (context.config.preset.radii[place] for place in (0, -1))
    # At 0 the share not fooled is the natural accuracy.
    assert rows["other", 0.0]["not_fooled"] == pytest.approx(2 / 3)
    assert rows["other", first]["certified"] == pytest.approx(sum(r >= first for r in (0.1, 0.5)) / 3)
    assert rows["other", last]["not_fooled"] == pytest.approx(sum(r > last for r in (0.2, np.inf)) / 3)
    assert rows["standard, smoothed", first]["not_fooled"] is None
    assert "Contradiction" in made.table and "pgd: 1" in made.table and made.num_images == 3
    assert (context.folder / "certified.png").stat().st_size > 10_000


def test_certified_shows_a_packaged_classifier_with_a_role_once(context, monkeypatch):
    asked = []
    config = dataclasses.replace(context.config, others={"mine": "pretrained:digits_one"})
    monkeypatch.setattr(context, "config", config)
    monkeypatch.setattr(context, "certified_radii", lambda name, method: asked.append(name) or np.full(3, 0.1))
    monkeypatch.setattr(certified_module, "_packaged", lambda dataset: ["digits_one", "digits_two"])
    monkeypatch.setattr(certified_module, "fingerprint", lambda path: path)
    made = certified_module.certified(context)
    assert asked == ["standard", "pgd", "wasser_train", "mine", "digits_two", "standard"]
    assert made.settings["classifiers"]["mine"] == "pretrained:digits_one"


def test_certified_radii_are_those_of_the_prover(context):
    ball = context.attack("wasser_attack").threat_model.with_epsilon(max(context.config.preset.radii))
    images = context.source(context.config.preset.num_examples).load()
    radii = context.config.preset.radii
    wanted = certify(context.classifier("pgd"), images.images, images.labels, ball, method="ibp", radii=radii)
    np.testing.assert_array_equal(context.certified_radii("pgd", "ibp"), wanted.radius)
    assert wanted.radius.max() > 0


def test_figures_show_raw_and_feasible_scores_without_the_worst_case(context, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        drawings, "save_raw_and_feasible", lambda path, records, title: drawn.update({path.name: list(records)})
    )
    made = experiments.fig4(context)
    assert [row["attack"] for row in made.rows] == [
        attack for attack in ("wasser_attack", "projected_sinkhorn", "mirror_ascent") for _ in range(2)
    ]
    assert made.rows[1]["raw_success"] == 0.8 and made.rows[1]["success"] == 0.4
    assert "success, raw:" in made.table and "80.0%" in made.table and made.num_images == 8
    assert "p = 1" in made.threat_model and len(made.settings["classifiers"]["standard"]) == 64
    assert made.settings["attacks"]["wasser_attack"] == {"iterations": 7}
    both = experiments.fig5(context)
    assert {(row["classifier"], row["attack"]) for row in both.rows} == {
        (name, attack) for name in ("pgd", "wasser_train") for attack in ("wasser_attack", "projected_sinkhorn")
    }
    assert drawn["fig5.png"][0] == "wasser_attack on pgd"


def test_the_beyond_experiment_contains_every_classifier_and_the_worst_case(context, monkeypatch):
    radii = {}
    monkeypatch.setattr(figures, "save_accuracy_curves", lambda path, given, **options: radii.update(given))
    made = experiments.beyond(context)
    assert list(radii) == ["standard", "pgd", "wasser_train", "other"]
    assert {row["attack"] for row in made.rows} >= {"ensemble", "worst case", "mirror_ascent"}
    assert "| other" in made.table and "60.00%" in made.table


def test_roles_that_are_left_out_are_missing(context, monkeypatch):
    monkeypatch.setattr(figures, "save_accuracy_curves", lambda *given, **options: None)
    monkeypatch.setattr(drawings, "save_raw_and_feasible", lambda *given, **options: None)
    given = {role: path for role, path in context.config.given.items() if role != "pgd"}
    context.config = dataclasses.replace(context.config, given=given, leave_out=["pgd"])
    context.trainer = None  # Nothing is trained.
    monkeypatch.setattr(context, "path", lambda name: {**given, **context.config.others}[name])
    kept = ["standard", "wasser_train", "other"]
    for made in (experiments.table1(context), experiments.beyond(context)):
        assert list(dict.fromkeys(row["classifier"] for row in made.rows)) == kept
    assert {row["classifier"] for row in experiments.fig5(context).rows} == {"wasser_train"}


def test_table1_is_of_the_whole_test_set(context):
    made = experiments.table1(context)
    assert made.num_images == 400 and [row["classifier"] for row in made.rows][-1] == "other"
    classifier = models.load_classifier(context.path("standard"))
    right = np.argmax(classifier(context.images.images), axis=1) == context.images.labels
    assert made.rows[0]["natural_accuracy"] == pytest.approx(right.mean())


def test_fig3_is_read_from_the_histories(context, monkeypatch, tmp_path):
    def omega_run(omega):
        folder = tmp_path / f"omega_{omega:g}"
        metadata = {"config": {"omega": omega}, "threat_model_in_words": "a ball"}
        storage.write_json(folder / "config.json", metadata)
        storage.write_text(
            folder / "history.csv", f"phase,epoch,val_accuracy\nwasser_train,1,0.5\nwasser_train,2,{omega}\n"
        )
        return folder

    monkeypatch.setattr(context, "omega_run", omega_run)
    made = experiments.fig3(context)
    assert made.rows[1] == {"omega": 0.1, "epoch": 2, "natural_accuracy": 0.1} and len(made.rows) == 6
    assert (
        "| ω = 1  " in made.table and "100.00 %" in made.table and (made.num_images, made.split) == (200, "validation")
    )
    assert made.threat_model == "Trained in: a ball" and made.settings == {"training": {"omega": 0.1}}
    assert (context.folder / "fig3.png").stat().st_size > 5_000


def test_outputs_are_written_and_published(context, monkeypatch, tmp_path):
    monkeypatch.setattr(ExperimentContext, "evaluation", lambda self, *given: context.evaluation(*given))
    monkeypatch.setattr("wasser_tf.runs.train.prepare_process", lambda config: None)
    config = dataclasses.replace(context.config, publish_dir=str(tmp_path / "docs"))
    written = reproduce(config)
    assert [path.name for path in written] == ["fig4.md", "digits.md"]
    values = json.loads((tmp_path / "docs" / "digits" / "fig4.json").read_text())
    assert values["dataset"] == "digits test" and values["command"].startswith("python ") and "commit" in values
    assert (tmp_path / "docs" / "digits" / "fig4.png").stat().st_size > 20_000
    with open(tmp_path / "docs" / "digits" / "fig4.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6
    with pytest.raises(ValueError, match="There is no experiment fig9; there are table1, fig1"):
        reproduce(dataclasses.replace(context.config, experiments=["fig9"]))


def test_invalid_settings_are_refused(context):
    with pytest.raises(ValueError, match="given must be classifiers of standard, pgd, wasser_train, got mine"):
        dataclasses.replace(context.config, given={"mine": "x"})
    with pytest.raises(ValueError, match="others must not contain the role pgd"):
        dataclasses.replace(context.config, others={"pgd": "x"})
    with pytest.raises(ValueError, match="leave_out must be some of pgd, wasser_train, got .'standard'."):
        dataclasses.replace(context.config, leave_out=["standard"])
    with pytest.raises(ValueError, match="leave_out must leave one of pgd, wasser_train for fig5"):
        dataclasses.replace(context.config, experiments=["fig5"], leave_out=["pgd", "wasser_train"])
