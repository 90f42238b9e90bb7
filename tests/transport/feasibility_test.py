"""Feasibility records: each field and verdict, computed by hand on 1×3 images."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.feasibility import Feasibility, measure_feasibility, measure_feasibility_without_plan
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan

NORMALISED = ThreatModel(kernel_size=3)
ABSOLUTE = ThreatModel(kernel_size=3, normalize_mass=False)
SUPPORT = make_support(NORMALISED, (1, 3, 1))
LEFT, HOME, RIGHT = range(3)
# Two images of mass 0.5, one black: nothing here is symmetric, so that a field cannot pass for another.
IMAGES = np.array([[0.25, 0.25, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32).reshape(3, 1, 3, 1)


def plan_of(**entries):
    """The identity plan of all images, with entries (image, target, pixel) added to the first."""
    plan = identity_plan(tf.constant(IMAGES), SUPPORT).numpy()
    for (image, target, pixel), value in entries.get("added", {}).items():
        plan[image, target, 0, pixel, 0] += value
    return plan


def good(**fields):
    """One image whose fields are all at the edge of what is allowed, but for those given."""
    edge = {
        "cost": 0.2,
        "radius": 0.2,
        "min_flow": 0.0,
        "row_error": 1e-6,
        "column_error": 1e-6,
        "min_pixel": 0.0,
        "max_pixel": 1.0,
        "mass_error": 1e-6,
    }
    return Feasibility(**{name: np.array([value]) for name, value in {**edge, **fields}.items()})


def test_a_certificate_at_its_limits_is_valid():
    assert good().feasible().tolist() == [True]
    assert good(cost=0.2 * (1 + 0.9e-5)).feasible().all() and good(cost=0.0, radius=0.0).feasible().all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cost", 0.2 * (1 + 1.2e-5)),
        ("cost", np.inf),
        ("cost", np.nan),
        ("radius", 0.19999),
        ("min_flow", -1e-9),
        ("min_flow", np.nan),
        ("row_error", 1.1e-6),
        ("row_error", np.nan),
        ("column_error", 1.1e-6),
        ("mass_error", 1.1e-6),
        ("min_pixel", -1e-9),
        ("max_pixel", 1.0 + 1e-6),
        ("max_pixel", np.nan),
    ],
)
def test_each_field_alone_makes_it_invalid(field, value):
    assert good(**{field: value}).feasible().tolist() == [False]


def test_an_infinite_cost_is_invalid_at_an_infinite_radius():
    assert not good(cost=np.inf, radius=np.inf).feasible().any()


def test_the_capacity_is_the_one_asked_for():
    assert good(max_pixel=1.5).feasible(capacity=1.5).all() and not good(max_pixel=1.5).feasible(capacity=1.4).any()
    assert good(max_pixel=9.0).feasible(capacity=None).all()


def test_the_verdict_is_one_for_each_image():
    several = Feasibility(*(np.repeat(field, 3) for field in good()))
    several.row_error[1] = 1.0
    assert several.feasible().tolist() == [True, False, True]


def test_what_is_printed_counts_the_valid_and_names_the_largest_cost():
    two = Feasibility(*(np.repeat(field, 2) for field in good()))
    two.cost[0] = 0.12345678
    two.cost[1] = 0.3
    assert repr(two) == "<Feasibility of 2: 1 feasible, cost to 0.3>"
    assert repr(Feasibility(*(tf.constant(field) for field in good()))) == "<Feasibility>"


def measure(plan, target, threat_model=NORMALISED, radius=0.3):
    found = measure_feasibility(
        tf.constant(plan), tf.constant(target), tf.constant(IMAGES), SUPPORT, radius, threat_model
    )
    return Feasibility(*(field.numpy() for field in found))


def test_a_feasible_move_is_measured_as_it_is():
    # 0.1 from the first pixel to the second, over a distance of 1.
    plan = plan_of(added={(0, HOME, 0): -0.1, (0, RIGHT, 0): 0.1})
    target = IMAGES.copy()
    target[0, 0, :, 0] = 0.15, 0.35, 0.0
    found = measure(plan, target)
    np.testing.assert_allclose(found.cost, [0.1 / 0.5, 0, 0], atol=1e-7)
    np.testing.assert_allclose(measure(plan, target, ABSOLUTE).cost, [0.1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(found.radius, np.full(3, 0.3, np.float32))
    assert found.radius.dtype == np.float32
    np.testing.assert_allclose(found.min_pixel, [0, 0, 0])
    np.testing.assert_allclose(found.max_pixel, [0.35, 0.5, 0], atol=1e-7)
    assert found.feasible().all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_row_error_is_the_largest_in_either_direction_relative_to_the_mass(sign):
    # The second image's first pixel keeps more, or less, than it has.
    found = measure(plan_of(added={(1, HOME, 0): sign * 0.05, (1, HOME, 2): sign * 0.01}), IMAGES)
    np.testing.assert_allclose(found.row_error, [0, 0.05 / 0.5, 0], atol=1e-6)
    assert found.feasible().tolist() == [True, False, True]


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_column_error_is_the_largest_in_either_direction_in_pixel_values(sign):
    target = IMAGES.copy()
    target[0, 0, :2, 0] += np.array([0.05, 0.02], np.float32) * sign
    found = measure(plan_of(), target)
    np.testing.assert_allclose(found.column_error, [0.05, 0, 0], atol=1e-7)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_mass_error_is_of_the_sum_in_either_direction_relative_to_the_mass(sign):
    target = IMAGES.copy()
    target[0, 0, :, 0] += np.array([0.05, -0.01, 0], np.float32) * sign
    found = measure(plan_of(), target)
    np.testing.assert_allclose(found.mass_error, [0.04 / 0.5, 0, 0], atol=1e-6)
    without = measure_feasibility_without_plan(tf.constant(target), tf.constant(IMAGES), 0.3)
    np.testing.assert_allclose(without.mass_error, [0.04 / 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(without.column_error, [0.05, 0, 0], atol=1e-7)
    np.testing.assert_array_equal(without.cost, [np.inf, 0, 0])


def test_negative_flow_is_seen_and_pixels_are_those_of_the_target():
    found = measure(plan_of(added={(0, LEFT, 1): -0.125, (0, HOME, 1): 0.125}), IMAGES)
    np.testing.assert_array_equal(found.min_flow, [-0.125, 0, 0])
    target = IMAGES.copy()
    target[1, 0, :, 0] = -0.25, 1.5, 0
    for found in (
        measure(plan_of(), target),
        measure_feasibility_without_plan(tf.constant(target), tf.constant(IMAGES), 0.3),
    ):
        np.testing.assert_array_equal(found.min_pixel, [0, -0.25, 0])
        np.testing.assert_array_equal(found.max_pixel, [0.25, 1.5, 0])


def test_what_is_made_of_nothing_is_infinitely_wrong():
    target = IMAGES.copy()
    target[2, 0, 1, 0] = 0.125
    found = measure(plan_of(added={(2, RIGHT, 0): 0.125}), target)
    for field in (found.cost, found.row_error, found.mass_error):
        np.testing.assert_array_equal(field, [0, 0, np.inf])
    assert found.feasible().tolist() == [True, True, False]


def test_without_a_plan_only_the_image_itself_is_valid():
    found = measure_feasibility_without_plan(tf.constant(IMAGES), tf.constant(IMAGES), 0.3)
    found = Feasibility(*(field.numpy() for field in found))
    assert found.feasible().all()
    np.testing.assert_array_equal(found.radius, np.full(3, 0.3, np.float32))
    for field in (found.cost, found.min_flow, found.row_error, found.column_error, found.mass_error):
        np.testing.assert_array_equal(field, np.zeros(3, np.float32))
