"""The run of bin/evaluate.py: arguments of the sweep, the checks and the report, with attacks of a given success."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import RadiusSchedule, ThreatModel, attacks, data, models
from wasser_tf.attacks import AttackResult
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation import examples
from wasser_tf.evaluation.check import Check
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.minimal_radius import MinimalRadii
from wasser_tf.evaluation.verification import ExactCheck
from wasser_tf.models import ModelOptions, model_name
from wasser_tf.reporting import report
from wasser_tf.runs import evaluate
from wasser_tf.runs.attack import AttackRun, run_attack
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import storage
from wasser_tf.runtime.output_folder import check_output_dir
from wasser_tf.runtime.run_files import Schema, write_document
from wasser_tf.transport.feasibility import Feasibility

# From which radius on each of the six images is fooled, by the attack of seed 0 and that of seed 1. The last is wrong.
_FROM = {0: [0.1, 0.2, 0.4, 9, 9, 9], 1: [0.4, 0.1, 9, 0.2, 9, 9]}


class Fake(attacks.RandomPlan):
    """Fools images by their position and its seed, at half its radius; remembers what it was given."""

    calls: ClassVar[list] = []

    def __call__(self, classifier, images, labels, *, radius, index, from_logits, batch_size):
        self.calls.append((self.seed, radius, index.tolist(), from_logits, batch_size))
        success = np.array([radius >= _FROM[self.seed][place] for place in index])
        fill = np.zeros(len(index), np.float32)
        feasibility = Feasibility(fill + radius / 2, fill + np.float32(radius), *[fill] * 6)
        loss = fill + np.float32(1 + self.seed + radius)
        return AttackResult(
            images, feasibility, success, loss, fill + np.float32(radius), np.full(len(index), 5), images, feasibility,
            success, loss, np.zeros(len(index), bool),
        )  # fmt: skip


def _classifier(images, training=False):
    """Knows digits 0 to 5 by their place in `digits`, but for the last."""
    return tf.one_hot(tf.cast(tf.round(images[:, 0, 0, 0] * 100), tf.int32) % 10, 10) * 9


@pytest.fixture
def world(monkeypatch):
    """Six images, a classifier that knows all of them but the last, and no figures."""
    Fake.calls = []
    values = np.float32([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    images = values[:, None, None, None] * np.ones([1, 8, 8, 1], np.float32)
    split = data.Split(images, np.array([1, 2, 3, 4, 5, 0], np.int32), np.arange(6, dtype=np.int32))
    loaded = data.Dataset("digits", split, split, split, 10, None)
    monkeypatch.setattr(data, "load", lambda *given, **options: loaded)
    monkeypatch.setattr(models, "load_classifier", lambda path: _classifier)
    monkeypatch.setattr(evaluate, "fingerprint", lambda path: f"print of {path}")
    monkeypatch.setattr("wasser_tf.runs.attack.fingerprint", lambda path: f"print of {path}")
    monkeypatch.setattr(report, "_draw", lambda *given: {"A picture": "figures/a.png"})
    monkeypatch.setitem(attacks.ATTACKS, "random_plan", Fake)


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        ball = ThreatModel(epsilon=0.5)
        fields = {
            "models": {"m": "m.keras"},
            "source": ImageSource(),
            "attacks": {"a": Fake(ball), "b": Fake(ball, seed=1)},
            "radii": (0.4, 0.1, 0.2),
            "output_dir": str(tmp_path / "run"),
            "sanity": False,
            "batch_size": 4,
        }
        return EvaluationRun(**{**fields, **changes})

    return make


def _json(path):
    return json.loads(path.read_text())


def test_robust_accuracies_of_each_attack_and_of_the_worst_case(world, config, tmp_path):
    told = []
    (found,) = run_evaluation(config(), log=told.append)
    robust = {(one.attack, one.epsilon): round(6 * one.feasible.robust_accuracy) for one in found.records}
    assert robust == {
        ("a", 0.1): 4, ("b", 0.1): 4, ("worst case", 0.1): 3,
        ("a", 0.2): 3, ("b", 0.2): 3, ("worst case", 0.2): 2,
        ("a", 0.4): 2, ("b", 0.4): 2, ("worst case", 0.4): 1,
    }  # fmt: skip
    assert list(robust) == [(attack, at) for at in (0.1, 0.2, 0.4) for attack in ("a", "b", "worst case")]
    # Half the radius is what each needs; the last is wrong without any.
    np.testing.assert_allclose(found.minimal_radii, [0.05, 0.05, 0.2, 0.1, np.inf, 0])
    worst = {one.epsilon: one for one in found.records if one.attack == "worst case"}
    assert worst[0.4].settings == {} and worst[0.4].mean_iterations == 30 and worst[0.1].mean_iterations == 10
    # Losses of those that are fooled: image 0 is by a at 0.1 (1.1), and by b at 0.4 (2.4), which is worse.
    assert worst[0.1].feasible.cross_entropy == pytest.approx((1.1 + 2.1 * 5) / 6, rel=1e-5)
    assert found.records[0].settings["iterations"] == 1 and found.records[0].dataset == "digits test"
    assert [line for line in told if line.startswith("[")][0].startswith("[1/12] m, a, ε = 0.1: 1 of 4 fooled; ")
    assert told[-1] == "Scoring m" and not found.exact and not found.checks and not found.bisected
    assert (
        found.fingerprint == "print of m.keras" and found.path == "m.keras" and list(found.pictures) == [0.1, 0.2, 0.4]
    )
    stored = _json(tmp_path / "run" / "report.json")
    assert stored["schema"] == "wasser_tf.evaluation_report/1"
    assert stored["models"]["m"]["minimal_radius"][4] == "inf" or not np.isfinite(
        stored["models"]["m"]["minimal_radius"][4]
    )
    assert [one["epsilon"] for one in stored["records"]] == [0.1] * 3 + [0.2] * 3 + [0.4] * 3
    seconds = [one.seconds for one in found.records]
    assert seconds[-1] == pytest.approx(sum(one.seconds for one in found.records if one.attack != "worst case"))


def test_each_chunk_is_attacked_once_and_filled_up(world, config):
    run_evaluation(config(attacks={"a": Fake(ThreatModel())}, radii=(0.2,)))
    assert Fake.calls == [(0, 0.2, [0, 1, 2, 3], True, 4), (0, 0.2, [4, 5, 5, 5], True, 4)]
    run_evaluation(config(attacks={"a": Fake(ThreatModel())}, radii=(0.2,)))
    assert len(Fake.calls) == 2


def test_only_images_that_are_not_yet_fooled_are_attacked(world, config, tmp_path):
    (found,) = run_evaluation(config(skip_fooled=True))
    assert [(seed, at, sorted(set(index))) for seed, at, index, *_ in Fake.calls] == [
        (0, 0.1, [0, 1, 2, 3]), (0, 0.1, [4, 5]),  # The first attack gets all.
        (1, 0.1, [1, 2, 3, 4]),  # 0 is fooled, 5 is wrong.
        (0, 0.2, [2, 3, 4]), (1, 0.2, [2, 3, 4]), (0, 0.4, [2, 4]), (1, 0.4, [4]),
    ]  # fmt: skip
    assert [(one.attack, round(6 * one.feasible.robust_accuracy)) for one in found.records] == [
        ("worst case", 3), ("worst case", 2), ("worst case", 1),
    ]  # fmt: skip
    np.testing.assert_allclose(found.minimal_radii, [0.05, 0.05, 0.2, 0.1, np.inf, 0])
    assert [one.num_images for one in found.records] == [6] * 3
    text = (tmp_path / "run" / "report.md").read_text()
    assert "Attacked by a, then b, in order of the radii, each only on images that none before had fooled." in text
    # Again, in another object: who stands is read from the files, and no one is attacked.
    calls = len(Fake.calls)
    (again,) = run_evaluation(config(skip_fooled=True))
    assert len(Fake.calls) == calls
    assert [one.feasible for one in again.records] == [one.feasible for one in found.records]


def test_one_attack_is_its_own_worst_case(world, config):
    (found,) = run_evaluation(config(attacks={"a": Fake(ThreatModel())}))
    assert [one.attack for one in found.records] == ["a"] * 3
    assert found.records[1].settings != {} and found.pictures.keys() == {0.1, 0.2, 0.4}
    (found,) = run_evaluation(config(attacks={"a": Fake(ThreatModel())}, skip_fooled=True), overwrite=True)
    assert [one.attack for one in found.records] == ["worst case"] * 3


@pytest.mark.parametrize("limit, verified", [(None, []), (2, [2]), (0, [6])])
def test_exact_verification(world, config, monkeypatch, limit, verified):
    asked = []

    def verify(given, threat_model, most, log):
        assert callable(log)
        asked.append((len(given.labels), threat_model, most, len(given.images)))
        return ExactCheck(num_images=9, max_ratio=0.5, max_excess=0, within_radius=len(asked) != 2, below_cost=True)

    monkeypatch.setattr(evaluate, "verify", verify)
    told = []
    (found,) = run_evaluation(config(), verify_exact=limit, log=told.append)
    if limit is None:
        assert not asked and not found.exact
        return
    # Each attack at each radius; the worst case consists of these.
    assert list(found.exact) == [(attack, at) for at in (0.1, 0.2, 0.4) for attack in ("a", "b")]
    assert all(one[1] == config().threat_model and one[2] == (limit or None) for one in asked)
    assert any(line.endswith("1 of 6 attacks and radii have examples outside") for line in told)
    found.exact.clear()
    (found,) = run_evaluation(config(skip_fooled=True), verify_exact=limit, overwrite=True)
    assert list(found.exact) == [("worst case", at) for at in (0.1, 0.2, 0.4)]


def test_examples_are_kept_only_as_far_as_drawn_or_verified(world, config, monkeypatch):
    kept = []
    results = evaluate.Sweep.results

    def spy(self, model, radius, *, rescored, images, exact):
        kept.append((rescored, images, exact))
        return results(self, model, radius, rescored=rescored, images=images, exact=exact)

    monkeypatch.setattr(evaluate.Sweep, "results", spy)
    monkeypatch.setattr(evaluate, "verify", lambda *given: ExactCheck(
        num_images=1, max_ratio=0, max_excess=0, within_radius=True, below_cost=True))  # fmt: skip
    run_evaluation(config(radii=(0.1,)))
    run_evaluation(config(radii=(0.1,)), verify_exact=3)
    run_evaluation(config(radii=(0.1,)), verify_exact=30, rescore_only=True)
    run_evaluation(config(radii=(0.1,)), verify_exact=0)
    assert kept == [(False, 8, False), (False, 8, True), (True, 30, True), (False, None, True)]


def test_bisection_gets_the_settings_of_the_config_and_lowers_radii(world, config, monkeypatch, tmp_path):
    asked = []

    def bisect(attack, classifier, images, labels, **options):
        asked.append((attack, classifier, images, labels, options))
        return MinimalRadii(np.array([0.01, 0.3, 0.2, 0.3, 0.35, 0.0]), images, None)

    monkeypatch.setattr(evaluate, "minimal_radii", bisect)
    made = config(minimal_radius=True, main_attack="b")
    told = []
    (found,) = run_evaluation(made, log=told.append)
    ((attack, classifier, images, labels, options),) = asked
    assert attack is made.attacks["b"] and classifier is _classifier and labels.tolist() == [1, 2, 3, 4, 5, 0]
    assert options.pop("index").tolist() == [0, 1, 2, 3, 4, 5]
    assert options.pop("log") == told.append and options == {"largest": 0.4, "batch_size": 4}
    assert "Minimal radii of m with b" in told and found.bisected and images.shape == (6, 8, 8, 1)
    np.testing.assert_allclose(found.minimal_radii, [0.01, 0.05, 0.2, 0.1, 0.35, 0])
    stored = _json(tmp_path / "run" / "report.json")["models"]["m"]
    assert stored["minimal_radius_median"] == pytest.approx(0.05)
    # Made once; of another attack, other radii or other images anew, without attacking not at all.
    run_evaluation(made)
    assert len(asked) == 1
    for changes in ({"main_attack": "a"}, {"radii": (0.2,)}, {"source": ImageSource(split="train")}):
        run_evaluation(dataclasses.replace(made, **changes), resume=True)
    assert len(asked) == 4
    (found,) = run_evaluation(config(minimal_radius=True, main_attack="a"), resume=True, rescore_only=True)
    assert len(asked) == 4 and not found.bisected and found.minimal_radii[4] == np.inf


def test_sanity_checks_get_the_settings_of_the_config(world, config, monkeypatch, tmp_path):
    asked = []

    class Checker:
        def __init__(self, *given, **options):
            asked.append((given, options))

        def run(self, log):
            return [Check(name="one", passed=False, measured="1", needed="2", masking=True)]

    monkeypatch.setattr(evaluate, "SanityChecker", Checker)
    monkeypatch.setattr(evaluate, "train_surrogate", lambda classifier, images: ("trained on", len(images)))
    made = config(sanity=True, sanity_examples=4, main_attack="b", models={"m": "m.keras"})
    told = []
    (found,) = run_evaluation(made, log=told.append)
    (given, options) = asked[0]
    assert given[0] is _classifier and given[1] is made.attacks["b"] and given[4] == (0.4, 0.1, 0.2)
    assert given[2].shape == (4, 8, 8, 1) and given[3].tolist() == [1, 2, 3, 4]
    assert options == {"surrogate": ("trained on", 6), "batch_size": 4}
    assert "Sanity checks of m with b on 4 images" in told
    assert [(check.name, check.passed) for check in found.checks] == [
        ("one", False), ("the worst case is per example", True),
    ]  # fmt: skip
    text = (tmp_path / "run" / "report.md").read_text()
    assert "**Gradient masking is likely (one): do not trust the robust accuracy.**" in text and "**FAIL**" in text
    assert _json(tmp_path / "run" / "report.json")["models"]["m"]["gradient_masking"] == ["one"]
    run_evaluation(made)
    assert len(asked) == 1
    # Another number of images, another attack, other radii: another check.
    for changes in ({"sanity_examples": 5}, {"main_attack": "a"}, {"radii": (0.1,)}, {"sanity_examples": 99}):
        run_evaluation(dataclasses.replace(made, **changes), resume=True)
    assert len(asked) == 5 and len(asked[4][0][3]) == 6
    # Of two classifiers each is the other's surrogate.
    other = lambda images, training=False: _classifier(images)  # noqa: E731
    monkeypatch.setattr(models, "load_classifier", lambda path: _classifier if path == "m.keras" else other)
    run_evaluation(config(sanity=True, models={"m": "m.keras", "o": "o.keras"}), resume=True)
    assert asked[5][1]["surrogate"] is other and asked[6][1]["surrogate"] is _classifier and asked[6][0][0] is other


def test_rescoring_uses_stored_examples_without_attacking(world, config, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="12 results are missing, the first cells/m/a/0.1/"):
        run_evaluation(config(), rescore_only=True)
    assert not (tmp_path / "run").exists()
    run_evaluation(config())
    calls = len(Fake.calls)
    # What was stored as fooled is clean, and the classifier knows it: only the last is still wrong.
    (found,) = run_evaluation(config(), rescore_only=True)
    assert len(Fake.calls) == calls and {one.feasible.robust_accuracy for one in found.records} == {5 / 6}
    with pytest.raises(ValueError, match="--rescore or --overwrite, not both"):
        run_evaluation(config(), rescore_only=True, overwrite=True)


def test_an_evaluation_writes_the_expected_files(world, config, tmp_path):
    folder = tmp_path / "run"
    run_evaluation(config())
    for changes, names in (({"radii": (0.1,)}, "radii"), ({"sanity": True, "batch_size": 3}, "sanity, batch_size")):
        with pytest.raises(ValueError, match=rf"holds another evaluation \(its {names} differ\)"):
            run_evaluation(config(**changes))
    (folder / "cells" / "left.txt").write_text("over")
    calls = len(Fake.calls)
    run_evaluation(config(), resume=True)
    assert len(Fake.calls) == calls
    run_evaluation(config(), overwrite=True)
    assert len(Fake.calls) == 2 * calls and not (folder / "cells" / "left.txt").exists()
    storage.write_text(folder / "config.json", "{")
    with pytest.raises(ValueError, match="holds another evaluation .its wasser_tf, models, source"):
        run_evaluation(config())
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="holds another run"):
        run_evaluation(config())


@pytest.mark.parametrize("name", ["report.json", "report.md", "results.csv", "history.csv"])
def test_any_file_of_another_run_is_refused(world, config, tmp_path, name):
    storage.write_text(tmp_path / "run" / name, "")
    with pytest.raises(ValueError, match=f"holds another run .{name}."):
        run_evaluation(config())
    if name != "history.csv":
        run_evaluation(config(), overwrite=True)


def test_a_config_is_stored_and_read_back(world, config, tmp_path):
    source = ImageSource(dataset="mnist", data_dir="d", split="train", num_examples=5, original_index="o")
    made = config(
        source=source, minimal_radius=True, sanity=True, main_attack="b", sanity_examples=7, skip_fooled=True,
        models={"m": "m.keras", "n": "n.keras"}, options=ModelOptions(input_range=(0, 255), output=1, signature="s"),
    )  # fmt: skip
    values = storage.through_json(made.to_json())
    assert values.keys() - {"wasser_tf"} == (
        {field.name for field in dataclasses.fields(made)} - {"output_dir", "stored_examples"}
    )
    # Nothing is stored about a classifier where nothing is given, as in earlier files.
    assert "options" not in config().to_json()
    assert values["wasser_tf"] == wasser_tf.__version__
    write_document(tmp_path / "run" / "config.json", Schema.EVALUATION_CONFIG, values)
    read = EvaluationRun.load(str(tmp_path / "run"))
    assert read.to_json() == made.to_json() and read.radii == made.radii and read.output_dir == made.output_dir
    assert [type(attack) for attack in read.attacks.values()] == [Fake, Fake] and read.source == source


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"models": []}, "models must be a dict, got"),
        ({"models": {}}, "models must name at least one"),
        ({"attacks": {}}, "attacks must name at least one"),
        ({"attacks": ["a"]}, "attacks must be a dict"),
        ({"attacks": {"a": "mirror_ascent"}}, "The attack 'a' must be a wasser_tf.attacks.Attack"),
        ({"radii": 0.1}, "radii must be a list, got 0.1"),
        ({"radii": (-0.1,)}, "epsilon must be"),
        ({"sanity_examples": 0}, "sanity_examples must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"attacks": {"worst case": Fake(ThreatModel())}}, "'worst case' is the name of the row over all attacks"),
        ({"attacks": {"l": attacks.make("linf_pgd", ThreatModel())}}, "is not a Wasserstein attack"),
        ({"attacks": {"a": Fake(ThreatModel()), "b": Fake(ThreatModel(p=2))}}, "must have the same threat model"),
        ({"attacks": {"a": Fake(ThreatModel(), schedule=RadiusSchedule())}}, "leave out the adaptive radius"),
        ({"main_attack": "c"}, "main_attack must be one of a, b, got 'c'"),
    ],
)
def test_configs_that_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_the_main_attack_is_mirror_ascent_or_the_first(config):
    ball = ThreatModel()
    assert config().main_attack == "a"
    given = {"a": Fake(ball), "m": attacks.make("mirror_ascent", ball), "n": attacks.make("mirror_ascent", ball)}
    assert config(attacks=given).main_attack == "m"
    # Radii of attacks do not count, those of the evaluation do.
    assert config(attacks={"a": Fake(ball), "b": Fake(ball.with_epsilon(9))}).threat_model == ball


def test_one_attack_run(world, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    source = ImageSource(dataset="digits", num_examples=None)
    given = {"model": "some/m.keras", "source": source, "output_dir": str(folder), "batch_size": 3}
    made = AttackRun(attack=Fake(ThreatModel(epsilon=0.2), seed=1), **given)
    record = run_attack(made)
    assert Fake.calls == [(1, 0.2, [0, 1, 2], True, 3), (1, 0.2, [3, 4, 5], True, 3)]
    assert (record.model, record.dataset, record.epsilon, record.num_images) == ("m", "digits test", 0.2, 6)
    assert record.feasible.robust_accuracy == 0.5 and record.natural_accuracy == 5 / 6
    assert "[2/2] m, random_plan, ε = 0.2: 2 of 3 fooled" in capsys.readouterr().out
    stored = _json(folder / "report.json")
    assert stored.pop("schema") == "wasser_tf.attack_report/1"
    metadata = {
        "wasser_tf": wasser_tf.__version__, "model_path": "some/m.keras", "source": source.to_json(),
        "threat_model_in_words": str(ThreatModel(epsilon=0.2)),
    }  # fmt: skip
    assert stored == storage.through_json({**metadata, **record.to_json()})
    assert {path.name for path in folder.iterdir()} == {"adversarial.npz", "report.json"}
    assert examples.read_examples(folder / "adversarial.npz")[0].index.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="holds another run .adversarial.npz, report.json."):
        run_attack(made)
    run_attack(dataclasses.replace(made, overwrite=True, verbose=False, batch_size=128))
    # A power of two that holds all of them.
    assert Fake.calls[2][2] == [0, 1, 2, 3, 4, 5] and Fake.calls[2][4] == 6 and not capsys.readouterr().out
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        dataclasses.replace(made, batch_size=0)
    with pytest.raises(ValueError, match="is not a Wasserstein attack"):
        dataclasses.replace(made, attack=attacks.make("linf_pgd", ThreatModel()))


def test_output_folders(tmp_path):
    check_output_dir(tmp_path / "new", ("a", "b"), False)
    (tmp_path / "c").touch()
    check_output_dir(tmp_path, ("a", "b"), False)
    (tmp_path / "b").touch()
    with pytest.raises(ValueError, match=r"holds another run \(b\)"):
        check_output_dir(tmp_path, ("a", "b"), False)
    check_output_dir(tmp_path, ("a", "b"), True)
    with pytest.raises(ValueError, match="must be a folder"):
        check_output_dir(tmp_path / "c", (), True)
    assert (model_name("a/b.keras"), model_name("pretrained:mnist_pgd")) == ("b", "mnist_pgd")
