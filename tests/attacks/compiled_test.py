"""The XLA program of a whole attack, which shows on a CPU how it would run on an accelerator."""

import collections
import re

import pytest
import tensorflow as tf

from wasser_tf import ThreatModel, attacks, models
from wasser_tf.models import logits as attacked
from wasser_tf.models.logits import as_logits_fn

# What would leave the device, or leave XLA.
_FOREIGN = {"custom-call", "infeed", "outfeed", "send", "recv", "send-done", "recv-done", "domain"}


def _operations(program):
    return collections.Counter(re.findall(r" ([a-z][a-z-]*)\(", program))


@pytest.mark.parametrize(
    ("name", "kernel_size"), [("mirror_ascent", 3), ("mirror_ascent", None), ("wasser_attack", 3)], ids=str
)
def test_an_attack_compiles_to_one_program_that_stays_on_the_device(name, kernel_size):
    attack = attacks.make(name, ThreatModel(epsilon=0.3, kernel_size=kernel_size), iterations=3)
    logits_fn = as_logits_fn(models.build("linear", (6, 5, 2), 3, seed=0), True)
    run = tf.function(
        lambda images, labels: attack.run(logits_fn, images, labels).adversarial, jit_compile=True, autograph=False
    )
    # XLA refuses operations it has no kernel for, such as py_function, when it makes this.
    program = run.experimental_get_compiler_ir(tf.zeros([4, 6, 5, 2]), tf.constant([0, 1, 2, 0]))
    for stage in ("hlo", "optimized_hlo"):
        text = program(stage=stage)
        operations = _operations(text)
        assert not _FOREIGN & operations.keys()
        # The iterations are a loop of it, not unrolled, and masks and costs are computed, not stored.
        assert operations["while"] >= 1
        assert sum(operations.values()) < 8000 and len(text) < 3_000_000
    # Element-wise work is fused into loops: few operations are left beside them.
    assert operations["fusion"] > 10


@pytest.mark.parametrize("deterministic", [False, True])
def test_under_determinism_models_with_max_pooling_are_not_compiled_as_a_whole(monkeypatch, deterministic):
    monkeypatch.setattr(attacked, "is_op_determinism_enabled", lambda: deterministic)
    pooling = models.blurred(models.build("resnet_small", (8, 8, 3), 10), 1)
    plain = models.build("linear", (8, 8, 3), 10)
    assert not attacked.compile_whole_graph(plain) and not attacked.compile_whole_graph(pooling)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    assert attacked.compile_whole_graph(plain) and attacked.compile_whole_graph(lambda images, training: images)
    assert attacked.compile_whole_graph(pooling) is not deterministic
