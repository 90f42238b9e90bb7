"""The ensemble: the worst case of each image over several attacks, the strongest attack there is here."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from wasser_tf.attacks.base import Attack, batch_shape
from wasser_tf.attacks.inputs import check_batch, check_in_wasserstein_ball, check_radius
from wasser_tf.attacks.mirror_ascent import MirrorAscent
from wasser_tf.attacks.problem import Perturbation, Problem, choose
from wasser_tf.attacks.radius_schedule import RadiusSchedule
from wasser_tf.attacks.scoring import AttackResult, explicit, rounded
from wasser_tf.attacks.wasser_attack import WasserAttack
from wasser_tf.threat_model import ThreatModel


class Ensemble(Attack):
    """Runs its members in turn, each on the images that all before it have left standing.

    Called from eager code it leaves fooled images out of the batches; inside a graph, where shapes are static, all
    members run on all images and each image keeps its example of largest margin.

    Attributes:
      members: The attacks. By default mirror ascent, with restarts, on other losses and with larger steps,
        WasserAttack, and mirror ascent on gradients averaged over noise, coming down from a larger ball, the one that
        finds what all before it miss. Chosen on validation images.
      iterations: Of the default members; the last two get twice as many.
    """

    name: ClassVar[str] = "ensemble"

    def __init__(
        self,
        threat_model: ThreatModel,
        *,
        members: Sequence[Attack] | None = None,
        iterations: int = 100,
        schedule: RadiusSchedule | None = None,
        stop_when_fooled: bool = False,
        seed: int = 0,
    ):
        super().__init__(
            threat_model, iterations=iterations, schedule=schedule, stop_when_fooled=stop_when_fooled, seed=seed
        )
        if members is not None and not isinstance(members, (tuple, list)):
            raise ValueError(f"members must be a list of attacks, or None, got {members!r}.")
        shared: dict[str, Any] = {"schedule": schedule, "stop_when_fooled": stop_when_fooled, "seed": seed}
        self._own_members = members is None
        self.members = (
            (
                MirrorAscent(threat_model, iterations=iterations, **shared),
                MirrorAscent(threat_model, iterations=iterations, restarts=6, **shared),
                MirrorAscent(threat_model, iterations=iterations, loss="dlr", **shared),
                MirrorAscent(threat_model, iterations=iterations, loss="cross_entropy", step_size=12.0, **shared),
                WasserAttack(threat_model, iterations=2 * iterations, **shared),
                MirrorAscent(
                    threat_model,
                    iterations=2 * iterations,
                    step_size=12.0,
                    restarts=4,
                    gradient_noise=0.25,
                    ramp_from=1.5,
                    **shared,
                ),
            )
            if members is None
            else tuple(members)
        )
        if not self.members:
            raise ValueError("An ensemble needs at least one member, got none.")
        for member in self.members:
            if not isinstance(member, Attack) or member.threat_model != threat_model:
                raise ValueError(f"The members of an ensemble must be attacks on its threat model, got {member!r}.")
            check_in_wasserstein_ball(member)

    def __call__(
        self,
        classifier: Callable[..., tf.Tensor],
        images: np.ndarray,
        labels: np.ndarray,
        *,
        radius: float | np.ndarray | None = None,
        index: np.ndarray | None = None,
        targets: np.ndarray | None = None,
        batch_size: int = 128,
        **options: Any,
    ) -> AttackResult:
        images, labels = check_batch(classifier, images, labels)
        count = len(images)
        radius = check_radius(self.threat_model.epsilon if radius is None else radius, count)
        index = np.arange(count) if index is None else np.asarray(index)
        size = batch_shape(count, batch_size)
        best: AttackResult | None = None
        for member in self.members:
            not_fooled = np.arange(count) if best is None else np.flatnonzero(~best.success)
            if not len(not_fooled):
                break
            # Filled up to whole batches, so that every member and every number of images share compiled functions.
            rows = not_fooled if best is None else np.resize(not_fooled, -(-len(not_fooled) // size) * size)
            aims = None if targets is None else np.asarray(targets)[rows]
            found = member(
                classifier,
                images[rows],
                labels[rows],
                radius=radius[rows],
                index=index[rows],
                targets=aims,
                batch_size=batch_size,
                **options,
            )
            best = found if best is None else _merge(best, found, not_fooled)
        assert best is not None  # noqa: S101 (there is a member, so it ran)
        return best

    def perturb(self, problem: Problem) -> Perturbation:
        best: tuple[Perturbation, tf.Tensor] | None = None
        used = tf.zeros_like(problem.labels)
        for member in self.members:
            found = member.perturb(problem)
            margin = problem.margin(problem.logits_fn(rounded(found, problem).image))
            found = found._replace(plan=explicit(found.plan, problem.images, problem.support))
            used += found.iterations
            best = (found, margin) if best is None else choose(margin > best[1], (found, margin), best)
        assert best is not None  # noqa: S101
        return best[0]._replace(iterations=used)

    def get_config(self) -> dict[str, Any]:
        if self._own_members:
            return super().get_config()
        members = [{"name": member.name, "config": member.get_config()} for member in self.members]
        return {**super().get_config(), "members": members}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        from wasser_tf.attacks import deserialize  # The registry holds this class.

        members = config.get("members")
        made = None if members is None else [deserialize(member) for member in members]
        return super().from_config({**config, "members": made})


def _merge(best: AttackResult, found: AttackResult, not_fooled: np.ndarray) -> AttackResult:
    """Returns the results so far with those of the images still standing [m] replaced where they are worse.

    Args:
      best: The results so far, [n].
      found: The new ones, of the images still standing; what follows them is filling.
      not_fooled: Their places, [m].
    """
    found = tf.nest.map_structure(lambda field: field[: len(not_fooled)], found)
    worse = found.success | (found.loss > best.loss[not_fooled])

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        merged = old.copy()
        merged[not_fooled[worse]] = new[worse]
        return merged

    iterations = best.iterations.copy()
    iterations[not_fooled] += found.iterations
    return tf.nest.map_structure(put, best, found)._replace(iterations=iterations)
