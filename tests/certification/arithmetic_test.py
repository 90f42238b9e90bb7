"""The allowance for rounding: its values, and sums in float32 that stay within it."""

import math

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification import arithmetic


def test_unit_roundoffs_of_both_types():
    assert arithmetic.unit(tf.float32) == np.finfo(np.float32).eps / 2
    assert arithmetic.unit(tf.float64) == np.finfo(np.float64).eps / 2


@pytest.mark.parametrize(("dtype", "both"), [(tf.float64, 1.0), (tf.float32, 2.0)])
def test_the_allowance_grows_with_the_number_of_terms(dtype, both):
    assert arithmetic.gamma(0, dtype) == 0
    found = [arithmetic.gamma(terms, dtype) for terms in (1, 10, 1000)]
    for terms, value in zip((1, 10, 1000), found, strict=True):
        rounded = (terms + 8) * 2.0**-24 * both
        assert value == pytest.approx(1.01 * rounded / (1 - rounded), rel=1e-6)
    # From where no bound holds.
    assert arithmetic.gamma(2**23 // int(both) - 9, dtype) < math.inf
    assert arithmetic.gamma(2**23, dtype) == math.inf


def test_tensor_float_32_adds_its_rounding_on_a_gpu_only(monkeypatch):
    plain = arithmetic.gamma(10, tf.float64)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"] if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: True)
    assert arithmetic.gamma(10, tf.float64) == pytest.approx(plain + 1.01 * 2.0**-10)
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: False)
    assert arithmetic.gamma(10, tf.float64) == plain


def test_sums_of_products_in_any_order_stay_within_the_allowance():
    rng = np.random.default_rng(0)
    for count in (1, 7, 300):
        a, b = np.float32(rng.normal(size=(2, 50, count)) * 10.0 ** rng.integers(-3, 3, (2, 50, count)))
        exact = np.sum(a.astype(np.float64) * b, axis=1)
        allowed = arithmetic.gamma(count, tf.float64) * np.sum(np.abs(a.astype(np.float64) * b), axis=1)
        in_order = np.zeros(50, np.float32)
        for place in range(count):
            in_order = in_order + a[:, place] * b[:, place]
        for found in (in_order, np.einsum("bn,bn->b", a, b), tf.einsum("bn,bn->b", a, b).numpy()):
            assert (np.abs(found - exact) <= allowed).all()
