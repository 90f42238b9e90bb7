"""The checks of Carlini et al. 2019, "On evaluating adversarial robustness": can an attack's failure be trusted?

An attack by gradients fails on a robust classifier, and also on one whose gradients say nothing (gradient masking).
Each check measures something that a sound attack on an honest classifier cannot fail; one that fails says not to trust
the robust accuracy.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import attacks, models
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_batch
from wasser_tf.attacks.losses import margin
from wasser_tf.attacks.scoring import is_blind
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.record import WORST_CASE, Record
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.runtime import interruption

# Where the dense plans of all images together hold more numbers than this, the check of a huge radius takes fewer
# images, and where one image's does, a wide window.
_LARGEST_PLANS = 8_000_000
_WIDE_WINDOW = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
      name: What was checked.
      passed: Whether it passed; None if it could not be made.
      measured: What was measured, in words and numbers.
      needed: What passes.
      masking: Whether failing it is a sign of gradient masking, rather than of a weak attack.
    """

    name: str
    passed: bool | None
    measured: str
    needed: str
    masking: bool = False


def gradient_masking(checks: list[Check]) -> list[str]:
    """Returns the names of the checks whose failure is a sign of gradient masking; none is what one hopes for."""
    return [check.name for check in checks if check.masking and check.passed is False]


def worst_case_is_per_example(records: Sequence[Record]) -> Check:
    """Checks the table itself: at no radius may an attack be stronger than the worst case over them.

    Args:
      records: Of one classifier, those of the worst case among them if there are several attacks.
    """
    name, needed = "the worst case is per example", "at each ε at least the best attack alone"
    worst = {record.epsilon: record.feasible.success_rate for record in records if record.attack == WORST_CASE}
    if not worst or len(worst) == len(records):
        measured = "no attack has scores of its own" if worst else "there is one attack only"
        return Check(name=name, passed=None, measured=measured, needed=needed)
    best = {
        radius: max(
            record.feasible.success_rate
            for record in records
            if record.attack != WORST_CASE and record.epsilon == radius
        )
        for radius in worst
    }
    return Check(
        name=name,
        passed=all(worst[radius] >= best[radius] for radius in worst),
        measured=", ".join(f"{_percent(worst[at])} over {_percent(best[at])} at {at:g}" for at in worst),
        needed=needed,
    )


