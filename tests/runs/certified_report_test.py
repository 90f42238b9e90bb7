"""The certified part of the report of a training run, from given proofs and attacks."""

import types

import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel
from wasser_tf.data import Split
from wasser_tf.evaluation.comparison import Comparison
from wasser_tf.reporting.bracket import Bracket, bracket_shares
from wasser_tf.runs import certified_report
from wasser_tf.training.config import TrainConfig

BALL = ThreatModel(epsilon=9.0, kernel_size=3)


def evaluation(success):
    return types.SimpleNamespace(result=types.SimpleNamespace(success=np.array(success)))


def test_the_smallest_radius_that_fooled_counts_and_wrong_answers_are_fooled_at_0(monkeypatch):
    split = Split(np.full((4, 2, 2, 1), 0.5, np.float32), np.int32([0, 1, 2, 3]), np.arange(4, dtype=np.int32))
    made = []

    class Prover:
        def __init__(self, *given):
            made.append(given)

        def check(self, images, labels):
            assert images is split.images and labels is split.labels
            return "images", labels

        def certify(self, images, labels, method):
            assert (images, method) == ("images", "ibp")
            return types.SimpleNamespace(radius=np.array([0.05, 0.2, 0.0, 0.0]), correct=np.array([1, 1, 1, 0], bool))

    monkeypatch.setattr(certified_report, "Prover", Prover)
    evaluations = {
        "a": [evaluation([True, False, False, True]), evaluation([True, True, False, True])],
        "b": [evaluation([False] * 4), evaluation([False] * 4)],
    }
    lines = []
    compared = Comparison({"a": "one", "b": "two"}, split, (0.1, 0.3), evaluations)
    found = certified_report.brackets_of(compared, BALL, lines.append)
    assert made == [("one", BALL.with_epsilon(0.3)), ("two", BALL.with_epsilon(0.3))]
    assert lines == ["Certifying a", "Certifying b"]
    np.testing.assert_array_equal(found["a"].certified, [0.05, 0.2, 0.0, 0.0])
    np.testing.assert_array_equal(found["a"].fooled, [0.1, 0.3, np.inf, 0.0])
    np.testing.assert_array_equal(found["b"].fooled, [np.inf, np.inf, np.inf, 0.0])


def test_shares_by_classifier_and_radius():
    brackets = {"a": Bracket(np.array([0.1, 0.0]), np.array([0.2, 0.0])), "b": Bracket(np.array([0.3, 0.3]))}
    assert bracket_shares(brackets, (0.1, 0.2)) == {
        "a": [
            {"epsilon": 0.1, "certified": 0.5, "not_fooled": 0.5},
            {"epsilon": 0.2, "certified": 0.0, "not_fooled": 0.0},
        ],
        "b": [
            {"epsilon": 0.1, "certified": 1.0, "not_fooled": None},
            {"epsilon": 0.2, "certified": 1.0, "not_fooled": None},
        ],
    }


@pytest.mark.parametrize("epochs", [0, 3])
def test_the_introduction_names_the_settings_and_the_epoch(tmp_path, epochs):
    attack = MirrorAscent(ThreatModel(epsilon=0.1, kernel_size=3), iterations=2)
    config = TrainConfig(
        output_dir=str(tmp_path), attack=attack, certified=True, epochs=epochs, standard_epochs=0, certified_epochs=8,
        potentials=17, hidden_units=19, kappa=0.25, certified_epsilon=0.15,
    )  # fmt: skip
    text = certified_report.introduction(config, "BEFORE\n", 5)
    first = text.splitlines()[0]
    assert first == ("BEFORE" if epochs else "# provable on digits, by certified training")
    assert "17 transport potentials, two hidden layers of 19" in text and "epoch 5 of 8 is kept" in text
    epsilon, kappa = text.partition("ε of ")[2].split(" and κ of ")
    assert "0.15" in epsilon and "0.25" in kappa.partition(";")[0]
