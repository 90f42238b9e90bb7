"""Entropic projection of an image onto a Wasserstein ball by projected Sinkhorn, in the log domain.

[14] Wong, Schmidt, Kolter, ICML 2019 (Algorithm 2); with a capacity, Hu et al. 2020 (arXiv 2004.12478). In units of the
image's mass, with β, ψ the duals of the columns and of the budget, one sweep is

    α_i = log Σ_j exp(−β_j − ψ C_ij) − log x_i                  rows Π1 = x
    S_j = Σ_i exp(−α_i − ψ C_ij)
    z_j = min(W(λ exp(λ y_j) S_j) / λ, capacity)                columns, W Lambert's function
    β_j = log S_j − log z_j
    ψ   ← ψ − t (ε − ⟨Π, C⟩) / ⟨Π, C²⟩                          one Newton step

Only logarithms of the sums are ever formed and W(exp(a)) is solved as w + log w = a, so that no λ, image or target can
overflow. Windows and ground costs are symmetric, so one support operation sums over targets and over sources. At every
row update the plan is the Gibbs plan (transport/gibbs.py) of potential −β and multiplier ψ.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from wasser_tf.transport.gibbs import log_sum_and_costs, moments
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import image_mass

_LOG_ZERO = -1e30
# Hu's code sweeps until rows and budget are met, without a limit; here it stops after this multiple of the allowed
# sweeps.
_PATIENCE = 5
# The range of exponents that float32 sums accept; the float32 exponential underflows at −87.
_SPAN = 50.0
# The halvings of a Newton step that would make ψ negative (the published code's t > 0.01).
_HALVINGS = 7


class SinkhornDuals(NamedTuple):
    """The duals that determine a plan: the potential −β, [B, H, W, C], and the multiplier ψ, [B, 1, 1, 1]."""

    potential: tf.Tensor
    multiplier: tf.Tensor


class SinkhornProjection(NamedTuple):
    """The projected image [B, H, W, C], its duals, and the sweeps each image took, int32 [B]."""

    image: tf.Tensor
    duals: SinkhornDuals
    sweeps: tf.Tensor


class _Scaled(NamedTuple):
    """The problem in units of the image's mass: x, y [B, H, W, C], ε and the capacity [B, 1, 1, 1]."""

    images: tf.Tensor
    targets: tf.Tensor
    epsilon: tf.Tensor
    capacity: tf.Tensor | None


class _Iterate(NamedTuple):
    """One iterate; objective, mass and cost (of the plan, relative) are [B], and whether quick sums did so far."""

    columns: tf.Tensor
    duals: SinkhornDuals
    objective: tf.Tensor
    mass: tf.Tensor
    cost: tf.Tensor
    sweeps: tf.Tensor
    done: tf.Tensor
    narrow: tf.Tensor


