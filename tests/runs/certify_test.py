"""The run of bin/certify.py: report, resumption, bracket and inputs that do not match."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest

from wasser_tf.certification.prover import Prover, certify
from wasser_tf.certification.smoothed import Smoothed
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.fingerprint import array_digest, fingerprint
from wasser_tf.models import ModelOptions, build
from wasser_tf.reporting.bracket import Bracket, bracket_table, save_bracket
from wasser_tf.reporting.certification import read_certification
from wasser_tf.runs.certifiers import SmoothingSettings
from wasser_tf.runs.certify import CertificationRun, run_certification
from wasser_tf.threat_model import ThreatModel


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "linear.keras"
    build("linear", (8, 8, 1), 10, seed=3).save(path)
    return CertificationRun(
        models={"linear": str(path)},
        source=ImageSource(num_examples=20),
        threat_model=ThreatModel(kernel_size=3),
        radii=(0.01, 0.1),
        output_dir=str(tmp_path / "out"),
        method="ibp",
        batch_size=8,
        # Its weights are random.
        allow_chance_accuracy=True,
    )


def evaluation_of(config, radii, num_examples=20):
    """Writes what bin/evaluate.py leaves, as far as it is read."""
    folder = pathlib.Path(config.output_dir).parent / "evaluation"
    folder.mkdir(exist_ok=True)
    attack = {"config": {"threat_model": config.threat_model.get_config()}}
    images = ImageSource(num_examples=num_examples).load()
    report = {
        "schema": "wasser_tf.evaluation_report/1",
        "config": {"attacks": {"mirror_ascent": attack}},
        "images_digest": array_digest(images.images, images.labels),
        "models": {
            "any": {"fingerprint": fingerprint(config.models["linear"]), "minimal_radius": list(map(str, radii))}
        },
    }
    (folder / "report.json").write_text(json.dumps(report))
    return str(folder)


def test_the_report_holds_the_certified_radii(config):
    found = run_certification(config)["linear"]
    report = json.loads(pathlib.Path(config.output_dir, "report.json").read_text())
    images = config.source.load()
    prover = Prover(build("linear", (8, 8, 1), 10, seed=3), config.threat_model.with_epsilon(0.1))
    wanted = prover.certify(*prover.check(images.images, images.labels), "ibp", radii=config.radii).radius
    np.testing.assert_array_equal(found.certified, wanted)
    np.testing.assert_array_equal(np.array(report["models"]["linear"]["radius"], np.float64), wanted)
    assert report["models"]["linear"]["method"] == "ibp"
    text = pathlib.Path(config.output_dir, "report.md").read_text()
    assert "Wasserstein ball" in text and "3×3" in text
    assert f"{100 * np.mean(wanted >= 0.01):.1f}" in text
    rows = pathlib.Path(config.output_dir, "results.csv").read_text().splitlines()
    assert rows[1] == f"linear,ibp,1,0.01,{np.mean(wanted >= 0.01):.6g},"
    rows = pathlib.Path(config.output_dir, "radii.csv").read_text().splitlines()
    assert len(rows) == 21
    assert rows[1] == f"linear,0,{images.labels[0]},{report['models']['linear']['predicted'][0]},{wanted[0]:.6g},"
    assert {path.name for path in pathlib.Path(config.output_dir, "figures").iterdir()} == {
        "bracket.png",
        "radii_linear.png",
    }
    stored = read_certification(config.output_dir)
    stored.check(images, config.threat_model)
    certified = stored.classifiers[fingerprint(config.models["linear"])]
    np.testing.assert_array_equal(certified.radius, wanted)
    assert (certified.method, certified.confidence) == ("ibp", 1.0)


def test_stored_certificates_are_not_computed_again(config, monkeypatch):
    first = run_certification(config)["linear"]
    cells = sorted(pathlib.Path(config.output_dir, "cells").rglob("*.json"))
    assert len(cells) == 4
    cells[1].unlink()
    calls = []
    certify = Prover.certify
    monkeypatch.setattr(
        Prover,
        "certify",
        lambda self, *given, **options: calls.append(len(given[0])) or certify(self, *given, **options),
    )
    second = run_certification(config)["linear"]
    assert calls == [8]
    np.testing.assert_array_equal(first.certified, second.certified)
    with pytest.raises(ValueError, match="holds another run .its method differ"):
        run_certification(dataclasses.replace(config, method="crown"))


def test_the_bracket_has_both_shares_and_reports_contradictions(config):
    radii = [0.05] * 10 + [float("inf")] * 10
    given = dataclasses.replace(config, evaluation=evaluation_of(config, radii))
    found = run_certification(given)["linear"]
    assert found.not_fooled_share(0.04) == 1 and found.not_fooled_share(0.05) == 0.5
    text = pathlib.Path(config.output_dir, "report.md").read_text()
    assert f"{100 * found.certified_share(0.1):.1f} to 50.0" in text
    rows = pathlib.Path(config.output_dir, "radii.csv").read_text().splitlines()
    assert [row.rpartition(",")[2] for row in rows] == ["minimal_radius"] + ["0.05"] * 10 + ["inf"] * 10
    assert "Contradiction" not in text
    contradicted = dataclasses.replace(given, evaluation=evaluation_of(config, [1e-6] * 20))
    assert run_certification(contradicted)["linear"].contradictions() > 0
    assert "Contradiction" in pathlib.Path(config.output_dir, "report.md").read_text()


def test_an_evaluation_of_other_images_or_of_another_ball_is_refused(config):
    other = dataclasses.replace(config, evaluation=evaluation_of(config, [1.0] * 20, num_examples=19))
    with pytest.raises(ValueError, match="is of other images"):
        run_certification(other)
    right = evaluation_of(config, [1.0] * 20)
    with pytest.raises(ValueError, match="is of another ball"):
        run_certification(dataclasses.replace(config, evaluation=right, threat_model=ThreatModel(kernel_size=5)))
    pathlib.Path(right, "report.json").write_text('{"schema": "wasser_tf.attack_report/1"}')
    with pytest.raises(ValueError, match="must be a document of schema wasser_tf.evaluation_report"):
        run_certification(dataclasses.replace(config, evaluation=right))
    with pytest.raises(ValueError, match="holds no evaluation"):
        run_certification(dataclasses.replace(config, evaluation=config.output_dir))
    assert not pathlib.Path(config.output_dir).exists()


def test_a_certification_of_other_images_or_of_another_ball_is_refused(config):
    run_certification(config)
    images = config.source.load()
    stored = read_certification(config.output_dir)
    with pytest.raises(ValueError, match="certifies other images"):
        stored.check(ImageSource(num_examples=19).load(), config.threat_model)
    with pytest.raises(ValueError, match="certifies another ball"):
        stored.check(images, ThreatModel(kernel_size=3, p=2.0))
    with pytest.raises(ValueError, match="holds no certification"):
        read_certification(config.output_dir + "/cells")


@pytest.fixture
def smoothed(config, tmp_path):
    """The same run by smoothing, of few votes, for the linear classifier and for a Smoothed model around it."""
    path = tmp_path / "smoothed.keras"
    base = build("linear", (8, 8, 1), 10, seed=3)
    Smoothed(base, "uniform", scale=0.02, num_votes=64, num_samples=256, alpha=0.01, seed=7).save(path)
    settings = SmoothingSettings(scale=0.03, num_votes=64, num_samples=128)
    models = {**config.models, "smoothed": str(path)}
    return dataclasses.replace(config, models=models, method="smoothing", smoothing=settings)


def test_smoothing_certifies_any_classifier_and_records_its_settings(smoothed):
    found = run_certification(smoothed)
    stored = json.loads(pathlib.Path(smoothed.output_dir, "report.json").read_text())["models"]
    # What is not given is that of the Smoothed model, or the default.
    assert stored["smoothed"]["settings"] == {
        "method": "smoothing",
        "noise": "uniform",
        "scale": 0.03,
        "num_samples": 128,
        "num_votes": 64,
        "alpha": 0.01,
        "seed": 7,
    }
    assert stored["linear"]["method"] == "randomised smoothing (laplace 0.03, N = 128, alpha = 0.05)"
    assert (stored["linear"]["confidence"], stored["smoothed"]["confidence"]) == (0.95, 0.99)
    images = smoothed.source.load()
    model = Smoothed(
        build("linear", (8, 8, 1), 10, seed=3), "uniform", scale=0.03, num_votes=64, num_samples=128, alpha=0.01, seed=7
    )
    wanted = certify(model, images.images, images.labels, smoothed.threat_model)
    np.testing.assert_array_equal(found["smoothed"].certified, wanted.radius)
    text = pathlib.Path(smoothed.output_dir, "report.md").read_text()
    assert "N = 128, alpha = 0.05), each certificate with a probability of 0.95" in text
    for cell in pathlib.Path(smoothed.output_dir, "cells").rglob("0*.json"):
        key = json.loads(cell.read_text())["key"]
        assert key["num_samples"] == 128 and key["alpha"] in (0.05, 0.01)
    votes = pathlib.Path(smoothed.output_dir, "votes")
    before = {path: path.stat().st_mtime_ns for path in votes.iterdir()}
    assert len(before) == 40
    for cell in pathlib.Path(smoothed.output_dir, "cells").rglob("*.json"):
        cell.unlink()
    again = run_certification(smoothed)
    assert {path: path.stat().st_mtime_ns for path in votes.iterdir()} == before
    np.testing.assert_array_equal(again["linear"].certified, found["linear"].certified)


def test_a_smoothed_model_has_no_bounds_and_auto_takes_its_votes(smoothed):
    with pytest.raises(ValueError, match="is a Smoothed classifier, which has no bounds by ibp"):
        run_certification(dataclasses.replace(smoothed, method="ibp"))
    only = {"smoothed": smoothed.models["smoothed"]}
    run_certification(dataclasses.replace(smoothed, models=only, method="auto"))
    stored = json.loads(pathlib.Path(smoothed.output_dir, "report.json").read_text())["models"]["smoothed"]
    assert stored["method"] == "randomised smoothing (uniform 0.03, N = 128, alpha = 0.01)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "models and radii must name at least one"),
        ({"method": "milp"}, "method must be one of auto, ibp, crown, smoothing"),
        ({"resolution": 0.0}, "resolution must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"radii": (-0.1,)}, "epsilon must be"),
        ({"radii": (0.0,)}, "radii must hold one above 0"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)


def test_shares_equal_those_computed_by_hand(tmp_path):
    bracket = Bracket(np.array([0.0, 0.1, 0.2, np.inf]), np.array([0.0, 0.15, np.inf, np.inf]))
    assert [bracket.certified_share(radius) for radius in (0.0, 0.1, 0.15, 1.0)] == [0.75, 0.75, 0.5, 0.25]
    assert [bracket.not_fooled_share(radius) for radius in (0.0, 0.1, 0.15, 1.0)] == [0.75, 0.75, 0.5, 0.5]
    assert bracket.contradictions() == 0
    assert "50.0 to 50.0" in bracket_table({"a": bracket}, [0.15])
    assert "| a" in bracket_table({"a": bracket._replace(fooled=None)}, [0.15])
    save_bracket(tmp_path / "bracket.png", {"a": bracket, "b": bracket._replace(fooled=None)}, title="Both")
    assert (tmp_path / "bracket.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="brackets must hold at least one"):
        save_bracket(tmp_path / "none.png", {})


@pytest.mark.parametrize("change", [{"alpha": 1.5}, {"noise": "normal"}, {"scale": -1.0}, {"num_samples": 0}])
def test_bad_smoothing_settings_are_refused_in_a_sentence(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must"):
        SmoothingSettings(**change)


def test_a_classifier_at_chance_is_refused(config):
    with pytest.raises(ValueError, match="no better than chance"):
        run_certification(dataclasses.replace(config, allow_chance_accuracy=False))
    assert not pathlib.Path(config.output_dir).exists()


def test_a_classifier_of_another_range_has_the_same_radii(config, tmp_path):
    wanted = run_certification(config)["linear"].certified
    linear = keras.saving.load_model(config.models["linear"])
    image = keras.Input((8, 8, 1))
    keras.Model(image, linear(keras.layers.Rescaling(1 / 16)(image))).save(tmp_path / "sixteen.keras")
    other = dataclasses.replace(
        config, models={"sixteen": str(tmp_path / "sixteen.keras")}, output_dir=str(tmp_path / "other")
    )
    with pytest.raises(ValueError, match="--input_range"):
        run_certification(other)
    described = dataclasses.replace(other, options=ModelOptions(input_range=(0, 16)))
    np.testing.assert_allclose(run_certification(described)["sixteen"].certified, wanted, atol=1e-3)
    assert json.loads(pathlib.Path(other.output_dir, "config.json").read_text())["options"] == {"input_range": [0, 16]}
    # Certified without a range, it is another classifier.
    with pytest.raises(ValueError, match="holds another"):
        run_certification(dataclasses.replace(other, options=ModelOptions(input_range=(0, 32))))