class SanityChecker:
    """Makes the checks of one classifier under one white-box attack; each method is a check, `run` makes them all.

    Attributes:
      attack: The white-box attack under test; a fixed radius is used whatever its schedule.
      radii: The radii at which it is judged, rising.
      tolerance: By how much a share may be on the wrong side: the share of one image, and a point.
      surrogate: A classifier that transfer attacks are made on.
    """

    def __init__(
        self,
        classifier: Callable[..., Any],
        attack: Attack,
        images: np.ndarray,
        labels: np.ndarray,
        radii: list[float] | tuple[float, ...],
        *,
        surrogate: Callable[..., Any] | None = None,
        batch_size: int = 128,
    ):
        if not radii:
            raise ValueError("radii must hold at least one radius, got none.")
        seen = prepare_images(classifier, images)
        classifier = seen.classifier
        self.classifier = classifier
        self.images, self.labels = check_batch(classifier, seen.images, labels)
        self.from_logits = metrics.is_from_logits(classifier, self.images)
        self.attack = dataclasses.replace(attack, schedule=None)
        self.radii = tuple(sorted(radii))
        self.tolerance = 0.01 + 1 / len(self.labels)
        self.surrogate = surrogate
        self.batch_size = batch_size
        self._clean = metrics.predict(classifier, self.images, self.labels, from_logits=self.from_logits)
        self._fooled: dict[float, np.ndarray] = {}
        self._examples: dict[float, np.ndarray] = {}
        self._last_examples: np.ndarray | None = None

    @functools.cached_property
    def radius(self) -> float:
        """The radius at which most checks are made: where success is closest to one half a change shows most.

        The largest of several alike, for where success does not grow at all, something is masked.
        """
        return min(self.radii, key=lambda radius: (abs(float(np.mean(self._success(radius))) - 0.5), -radius))

    def run(self, log: Callable[[str], None] | None = None) -> list[Check]:
        """Makes all checks, the cheap ones first.

        Args:
          log: Is given a line for each check that was made.
        """
        checks = []
        for make in (
            self.deterministic,
            self.alone_as_in_company,
            self.gradients,
            self.grows_with_radius,
            self.stronger_than_random,
            self.more_iterations,
            self.restarts,
            self.huge_radius,
            self.transfer,
        ):
            interruption.raise_if_requested()
            checks.append(make())
            if log:
                state = {True: "passed", False: "FAILED", None: "skipped"}[checks[-1].passed]
                log(f"{checks[-1].name}: {state}, {checks[-1].measured}")
        return checks

    def deterministic(self) -> Check:
        """The classifier answers the same question twice in the same way."""
        first, second = self._outputs(self.images), self._outputs(self.images)
        difference, scale = float(np.abs(first - second).max()), float(np.abs(first).max())
        return Check(
            name="the classifier is deterministic",
            passed=difference <= 1e-4 * max(scale, 1e-6),
            measured=f"outputs of the same images differ by up to {difference:.2g} (they reach {scale:.2g})",
            needed="at most 1e-4 of the largest output",
            masking=True,
        )

    def alone_as_in_company(self) -> Check:
        """It answers for an image alone as for the image in a batch (batch statistics would differ)."""
        count = min(4, len(self.images))
        together = self._outputs(self.images)[:count]
        alone = np.concatenate([self._outputs(self.images[row : row + 1]) for row in range(count)])
        difference, scale = float(np.abs(together - alone).max()), float(np.abs(together).max())
        return Check(
            name="it answers for an image alone as in a batch",
            passed=difference <= 1e-3 * max(scale, 1e-6),
            measured=f"outputs differ by up to {difference:.2g} (they reach {scale:.2g})",
            needed="at most 1e-3 of the largest output",
            masking=True,
        )

    def gradients(self) -> Check:
        """The margin has a gradient at the images."""
        margins, gradient = self._margin_gradient
        name, needed = "gradients are there", "at most 5 % of the images without a finite gradient other than rounding"
        if gradient is None:
            return Check(
                name=name,
                passed=False,
                measured="the output is no differentiable function",
                needed=needed,
                masking=True,
            )
        useless = float(np.mean(is_blind(gradient, margins)))
        return Check(
            name=name,
            passed=useless <= 0.05,
            measured=f"{_percent(useless)} of the images have no gradient",
            needed=needed,
            masking=True,
        )

    def grows_with_radius(self) -> Check:
        """Success grows with the radius."""
        rates = [float(np.mean(self._success(radius))) for radius in self.radii]
        return Check(
            name="success grows with ε",
            passed=all(after >= before - self.tolerance for before, after in zip(rates, rates[1:], strict=False)),
            measured=", ".join(
                f"{_percent(rate)} at {radius:g}" for radius, rate in zip(self.radii, rates, strict=True)
            ),
            needed="no fall",
            masking=True,
        )

    def stronger_than_random(self) -> Check:
        """The attack is stronger than a random feasible plan of the same cost."""
        control = attacks.make("random_plan", self.attack.threat_model, seed=self.attack.seed)
        random, found = self._success(self.radius, attack=control), self._success(self.radius)
        clean = float(np.mean(self._clean.wrong))
        stronger = found.mean() > random.mean() or found.mean() == 1
        return Check(
            name="the attack is stronger than a random plan",
            passed=bool(stronger and np.mean(random & ~found) <= self.tolerance),
            measured=f"{_percent(found.mean())} against {_percent(random.mean())} at ε = {self.radius:g} "
            f"({_percent(clean)} wrong clean)",
            needed="a higher rate, and no image that only the random plan fools",
            masking=True,
        )

    def more_iterations(self) -> Check:
        """More iterations never hurt, and do not help for ever."""
        name, most = "more iterations do not hurt, and converge", self.attack.iterations
        needed = "no fall, and at most 5 points more from the last doubling"
        if most < 2:
            return Check(name=name, passed=None, measured=f"the attack has {most} iterations", needed=needed)
        counts = (max(most // 4, 1), most, 2 * most)
        found = [
            self._success(
                self.radius, attack=None if count == most else dataclasses.replace(self.attack, iterations=count)
            )
            for count in counts
        ]
        rates = [float(fooled.mean()) for fooled in found]
        falls = max(before - after for before, after in zip(rates, rates[1:], strict=False))
        return Check(
            name=name,
            passed=falls <= self.tolerance and rates[2] - rates[1] <= 0.05 + self.tolerance,
            measured=", ".join(f"{_percent(rate)} with {count}" for count, rate in zip(counts, rates, strict=True))
            + f" at ε = {self.radius:g}",
            needed=needed,
        )

    def restarts(self) -> Check:
        """Restarts with other seeds converge; taken as the worst case for each image they cannot hurt."""
        name, needed = "restarts converge", "at most 5 points more from the third"
        union = self._success(self.radius).copy()
        rates = [float(union.mean())]
        for restart in (1, 2):
            other = dataclasses.replace(self.attack, seed=self.attack.seed + restart)
            union |= self._success(self.radius, attack=other)
            rates.append(float(union.mean()))
            before, now = self._examples.get(self.radius), self._last_examples
            if restart == 1 and before is not None and now is not None and np.array_equal(before, now):
                return Check(name=name, passed=None, measured="nothing in the attack is random", needed=needed)
        return Check(
            name=name,
            passed=rates[2] - rates[1] <= 0.05 + self.tolerance,
            measured=", ".join(f"{_percent(rate)} with {count + 1}" for count, rate in enumerate(rates))
            + f" at ε = {self.radius:g}",
            needed=needed,
        )

    def huge_radius(self) -> Check:
        """Every image is fooled at some radius up to one at which the budget no longer binds.

        Radii double up to there, and smaller ones count, for their balls lie within: what is asked for is that an
        unbounded attacker wins, not that an attack made for small balls climbs well in a huge one.
        """
        height, width, channels = self.images.shape[1:]
        dense_entries = (height * width) ** 2 * channels
        size = self.attack.threat_model.kernel_size
        if size is not None:
            size = None if dense_entries <= _LARGEST_PLANS else max(size, _WIDE_WINDOW)
        threat_model = dataclasses.replace(self.attack.threat_model, kernel_size=size)
        farthest = np.hypot(height - 1, width - 1) if size is None else np.hypot(size // 2, size // 2)
        largest = float(farthest) ** threat_model.p
        if not threat_model.normalize_mass:
            largest *= float(self.images.sum(axis=(1, 2, 3)).max())
        few = np.arange(min(len(self.labels), max(1, min(32, _LARGEST_PLANS // dense_entries))))
        attack = dataclasses.replace(self.attack, threat_model=threat_model)
        fooled = np.logical_or.reduce([self._success(radius)[few] for radius in self.radii])
        radius = self.radii[-1]
        while radius < largest and not fooled.all():
            # From a radius of 0 there is no doubling.
            radius = min(2 * radius, largest) or largest
            fooled = fooled | self._success(radius, attack=attack, rows=few)
        reach = ""
        if radius > self.radii[-1]:
            reach = ", mass free to go " + ("anywhere" if size is None else f"within {size}×{size} pixels")
        return Check(
            name="a huge ε fools every image",
            passed=bool(fooled.all()),
            measured=f"{_percent(fooled.mean())} of {len(few)} images up to ε = {radius:.3g}{reach}",
            needed="100 %",
            masking=True,
        )

    def transfer(self) -> Check:
        """Examples made on another classifier fool this one less than those made on itself."""
        name, needed = "white-box beats transfer", "a rate at least as high"
        if self.surrogate is None:
            return Check(name=name, passed=None, measured="no other classifier was given", needed=needed)
        direct = self._success(self.radius)
        made = self.attack(
            self.surrogate, self.images, self.labels, radius=self.radius, batch_size=self.batch_size
        ).adversarial
        moved = metrics.predict(self.classifier, made, self.labels, from_logits=self.from_logits).wrong
        moved = moved | self._clean.wrong
        return Check(
            name=name,
            passed=bool(direct.mean() >= moved.mean() - self.tolerance),
            measured=f"{_percent(direct.mean())} white-box, {_percent(moved.mean())} by transfer "
            f"at ε = {self.radius:g}",
            needed=needed,
            masking=True,
        )

    def _success(self, radius: float, *, attack: Attack | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns which images are fooled; the attack under test is run once a radius."""
        if attack is None and radius in self._fooled:
            return self._fooled[radius]
        chosen = np.arange(len(self.labels)) if rows is None else rows
        if self._margin_gradient[1] is None:
            # Nothing to climb: only what is wrong clean is wrong, unless the attack is the random control.
            if attack is None or attack.uses_gradients:
                return self._clean.wrong[chosen]
        result = (attack or self.attack)(
            self.classifier,
            self.images[chosen],
            self.labels[chosen],
            radius=radius,
            from_logits=self.from_logits,
            batch_size=min(self.batch_size, len(chosen)),
        )
        fooled = np.asarray(result.success) | self._clean.wrong[chosen]
        self._last_examples = result.adversarial
        if attack is None:
            self._fooled[radius], self._examples[radius] = fooled, result.adversarial
        return fooled

    def _outputs(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.classifier(tf.constant(images), training=False), np.float64)

    @functools.cached_property
    def _margin_gradient(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The margin [n] at the images and its gradient [n, H, W, C], or None if the graph has no path."""
        logits_fn = as_logits_fn(self.classifier, self.from_logits)
        images = tf.constant(self.images)
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = margin(logits_fn(images), tf.constant(self.labels))
        return value, tape.gradient(value, images)


def train_surrogate(
    classifier: Callable[..., Any], images: np.ndarray, *, epochs: int = 60, seed: int = 0
) -> keras.Model:
    """Trains a classifier of another kind on what this one says: the black-box attacker's stand-in (Papernot 2017).

    Args:
      classifier: The classifier to imitate.
      images: What to ask it about, float [n, H, W, C].
      epochs: Passes over the images.
      seed: Of its initial weights.
    """
    outputs = np.concatenate(
        [
            np.asarray(classifier(tf.constant(images[row : row + 500]), training=False))
            for row in range(0, len(images), 500)
        ]
    )
    surrogate = models.build("mlp", images.shape[1:], outputs.shape[1], seed=seed)
    surrogate.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    surrogate.fit(images, outputs.argmax(axis=1), epochs=epochs, batch_size=64, verbose=0)
    return surrogate


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