# (potential [B, H, W, C], multiplier [B, 1, 1, 1], support) -> `log_sum_and_costs`.
_Sums = Callable[[tf.Tensor, tf.Tensor, Support], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def initial_duals(images: tf.Tensor) -> SinkhornDuals:
    """Returns the start of [14]: β = log(1 / pixels), ψ = 1."""
    return SinkhornDuals(
        potential=tf.fill(tf.shape(images), math.log(math.prod(images.shape[1:]))),
        multiplier=tf.ones_like(images[:, :1, :1, :1]),
    )


def sinkhorn_projection(
    targets: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    start: SinkhornDuals,
    support: Support,
    *,
    regularization: tf.Tensor,
    sweeps: int,
    capacity: float | None = None,
    tolerance: float = 1e-4,
    mass_tolerance: float = math.inf,
    cost_tolerance: float = math.inf,
) -> SinkhornProjection:
    """argmin_z ½ λ ‖z − y‖² + Σ Π log Π  over  Π1 = x, Πᵀ1 = z ≤ capacity, ⟨Π, C⟩ ≤ budget, per unit of mass.

    An image stops sweeping when its own dual objective moves by at most tolerance · (1 + |objective|) and its mass and
    cost are within their tolerances; past `sweeps` the latter suffices. (The published code of [14] stops once all
    images of the batch have converged.)

    Args:
      targets: y, the point to project, [B, H, W, C] in pixel values; any finite numbers.
      images: x, [B, H, W, C].
      budget: The largest ⟨Π, C⟩, [B].
      start: Where the duals start.
      support: Where mass may go.
      regularization: λ, a scalar tensor. The larger, the closer to the Euclidean projection and the slower.
      sweeps: The maximum number of sweeps, but see `cost_tolerance`.
      capacity: The largest value of a pixel of z, in pixel values, or None.
      tolerance: Of the dual objective.
      mass_tolerance: How far the relative mass of z may be off.
      cost_tolerance: How far ⟨Π, C⟩ / mass may be above the budget.

    Returns:
      The projection: z in pixel values. Without convergence its mass and cost are off, as in the papers' codes.
    """
    mass = image_mass(images)[:, None, None, None]
    scaled = _Scaled(
        images=tf.math.divide_no_nan(images, mass),
        targets=tf.math.divide_no_nan(targets, mass),
        epsilon=tf.math.divide_no_nan(budget[:, None, None, None], mass),
        capacity=None if capacity is None else tf.math.divide_no_nan(capacity, mass),
    )
    true_mass = image_mass(scaled.images)
    epsilon = scaled.epsilon[:, 0, 0, 0]

    nothing = tf.zeros_like(true_mass)
    first = _Iterate(
        columns=scaled.images,
        duals=start,
        objective=tf.fill(tf.shape(nothing), tf.float32.min),
        mass=nothing,
        cost=nothing,
        sweeps=tf.zeros_like(nothing, tf.int32),
        done=tf.zeros_like(nothing, tf.bool),
        narrow=tf.ones_like(nothing, tf.bool),
    )

    def solve(sums: _Sums) -> _Iterate:
        def sweep(now: _Iterate) -> tuple[_Iterate]:
            new = _sweep(now, scaled, regularization, support, sums)
            settled = tf.abs(new.objective - now.objective) <= tolerance + tolerance * tf.abs(new.objective)
            feasible = (tf.abs(new.mass - true_mass) <= mass_tolerance) & (new.cost <= epsilon + cost_tolerance)
            new = new._replace(done=(settled | (new.sweeps >= sweeps)) & feasible)
            keep = now.done
            return (tf.nest.map_structure(lambda old, following: _where(keep, old, following), now, new),)

        return tf.while_loop(
            lambda now: ~tf.reduce_all(now.done), sweep, (first,), maximum_iterations=_PATIENCE * sweeps
        )[0]

    def choose(quick: _Iterate, sure: _Iterate) -> _Iterate:
        return tf.nest.map_structure(lambda one, other: _where(quick.narrow, one, other), quick, sure)

    quick = solve(_quick_sums)
    last = tf.cond(tf.reduce_all(quick.narrow), lambda: quick, lambda: choose(quick, solve(_log_sums)))
    return SinkhornProjection(last.columns * mass, last.duals, last.sweeps)


def _sweep(now: _Iterate, scaled: _Scaled, regularization: tf.Tensor, support: Support, sums: _Sums) -> _Iterate:
    images, targets, epsilon, capacity = scaled
    potential, multiplier = now.duals
    log_rows, _, _ = sums(potential, multiplier, support)
    source = tf.where(images > 0, tf.math.log(tf.maximum(images, 1e-38)) - log_rows, _LOG_ZERO)  # −α

    log_columns, mean_cost, mean_square = sums(source, multiplier, support)  # log S
    pull = regularization * targets
    omega = wright_omega(tf.math.log(regularization) + pull + log_columns)
    columns = omega / regularization
    beta = fit = omega - pull  # fit = λ (z − y), which is β unless the capacity binds
    if capacity is not None:
        full = columns > capacity
        columns = tf.minimum(columns, capacity)
        fit = tf.where(full, regularization * (columns - targets), fit)
        beta = tf.where(full, log_columns - tf.math.log(tf.maximum(capacity, 1e-38)), fit)

    pixels = [1, 2, 3]
    # What arrives at pixel j has come at a mean cost: so ⟨Π, C⟩, and its slope in ψ.
    cost = tf.reduce_sum(columns * mean_cost, axis=pixels)[:, None, None, None]
    curvature = tf.reduce_sum(columns * mean_square, axis=pixels)[:, None, None, None]
    step = (cost - epsilon) / tf.maximum(curvature, 1e-30)
    for _ in range(_HALVINGS):
        step = tf.where(multiplier + step < 0, 0.5 * step, step)

    narrow = now.narrow & (_span(potential) < _SPAN) & (_span(source) < _SPAN)
    narrow &= tf.reduce_max(source, axis=pixels) + tf.reduce_max(pull, axis=pixels) < _SPAN
    objective = (
        tf.reduce_sum(tf.where(images > 0, images * source, 0.0), axis=pixels)
        - tf.reduce_sum(fit * (0.5 * fit / regularization + targets), axis=pixels)
        - (multiplier * epsilon)[:, 0, 0, 0]
        - image_mass(columns)
    )
    if capacity is not None:
        objective -= tf.reduce_sum((beta - fit) * capacity, axis=pixels)
    return _Iterate(
        columns=columns,
        duals=SinkhornDuals(-beta, tf.maximum(multiplier + step, 0.0)),
        objective=objective,
        mass=image_mass(columns),
        cost=cost[:, 0, 0, 0],
        sweeps=now.sweeps + 1,
        done=now.done,
        narrow=narrow,
    )


def _span(potential: tf.Tensor) -> tf.Tensor:
    """Returns how far a potential [B, H, W, C] spans where it is not `_LOG_ZERO`, [B]."""
    there = potential > 0.5 * _LOG_ZERO
    peak = tf.reduce_max(potential, axis=[1, 2, 3], keepdims=True)
    return tf.reduce_max(tf.where(there, peak - potential, 0.0), axis=[1, 2, 3])


def _quick_sums(
    potential: tf.Tensor, multiplier: tf.Tensor, support: Support
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums with one exponential a pixel, where potentials span less than `_SPAN`: that is far less than float32 does.

    What is so far from all mass that its sum is 0 in float32 gets `_LOG_ZERO`: nothing arrives there.
    """
    peak = tf.reduce_max(potential, axis=[1, 2, 3], keepdims=True)
    partition, first, second = moments(support.rings(tf.exp(potential - peak)), multiplier)
    log_sum = tf.where(partition > 0, peak + tf.math.log(tf.maximum(partition, 1e-38)), _LOG_ZERO)
    return log_sum, tf.math.divide_no_nan(first, partition), tf.math.divide_no_nan(second, partition)


def _log_sums(potential: tf.Tensor, multiplier: tf.Tensor, support: Support) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The same sums with an exponential a term, of any potentials."""
    return log_sum_and_costs(support.log_rings(potential), multiplier)


def wright_omega(argument: tf.Tensor) -> tf.Tensor:
    """Returns ω with ω + log ω = a, which is Lambert's W(exp(a)) without the exponential. Any shape, any finite a."""
    # Below −20, ω = exp(a), and above 1e4 the start below is ω, both to float32.
    a = tf.clip_by_value(argument, -20.0, 1e4)
    omega = tf.where(a > 4.0, _far_omega(a), tf.exp(tf.where(a > -2.0, (a - 1.0) / 1.5, a)))
    # The fourth-order step of Fritsch, Shafer and Crowley (1973): two reach float32 from these starts.
    for _ in range(2):
        residual = a - omega - tf.math.log(omega)
        next_omega = 1.0 + omega
        scale = 2.0 * next_omega * (next_omega + residual / 1.5)
        omega *= 1.0 + residual / next_omega * (scale - residual) / (scale - 2.0 * residual)
    omega = tf.where(argument > 1e4, _far_omega(argument), omega)
    return tf.where(argument < -20.0, tf.exp(tf.minimum(argument, 0.0)), omega)


def _far_omega(argument: tf.Tensor) -> tf.Tensor:
    """Returns ω to terms of (log a / a)²."""
    a = tf.maximum(argument, 1.0)
    log_a = tf.math.log(a)
    return a - log_a + log_a / a


def _where(condition: tf.Tensor, chosen: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(condition, [-1] + [1] * (chosen.shape.rank - 1)), chosen, other)
