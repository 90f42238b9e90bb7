"""The ensemble: the worst case of each image over several attacks."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import registry
from wasser_tf.attacks.base import Attack, batch_shape
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.attacks.mirror_ascent import MirrorAscent
from wasser_tf.attacks.problem import Perturbation, Problem, choose
from wasser_tf.attacks.scoring import AttackResult, explicit, rounded
from wasser_tf.attacks.wasser_attack import WasserAttack
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch, check_radius


class Ensemble(Attack):
    """The worst case of each image over several attacks: the strongest attack of this package.

    Called in eager code it runs its members in turn, each on the images that no member before it has fooled. Inside a
    graph, where shapes are static, all members run on all images, and each image keeps its example of largest margin.

    Attributes:
      members: The attacks, on the ensemble's threat model; None for the default ones (`all_members`).
      iterations: Of the default members; the last two get twice as many.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> ball = wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3)
    >>> weak, strong = wasser_tf.attacks.RandomPlan(ball), wasser_tf.MirrorAscent(ball, iterations=5)
    >>> attack = wasser_tf.Ensemble(ball, members=[weak, strong])
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "ensemble"
    skips_fooled: ClassVar[bool] = True

    iterations: int = 100
    members: Sequence[Attack] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.members is None:
            return
        if not isinstance(self.members, (tuple, list)):
            raise ValueError(f"members must be a list of attacks, or None, got {self.members!r}.")
        object.__setattr__(self, "members", tuple(self.members))
        if not self.members:
            raise ValueError("An ensemble needs at least one member, got none.")
        for member in self.members:
            if not isinstance(member, Attack) or member.threat_model != self.threat_model:
                raise ValueError(f"The members of an ensemble must be attacks on its threat model, got {member!r}.")
            check_in_wasserstein_ball(member)

    @property
    def all_members(self) -> tuple[Attack, ...]:
        """The members in the order in which they run: those given, or the default ones.

        The default ones, chosen on validation images: mirror ascent, with restarts, on other losses and with larger
        steps; WasserAttack; and mirror ascent on gradients averaged over noise, coming down from a larger ball, which
        finds examples that all others miss.
        """
        if self.members is not None:
            return tuple(self.members)
        ball = self.threat_model
        shared: dict[str, Any] = {
            "schedule": self.schedule,
            "stop_when_fooled": self.stop_when_fooled,
            "seed": self.seed,
        }
        once: dict[str, Any] = {"iterations": self.iterations, **shared}
        twice: dict[str, Any] = {"iterations": 2 * self.iterations, **shared}
        return (
            MirrorAscent(ball, **once),
            MirrorAscent(ball, restarts=6, **once),
            MirrorAscent(ball, loss="dlr", **once),
            MirrorAscent(ball, loss="cross_entropy", step_size=12.0, **once),
            WasserAttack(ball, **twice),
            MirrorAscent(ball, step_size=12.0, restarts=4, gradient_noise=0.25, ramp_from=1.5, **twice),
        )

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
        seen = prepare_images(classifier, images, options.get("from_logits"))
        classifier = seen.classifier
        images, labels = check_batch(classifier, seen.images, labels)
        count = len(images)
        radius = check_radius(self.threat_model.epsilon if radius is None else radius, count)
        index = np.arange(count) if index is None else np.asarray(index)
        size = batch_shape(count, batch_size)
        best: AttackResult | None = None
        for member in self.all_members:
            not_fooled = np.arange(count) if best is None else np.flatnonzero(~best.success)
            if not len(not_fooled):
                break
            # Padded to whole batches, so that all members and all numbers of images share compiled functions.
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
        return best._replace(adversarial=seen.restore(best.adversarial), raw=seen.restore(best.raw))

    def perturb(self, problem: Problem) -> Perturbation:
        best: tuple[Perturbation, tf.Tensor] | None = None
        used = tf.zeros_like(problem.labels)
        for member in self.all_members:
            found = member.perturb(problem)
            margin = problem.margin(problem.logits_fn(rounded(found, problem).image))
            found = found._replace(plan=explicit(found.plan, problem.images, problem.support))
            used += found.iterations
            best = (found, margin) if best is None else choose(margin > best[1], (found, margin), best)
        assert best is not None  # noqa: S101
        return best[0]._replace(iterations=used)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if config.pop("members") is None:
            return config
        return {**config, "members": [registry.serialize(member) for member in self.all_members]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        members = config.get("members")
        made = None if members is None else tuple(registry.deserialize(member) for member in members)
        return super().from_config({**config, "members": made})


def _merge(best: AttackResult, found: AttackResult, not_fooled: np.ndarray) -> AttackResult:
    """Returns the results so far, with those of the images not yet fooled replaced where the new example is worse.

    Args:
      best: The results so far, [n].
      found: The new results: of the m images not yet fooled, followed by padding.
      not_fooled: The positions of those images, [m].
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
