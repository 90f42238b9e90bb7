"""Sanity checks after Carlini et al. 2019, "On evaluating adversarial robustness": is an attack's failure meaningful?

A gradient-based attack fails on a robust classifier, but also on a classifier whose gradients carry no information
(gradient masking). Each check measures a property that a sound attack on a classifier without masking always has; if
one fails, the robust accuracy is not reliable.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from wasser_tf import attacks
from wasser_tf.attacks import Attack
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.check import Check
from wasser_tf.evaluation.classifier_checks import ClassifierChecker
from wasser_tf.runtime import interruption
from wasser_tf.runtime.formatting import percent
from wasser_tf.runtime.progress import Progress

# Limit on the entries of the dense plans of all images together: the check of a huge radius takes fewer images above
# it, and a wide window instead of dense plans if one image alone exceeds it.
_LARGEST_PLANS = 8_000_000
_WIDE_WINDOW = 9


class SanityChecker(ClassifierChecker):
    """Checks one classifier under one white-box attack; each public method is a check, and `run` makes all of them.

    >>> import numpy as np
    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> attack = attacks.make("mirror_ascent", ThreatModel(), iterations=4)
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> checker = SanityChecker(classifier, attack, test.images[:8], test.labels[:8], radii=[0.1, 0.3])
    >>> checker.deterministic().passed
    True

    Attributes:
      attack: The white-box attack under test, without its radius schedule.
      radii: The radii of the evaluation, in ascending order.
      tolerance: How far a share may be on the wrong side: the share of one image plus 0.01.
      surrogate: The classifier on which transfer attacks are made, or None.
      batch_size: Images attacked at a time.
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
        """Initialises the checker.

        Args:
          classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
          attack: The white-box attack under test.
          images: Float [n, H, W, C] in [0, 1].
          labels: Class indices [n], or one-hot.
          radii: The radii of the evaluation, at least one.
          surrogate: A classifier on which transfer attacks are made; without one, that check is skipped.
          batch_size: Images attacked at a time.

        Raises:
          ValueError: There is no radius, or the classifier does not accept the images.
        """
        if not radii:
            raise ValueError("radii must hold at least one radius, got none.")
        super().__init__(classifier, images, labels)
        self.attack = dataclasses.replace(attack, schedule=None)
        self.radii = tuple(sorted(radii))
        self.tolerance = 0.01 + 1 / len(self.labels)
        self.surrogate = surrogate
        self.batch_size = batch_size
        self._clean = metrics.predict(self.classifier, self.images, self.labels, from_logits=self.from_logits)
        self._fooled: dict[float, np.ndarray] = {}
        self._examples: dict[float, np.ndarray] = {}
        self._last_examples: np.ndarray | None = None

    @functools.cached_property
    def radius(self) -> float:
        """The radius of most checks: the one whose success rate is closest to one half, where a change is most visible.

        Of equally close radii, the largest: if success does not grow with the radius at all, gradients are masked.
        """
        return min(self.radii, key=lambda radius: (abs(float(np.mean(self._success(radius))) - 0.5), -radius))

    def run(self, log: Callable[[str], None] | None = None) -> list[Check]:
        """Makes all checks, the cheap ones first.

        Args:
          log: Takes a line for each finished check.

        Returns:
          The checks.

        Raises:
          Interrupted: A signal requested the run to stop.
        """
        checks = []
        makers = (
            self.deterministic,
            self.independent_of_batch,
            self.gradients,
            self.grows_with_radius,
            self.stronger_than_random,
            self.more_iterations,
            self.restarts,
            self.huge_radius,
            self.transfer,
        )
        with Progress([make.__name__ for make in makers], log, unit="check") as meter:
            for make in makers:
                interruption.raise_if_requested()
                begin = time.perf_counter()
                checks.append(make())
                state = {True: "passed", False: "FAILED", None: "skipped"}[checks[-1].passed]
                line = f"{checks[-1].name}: {state}, {checks[-1].measured}"
                meter.done(make.__name__, time.perf_counter() - begin, line)
        return checks

    def grows_with_radius(self) -> Check:
        """Checks that success grows with the radius."""
        rates = [float(np.mean(self._success(radius))) for radius in self.radii]
        return Check(
            name="success grows with ε",
            passed=all(after >= before - self.tolerance for before, after in zip(rates, rates[1:], strict=False)),
            measured=", ".join(
                f"{percent(rate, 1)} at {radius:g}" for radius, rate in zip(self.radii, rates, strict=True)
            ),
            needed="no decrease",
            masking=True,
        )

    def stronger_than_random(self) -> Check:
        """Checks that the attack is stronger than a random feasible plan of the same cost."""
        control = attacks.make("random_plan", self.attack.threat_model, seed=self.attack.seed)
        random, found = self._success(self.radius, attack=control), self._success(self.radius)
        clean = float(np.mean(self._clean.wrong))
        stronger = found.mean() > random.mean() or found.mean() == 1
        return Check(
            name="the attack is stronger than a random plan",
            passed=bool(stronger and np.mean(random & ~found) <= self.tolerance),
            measured=f"{percent(found.mean(), 1)} against {percent(random.mean(), 1)} at ε = {self.radius:g} "
            f"({percent(clean, 1)} misclassified clean)",
            needed="a higher rate, and no image that only the random plan fools",
            masking=True,
        )

    def more_iterations(self) -> Check:
        """Checks that more iterations do not reduce success, and that success converges."""
        name, most = "more iterations do not hurt, and converge", self.attack.iterations
        needed = "no decrease, and at most 5 points more from the last doubling"
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
            measured=", ".join(f"{percent(rate, 1)} with {count}" for count, rate in zip(counts, rates, strict=True))
            + f" at ε = {self.radius:g}",
            needed=needed,
        )

    def restarts(self) -> Check:
        """Checks that the worst case over restarts with other seeds converges.

        The worst case is taken per image, so a restart cannot reduce success.
        """
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
            measured=", ".join(f"{percent(rate, 1)} with {count + 1}" for count, rate in enumerate(rates))
            + f" at ε = {self.radius:g}",
            needed=needed,
        )

    def huge_radius(self) -> Check:
        """Checks that every image is fooled at some radius, up to the radius at which the budget no longer binds.

        The radius doubles up to there. Successes at smaller radii count, because balls are nested: an unbounded
        attacker must succeed, but an attack designed for small balls need not optimise well in a huge one.
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
            # Doubling a radius of 0 would not increase it.
            radius = min(2 * radius, largest) or largest
            fooled = fooled | self._success(radius, attack=attack, rows=few)
        reach = ""
        if radius > self.radii[-1]:
            reach = ", mass may move " + ("anywhere" if size is None else f"within {size}×{size} pixels")
        return Check(
            name="a huge ε fools every image",
            passed=bool(fooled.all()),
            measured=f"{percent(fooled.mean(), 1)} of {len(few)} images up to ε = {radius:.3g}{reach}",
            needed="100 %",
            masking=True,
        )

    def transfer(self) -> Check:
        """Checks that examples made on another classifier fool this one less than examples made on itself."""
        name, needed = "white-box beats transfer", "a rate at least as high"
        if self.surrogate is None:
            return Check(name=name, passed=None, measured="no other classifier was given", needed=needed)
        direct = self._success(self.radius)
        made = self.attack(
            self.surrogate, self.images, self.labels, radius=self.radius, batch_size=self.batch_size
        ).adversarial
        transferred = metrics.predict(self.classifier, made, self.labels, from_logits=self.from_logits).wrong
        transferred = transferred | self._clean.wrong
        return Check(
            name=name,
            passed=bool(direct.mean() >= transferred.mean() - self.tolerance),
            measured=f"{percent(direct.mean(), 1)} white-box, {percent(transferred.mean(), 1)} by transfer "
            f"at ε = {self.radius:g}",
            needed=needed,
            masking=True,
        )

    def _success(self, radius: float, *, attack: Attack | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns which images are fooled, [m]; the attack under test runs once per radius.

        Args:
          radius: The radius.
          attack: Another attack to run; the attack under test by default, whose results are cached.
          rows: Positions of the m images to attack; all by default.
        """
        if attack is None and radius in self._fooled:
            return self._fooled[radius]
        chosen = np.arange(len(self.labels)) if rows is None else rows
        if self._margin_gradient[1] is None:
            # Without gradients only images that are misclassified clean count as fooled; the random control needs none.
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
