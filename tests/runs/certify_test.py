"""bin/certify.py's run: the report, resumption, the bracket, and what does not fit together."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest

from wasser_tf.certification.prover import Prover
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.models import ModelOptions, build
from wasser_tf.reporting.bracket import Bracket, bracket_table, digest_of, read_certified, save_bracket
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


def evaluation_of(config, radii, **changes):
    """Writes what bin/evaluate.py leaves, as far as it is read."""
    folder = pathlib.Path(config.output_dir).parent / "evaluation"
    folder.mkdir(exist_ok=True)
    attack = {"config": {"threat_model": config.threat_model.get_config()}}
    report = {
        "config": {"source": {**dataclasses.asdict(config.source), **changes}, "attacks": {"mirror_ascent": attack}},
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
    wanted = prover.certify(*prover.check(images.images, images.labels), "ibp").radius
    np.testing.assert_array_equal(found.certified, wanted)
    np.testing.assert_array_equal(np.array(report["models"]["linear"]["radius"], np.float64), wanted)
    assert report["models"]["linear"]["method"] == "ibp"
    text = pathlib.Path(config.output_dir, "report.md").read_text()
    assert "Wasserstein ball" in text and "3×3" in text
    assert f"{100 * np.mean(wanted >= 0.01):.1f}" in text
    rows = pathlib.Path(config.output_dir, "results.csv").read_text().splitlines()
    assert rows[1] == f"linear,ibp,0.01,{np.mean(wanted >= 0.01):.6g},"
    assert {path.name for path in pathlib.Path(config.output_dir, "figures").iterdir()} == {
        "bracket.png",
        "radii_linear.png",
    }
    by_fingerprint = read_certified(config.output_dir, images, config.threat_model)
    np.testing.assert_array_equal(by_fingerprint[fingerprint(config.models["linear"])], wanted)


def test_what_was_certified_is_not_certified_again(config, monkeypatch):
    first = run_certification(config)["linear"]
    cells = sorted(pathlib.Path(config.output_dir, "cells").rglob("*.json"))
    assert len(cells) == 3
    cells[1].unlink()
    calls = []
    certify = Prover.certify
    monkeypatch.setattr(Prover, "certify", lambda self, *given: calls.append(len(given[0])) or certify(self, *given))
    second = run_certification(config)["linear"]
    assert calls == [8]
    np.testing.assert_array_equal(first.certified, second.certified)
    with pytest.raises(ValueError, match="holds another run .its method differ"):
        run_certification(dataclasses.replace(config, method="crown"))


def test_the_bracket_has_both_sides_and_names_contradictions(config):
    radii = [0.05] * 10 + [float("inf")] * 10
    given = dataclasses.replace(config, evaluation=evaluation_of(config, radii))
    found = run_certification(given)["linear"]
    assert found.not_fooled_share(0.04) == 1 and found.not_fooled_share(0.05) == 0.5
    text = pathlib.Path(config.output_dir, "report.md").read_text()
    assert f"{100 * found.certified_share(0.1):.1f} to 50.0" in text
    assert "Something is wrong" not in text
    contradicted = dataclasses.replace(given, evaluation=evaluation_of(config, [1e-6] * 20))
    assert run_certification(contradicted)["linear"].contradictions() > 0
    assert "Something is wrong" in pathlib.Path(config.output_dir, "report.md").read_text()


def test_an_evaluation_of_other_images_or_of_another_ball_is_refused(config):
    other = dataclasses.replace(config, evaluation=evaluation_of(config, [1.0] * 20, num_examples=19))
    with pytest.raises(ValueError, match="is of other images"):
        run_certification(other)
    right = evaluation_of(config, [1.0] * 20)
    with pytest.raises(ValueError, match="is of another ball"):
        run_certification(dataclasses.replace(config, evaluation=right, threat_model=ThreatModel(kernel_size=5)))
    with pytest.raises(ValueError, match="holds no evaluation"):
        run_certification(dataclasses.replace(config, evaluation=config.output_dir))
    assert not pathlib.Path(config.output_dir).exists()


def test_a_certification_of_other_images_or_of_another_ball_is_refused(config):
    run_certification(config)
    images = config.source.load()
    with pytest.raises(ValueError, match="is of other images"):
        read_certified(config.output_dir, ImageSource(num_examples=19).load(), config.threat_model)
    with pytest.raises(ValueError, match="is of another ball"):
        read_certified(config.output_dir, images, ThreatModel(kernel_size=3, p=2.0))
    with pytest.raises(ValueError, match="holds no certification"):
        read_certified(config.output_dir + "/cells", images, config.threat_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "models and radii must name at least one"),
        ({"method": "smoothing"}, "method must be auto, ibp or crown"),
        ({"resolution": 0.0}, "resolution must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"radii": (-0.1,)}, "epsilon must be"),
        ({"radii": (0.0,)}, "radii must hold one above 0"),
    ],
)
def test_bad_settings_get_a_sentence(config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)


def test_shares_by_hand(tmp_path):
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
    assert digest_of(np.zeros(2)) != digest_of(np.zeros((2, 1)))


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
