import dataclasses

import numpy as np
import pytest

from wasser_tf.paper.presets import QUICK


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
