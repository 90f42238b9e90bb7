"""The checks of attacks: which examples can be scored, and the memory of plans."""

import types

import pytest

from wasser_tf.attacks import RandomPlan, inputs
from wasser_tf.threat_model import ThreatModel


def test_only_wasserstein_attacks_pass():
    inputs.check_in_wasserstein_ball(RandomPlan(ThreatModel()))
    with pytest.raises(ValueError, match="attack must be a wasser_tf.attacks.Attack, got 'pgd'"):
        inputs.check_in_wasserstein_ball("pgd")


def test_memory_is_estimated_as_four_plans_per_image(monkeypatch):
    seen = []
    monkeypatch.setattr(inputs, "check_fits", lambda *given: seen.append(given))
    support = types.SimpleNamespace(image_shape=(4, 5, 1), num_targets=9, plan_bytes_per_image=1000)
    inputs.check_memory(support, 7)
    ((needed, what, mend),) = seen
    assert needed == 4 * 7 * 1000 and "kernel_size" in mend
    assert what == "Plans of 9 targets a pixel for 7 images of 4×5×1"
