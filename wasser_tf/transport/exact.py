"""Exact optimal transport by linear programming, in float64 on the host: a slow, independent check."""

import numpy as np
import scipy.optimize
import scipy.sparse

from wasser_tf.threat_model import ThreatModel


def wasserstein_distance(image: np.ndarray, target: np.ndarray, threat_model: ThreatModel) -> float:
    """Returns the exact distance of two images in the units of the threat model's epsilon.

    min ⟨Π, C⟩ over Π ≥ 0, Π1 = x, Πᵀ1 = x̃ on the full grid of each channel, summed over channels, divided by m(x) where
    the threat model normalises. Windows are not enforced, so this is never above the cost of a plan that keeps them.

    Args:
      image: x, [H, W, C].
      target: x̃, [H, W, C], of the same mass in every channel to 1e-4; smaller differences count as rounding and are
        scaled away.
      threat_model: Gives p and the normalisation.

    Raises:
      ValueError: The masses differ, so that no plan exists.
    """
    import ot  # Imported here because it imports scikit-learn, which takes a second.

    image, target = np.asarray(image, np.float64), np.asarray(target, np.float64)
    total = 0.0
    for channel in range(image.shape[2]):
        source, sink = image[:, :, channel], target[:, :, channel]
        mass, sink_mass = source.sum(), sink.sum()
        if abs(mass - sink_mass) > 1e-4 * max(mass, sink_mass):
            raise ValueError(
                f"No plan exists: channel {channel} has mass {mass:.6g} in the image and {sink_mass:.6g} in the "
                "target; the Wasserstein distance needs equal masses."
            )
        if mass == 0:
            continue
        rows, columns = np.argwhere(source > 0), np.argwhere(sink > 0)
        cost = np.linalg.norm(rows[:, None] - columns[None], axis=2) ** threat_model.p
        weights = sink[sink > 0] / sink_mass
        total += mass * ot.emd2(source[source > 0] / mass, weights / weights.sum(), cost, numItermax=10_000_000)
    return total / max(image.sum(), np.finfo(float).tiny) if threat_model.normalize_mass else total


def linear_optimum(image: np.ndarray, weights: np.ndarray, threat_model: ThreatModel) -> tuple[float, np.ndarray]:
    """Returns the exact maximum of ⟨weights, x̃⟩ over the ball around one image, and an x̃ that attains it.

    The attack on a linear classifier is this linear program, which makes it the oracle for every attack.

    Args:
      image: x, [H, W, C].
      weights: The gradient of the margin, [H, W, C].
      threat_model: The ball.

    Returns:
      (maximum, x̃ of shape [H, W, C]).
    """
    image, weights = np.asarray(image, np.float64), np.asarray(weights, np.float64)
    height, width, channels = image.shape
    positions = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    offsets = positions[:, None] - positions[None]
    reach = np.inf if threat_model.kernel_size is None else threat_model.kernel_size // 2
    source, sink = np.nonzero(np.abs(offsets).max(axis=2) <= reach)
    pixel_cost = np.linalg.norm(offsets[source, sink], axis=1) ** threat_model.p
    # One variable for each pair of pixels of each channel; a pixel's number is position · channels + channel.
    channel = np.arange(channels)
    rows = (source[:, None] * channels + channel).ravel()
    columns = (sink[:, None] * channels + channel).ravel()
    cost = np.repeat(pixel_cost, channels)

    pixels, variables = image.size, np.arange(rows.size)
    ones = np.ones(rows.size)
    outflow = scipy.sparse.csr_matrix((ones, (rows, variables)), (pixels, rows.size))
    inflow = scipy.sparse.csr_matrix((ones, (columns, variables)), (pixels, rows.size))
    budget = threat_model.epsilon * (image.sum() if threat_model.normalize_mass else 1.0)
    limits = [scipy.sparse.csr_matrix(cost)]
    bounds = [np.array([budget])]
    if threat_model.capacity is not None:
        limits.append(inflow)
        bounds.append(np.full(pixels, threat_model.capacity))
    solution = scipy.optimize.linprog(
        -weights.ravel()[columns],
        A_ub=scipy.sparse.vstack(limits),
        b_ub=np.concatenate(bounds),
        A_eq=outflow,
        b_eq=image.ravel(),
        method="highs",
    )
    if solution.status != 0:
        raise RuntimeError(f"The linear program was not solved: {solution.message}")
    return -solution.fun, (inflow @ solution.x).reshape(image.shape)
