import dataclasses

import numpy as np
import pytest

from wasser_tf.paper.presets import FULL, QUICK


@pytest.mark.parametrize("name", ["standard_epochs", "polish"])
def test_valid_zeros(name):
    assert getattr(dataclasses.replace(QUICK["digits"], **{name: 0}), name) == 0


@pytest.mark.parametrize(
    "name, value",
    [
        ("omegas", (1.5,)), ("omegas", (-0.1,)), ("omegas", (True,)), ("omegas", 0.5), ("radii", (0.0,)),
        ("radii", (np.inf,)), ("radii", ("a",)), ("epsilon", -0.1), ("epsilon_drawn", -1), ("linf_epsilon", -1),
        ("step_size", 0.0), ("standard_epochs", -1), ("epochs", 0), ("omega_epochs", 0), ("batch_size", 0),
        ("iterations", 0), ("pgd_iterations", 0), ("num_examples", 0), ("attack_iterations", 0), ("polish", -1),
        ("epochs", 1.5),
    ],
)  # fmt: skip
def test_invalid_fields_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        dataclasses.replace(QUICK["digits"], **{name: value})


def test_omega_may_be_0_and_1():
    assert dataclasses.replace(QUICK["digits"], omegas=(0.0, 1.0)).omegas == (0.0, 1.0)


@pytest.mark.parametrize("name", FULL)
def test_quick_presets_cost_less_than_full_ones(name):
    full, quick = FULL[name], QUICK[name]
    for field in ("standard_epochs", "epochs", "omega_epochs", "iterations", "pgd_iterations", "num_examples"):
        assert getattr(quick, field) <= getattr(full, field), field
    assert set(quick.omegas) < set(full.omegas) and len(quick.radii) < len(full.radii)
    assert quick.num_examples < full.num_examples and quick.attack_iterations is not None
    # Only an adaptive radius needs many iterations.
    assert not quick.adaptive_pgd


def test_the_full_presets_are_those_of_the_published_results():
    """Stored results were made with these numbers, which their documents do not contain."""
    fields = ("standard_epochs", "epochs", "omega_epochs", "batch_size", "pgd_iterations", "adaptive_pgd")
    assert {name: tuple(getattr(preset, field) for field in fields) for name, preset in FULL.items()} == {
        "digits": (30, 40, 40, 64, 20, False),
        "mnist": (5, 30, 50, 128, 50, True),
        "cifar10": (30, 14, 20, 128, 50, True),
    }
    assert all(preset.omegas == tuple(np.arange(1, 11) / 10) for preset in FULL.values())
    fields = ("epsilon", "epsilon_drawn", "linf_epsilon", "num_examples")
    assert {name: tuple(getattr(preset, field) for field in fields) for name, preset in FULL.items()} == {
        "digits": (0.1, 0.2, 0.2, 400),
        "mnist": (1.0, 0.5, 0.3, 1000),
        "cifar10": (0.06, 0.05, 8 / 255, 1000),
    }
    # λ for images of 32 pixels a side.
    assert FULL["cifar10"].attack_settings == {
        "projected_sinkhorn": {"regularization": 3000.0},
        "constrained_sinkhorn": {"regularization": 3000.0},
    }
