"""The report of a certification: files, reading them, and certificates that do not match."""

import json

import numpy as np
import pytest

from wasser_tf import ThreatModel
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.fingerprint import array_digest
from wasser_tf.reporting import bracket
from wasser_tf.reporting.bracket import Bracket
from wasser_tf.reporting.certification import Certified, read_certification
from wasser_tf.reporting.certification_report import write_certification

BALL = ThreatModel(epsilon=0.5, kernel_size=3, p=2.0)
PIXELS = np.random.default_rng(0).random((3, 2, 2, 1), np.float32)
IMAGES = Selection("d test", np.array([4, 8, 6]), PIXELS, np.int32([2, 0, 1]), None)


def values(fingerprint, **changes):
    return {
        "fingerprint": fingerprint,
        "path": "m.keras",
        "method": "ibp",
        "confidence": 1.0,
        "settings": {},
        "seconds": 12.6,
        "radius": [0.1, 0.0, 0.3],
        "predicted": [2, 1, 1],
        "correct": [True, False, True],
        **changes,
    }


@pytest.fixture
def drawn(monkeypatch):
    calls = []
    monkeypatch.setattr(bracket, "save_bracket", lambda *given, **options: calls.append((given, options)))
    monkeypatch.setattr(bracket, "save_radii_by_image", lambda *given, **options: calls.append((given, options)))
    return calls


@pytest.fixture
def written(tmp_path, drawn):
    def write(fooled=None, **changes):
        found = {"a": values("f", **changes), "b": values("g", method="votes", confidence=0.95)}
        brackets = {
            "a": Bracket(np.array([0.1, 0.0, 0.3]), fooled),
            "b": Bracket(np.array([0.1, 0.0, 0.3])),
        }
        config = {"radii": [0.3, 0.1], "threat_model": BALL.get_config()}
        write_certification(tmp_path, config, BALL, IMAGES, found, brackets)
        return tmp_path, brackets

    return write


def test_tables_list_shares_by_radius_and_radii_by_image(written):
    folder, _ = written(np.array([0.2, 0.0, np.inf]))
    assert (folder / "results.csv").read_text().splitlines() == [
        "model,method,confidence,epsilon,certified,not_fooled",
        "a,ibp,1,0.1,0.666667,0.666667",
        "a,ibp,1,0.3,0.333333,0.333333",
        "b,votes,0.95,0.1,0.666667,",
        "b,votes,0.95,0.3,0.333333,",
    ]
    assert (folder / "radii.csv").read_text().splitlines() == [
        "model,index,label,predicted,certified_radius,minimal_radius",
        "a,4,2,2,0.1,0.2",
        "a,8,0,1,0,0",
        "a,6,1,1,0.3,inf",
        "b,4,2,2,0.1,",
        "b,8,0,1,0,",
        "b,6,1,1,0.3,",
    ]


def test_the_text_names_methods_pictures_and_contradictions(written, drawn):
    folder, brackets = written(np.array([0.2, 0.0, np.inf]))
    text = (folder / "report.md").read_text()
    assert text.startswith("# Certificates on d test\n") and "3 images" in text
    assert "a: ibp, deterministic, natural accuracy 66.67 %, 13 s" in text
    assert "b: votes, each certificate with a probability of 0.95, natural" in text
    assert "![Bracket](figures/bracket.png)" in text
    assert "![a: radii of each image](figures/radii_a.png)" in text
    # Radii ascend in the table, whatever their order in the configuration.
    assert text.index("ε = 0.1") < text.index("ε = 0.3") and "Something is wrong" not in text
    (((path, given), options), ((one, radii), more), *_) = drawn
    assert path == folder / "figures" / "bracket.png" and given is brackets
    assert options["max_radius"] == pytest.approx(0.33) and options["title"] == "Certified and not fooled on d test"
    assert options["threat_model"] == more["threat_model"] == BALL
    assert one == folder / "figures" / "radii_a.png" and radii is brackets["a"] and more["title"] == "a on d test"
    folder, _ = written(np.array([0.05, 0.0, 0.1]))
    assert "**Contradiction: images fooled within their certified radius (a: 2)." in (folder / "report.md").read_text()


def test_certificates_are_read_back(written):
    folder, _ = written()
    stored = json.loads((folder / "report.json").read_text())
    assert stored["images_digest"] == array_digest(PIXELS, IMAGES.labels) and set(stored["models"]) == {"a", "b"}
    found = read_certification(folder)
    assert (found.folder, found.images, found.threat_model) == (str(folder), "d test", BALL.with_epsilon(0.0))
    assert set(found.classifiers) == {"f", "g"}
    one = found.classifiers["g"]
    np.testing.assert_array_equal(one.radius, [0.1, 0.0, 0.3])
    assert one.natural_accuracy == pytest.approx(2 / 3) and (one.method, one.confidence) == ("votes", 0.95)
    found.check(IMAGES, BALL)
    found.check(IMAGES._replace(name="other", index=np.arange(3)), BALL.with_epsilon(0.1))


@pytest.mark.parametrize(
    "images",
    [
        IMAGES._replace(labels=np.int32([2, 0, 0])),
        IMAGES._replace(images=PIXELS[::-1]),
        IMAGES._replace(images=PIXELS[:2], labels=IMAGES.labels[:2]),
    ],
)
def test_other_images_do_not_fit(written, images):
    found = read_certification(written()[0])
    with pytest.raises(ValueError, match=f"certifies other images than these {len(images.labels)} of d test"):
        found.check(images, BALL)


@pytest.mark.parametrize("change", [{"p": 1.0}, {"kernel_size": 5}, {"normalize_mass": False}, {"capacity": None}])
def test_another_ball_does_not_fit(written, change):
    found = read_certification(written()[0])
    for check in (found.check_ball, lambda ball: found.check(IMAGES, ball)):
        with pytest.raises(ValueError, match="certifies another ball"):
            check(ThreatModel(**{**BALL.get_config(), **change}))


def test_certificates_survive_json():
    one = Certified(np.array([0.1, np.inf, 0.0]), 0.5, "ibp", 1.0)
    again = Certified.from_json(one.to_json())
    np.testing.assert_array_equal(again.radius, one.radius)
    assert again[1:] == one[1:] and isinstance(one.to_json()["radius"], list)
    text = {**one.to_json(), "radius": ["0.1", "inf"]}
    np.testing.assert_array_equal(Certified.from_json(text).radius, [0.1, np.inf])


def test_a_folder_without_a_certification_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no certification, for report.json is missing: run bin/certify.py"):
        read_certification(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": "wasser_tf.attack_report/1"}')
    with pytest.raises(ValueError, match="certification_report"):
        read_certification(tmp_path)
