"""What all attacks share: the protocol, the loop in which fooled images stop, batching and input checks.

An attack is one file with one class that says how to perturb a batch (`Attack.perturb`). Rounding to a feasible plan, the
feasibility record and the scores are made by `Attack.run` (scoring.py), so that no attack can return an example that was not
checked.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks.inputs import (
    check_batch,
    check_labels,
    check_memory,
    check_radius,
    num_classes,
    outputs_are_logits,
)
from wasser_tf.attacks.problem import Perturbation, Problem, choose
from wasser_tf.attacks.radius_schedule import RadiusSchedule
from wasser_tf.attacks.scoring import AttackResult, score
from wasser_tf.models.logits import LogitsFn, as_logits_fn, compile_whole_graph
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan


class Attack(abc.ABC):
    """Finds images in a Wasserstein ball that a classifier gets wrong.

    Subclasses write `perturb`. In eager code call the attack itself; inside a graph (a training step) call `run`.

    Attributes:
      name: The name in the registry.
      in_wasserstein_ball: Whether its examples are made by moving mass, and so lie in the Wasserstein ball. One that does not is
        there to be trained on and drawn; no evaluation takes it.
      threat_model: The ball. Its epsilon is the radius unless a call or the schedule gives another.
      iterations: The most iterations an image gets, I.
      schedule: None for a fixed radius, or how the radius grows (images then stop when fooled).
      stop_when_fooled: Whether an image stops as soon as it is misclassified. Otherwise the attack goes
        on to raise the loss.
      seed: Of whatever is random in the attack.
    """

    name: ClassVar[str]
    in_wasserstein_ball: ClassVar[bool] = True

    def __init__(
        self,
        threat_model: ThreatModel,
        *,
        iterations: int,
        schedule: RadiusSchedule | None = None,
        stop_when_fooled: bool = False,
        seed: int = 0,
    ):
        if not isinstance(threat_model, ThreatModel):
            raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {threat_model!r}.")
        for setting, value in (("iterations", iterations), ("seed", seed)):
            if not is_whole(value, 0) or value >= 2**31:
                raise ValueError(f"{setting} must be a whole number of at least 0 and below 2**31, got {value!r}.")
        if schedule is not None and not isinstance(schedule, RadiusSchedule):
            raise ValueError(f"schedule must be a wasser_tf.RadiusSchedule, or None, got {schedule!r}.")
        if not isinstance(stop_when_fooled, bool):
            raise ValueError(f"stop_when_fooled must be True or False, got {stop_when_fooled!r}.")
        self.threat_model = threat_model
        self.iterations = iterations
        self.schedule = schedule
        self.stop_when_fooled = stop_when_fooled
        self.seed = seed
        self._compiled: tuple[Any, bool, Any] | None = None

    @abc.abstractmethod
    def perturb(self, problem: Problem) -> Perturbation:
        """Finds a plan for every image of the batch. Graph code; shapes are static."""

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        radius: tf.Tensor | float | None = None,
        index: tf.Tensor | None = None,
        targets: tf.Tensor | None = None,
    ) -> AttackResult:
        """Attacks one batch inside a graph; unused fields of the result cost nothing.

        Args:
          logits_fn: The classifier in inference mode, [B, H, W, C] to logits [B, classes].
          images: Float [B, H, W, C] in [0, 1], H, W, C static.
          labels: Class indices [B], or one-hot [B, classes].
          radius: Broadcastable to [B]; the threat model's epsilon by default.
          index: Numbers the images for random starts; their place in the batch by default.
          targets: The class each image shall be taken for, [B]; any wrong one by default.

        Returns:
          The result, as tensors.

        Raises:
          ValueError: The plans would not fit into memory.
        """
        problem = self.problem(logits_fn, images, labels, radius, index, targets)
        return score(problem, self.perturb(problem) if self.iterations else _no_perturbation(problem))

    def problem(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        radius: tf.Tensor | float | None = None,
        index: tf.Tensor | None = None,
        targets: tf.Tensor | None = None,
    ) -> Problem:
        """Returns what is to be solved for one batch, given what `run` is given."""
        images = tf.cast(images, tf.float32)
        if labels.shape.rank == 2:
            labels = tf.argmax(labels, axis=1)
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
        batch = tf.shape(images)[0]
        radius = self.threat_model.epsilon if radius is None else radius
        radius = tf.broadcast_to(tf.cast(radius, tf.float32), [batch])
        index = tf.range(batch) if index is None else index
        support = make_support(self.threat_model, tuple(images.shape[1:]))
        if self.in_wasserstein_ball:
            check_memory(support, images.shape[0] or 1)
        targets = None if targets is None else tf.cast(targets, tf.int32)
        return Problem(logits_fn, images, labels, radius, index, support, self.threat_model.rules, targets)

    def __call__(
        self,
        classifier: Callable[..., tf.Tensor],
        images: np.ndarray,
        labels: np.ndarray,
        *,
        radius: float | np.ndarray | None = None,
        index: np.ndarray | None = None,
        targets: np.ndarray | None = None,
        from_logits: bool | None = None,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> AttackResult:
        """Attacks any number of images, in batches of one static shape.

        Args:
          classifier: A Keras model, or any callable (images, training=False) -> logits or probabilities.
          images: Float array [n, H, W, C] in [0, 1].
          labels: Class indices [n], or one-hot [n, classes].
          radius: One radius, or one for each image; the threat model's epsilon by default.
          index: Numbers for random starts, so that an image gets the same start in any company; 0 … n−1 by default.
          targets: The class each image shall be taken for, as labels are given; any wrong one by default.
          from_logits: Whether the classifier returns logits; by default looked up on the model or told by its outputs.
          batch_size: Images at a time. It bounds memory and does not change the result.
          verbose: Whether to show a progress bar.

        Returns:
          The result, as numpy arrays.

        Raises:
          ValueError: The input is not what the classifier takes; the message says how to mend it.
        """
        images, labels = check_batch(classifier, images, labels)
        if not is_whole(batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
        count = len(images)
        radius = check_radius(self.threat_model.epsilon if radius is None else radius, count)
        targets = None if targets is None else check_labels(np.asarray(targets), count, num_classes(classifier))
        index = np.arange(count, dtype=np.int32) if index is None else np.asarray(index)
        if index.shape != (count,) or not np.issubdtype(index.dtype, np.integer):
            raise ValueError(
                f"index must hold a whole number for each of the {count} images, got {index.dtype} {index.shape}."
            )
        index = index.astype(np.int32)
        if from_logits is None:
            from_logits = outputs_are_logits(classifier, images[:8])
        attack_batch = self._compile(classifier, from_logits)
        size = batch_shape(count, batch_size)
        progress = keras.utils.Progbar(count, unit_name="image") if verbose else None
        parts = []
        for start in range(0, count, size):
            # The last batch is filled up with its last image: one shape, one compilation.
            rows = np.minimum(np.arange(start, start + size), count - 1)
            # Tensors, for functions that TensorFlow was told to run eagerly make none of arrays.
            batch = [tf.constant(array[rows]) for array in (images, labels, radius, index)]
            result = attack_batch(*batch, None if targets is None else tf.constant(targets[rows]))
            kept = min(size, count - start)
            parts.append(tf.nest.map_structure(lambda field, kept=kept: field.numpy()[:kept], result))
            if progress:
                progress.update(start + kept)
        return tf.nest.map_structure(lambda *fields: np.concatenate(fields), *parts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.ball()}; {self.iterations} iterations>"

    @property
    def can_perturb(self) -> bool:
        """Whether it can change an image at all."""
        return self.iterations > 0 and (self.schedule is not None or self.threat_model.epsilon > 0)

    def ball(self) -> str:
        """Says in words where its examples lie."""
        return str(self.threat_model)

    def radius_at(self, iteration: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Returns the radius of each image at an iteration, [B]."""
        if self.schedule is None:
            return problem.radius
        return tf.broadcast_to(self.schedule.radius(iteration), tf.shape(problem.radius))

    def iterate(
        self, step: Callable[[tf.Tensor, Any], tuple[Any, tf.Tensor]], state: Any, problem: Problem
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """Repeats a step; an image that is fooled keeps its state if the attack stops when fooled.

        Args:
          step: (iteration, state) -> (next state, whether each image is fooled in the state given, bool [B]).
          state: A structure of tensors whose first axis is the batch.
          problem: The batch.

        Returns:
          The last state, the radius of each image there [B], and the iterations used, int32 [B].
        """
        start = tf.constant(0)
        if not self.stop_when_fooled and self.schedule is None:
            # Known beforehand, how often: an accelerator need not be asked after every iteration.
            _, state = tf.while_loop(
                lambda iteration, state: iteration < self.iterations,
                lambda iteration, state: (iteration + 1, step(iteration, state)[0]),
                (start, state),
            )
            return state, self.radius_at(start, problem), tf.fill(tf.shape(problem.labels), self.iterations)

        def body(iteration: tf.Tensor, state: Any, radius: tf.Tensor, done: tf.Tensor, used: tf.Tensor) -> tuple:
            following, fooled = step(iteration, state)
            done |= fooled
            following = choose(done, state, following)
            radius = tf.where(done, radius, self.radius_at(iteration, problem))
            return iteration + 1, following, radius, done, used + tf.cast(~done, tf.int32)

        done = tf.zeros_like(problem.labels, tf.bool)
        used = tf.zeros_like(problem.labels)
        radius = self.radius_at(start, problem)
        _, state, radius, _, used = tf.while_loop(
            lambda iteration, state, radius, done, used: (iteration < self.iterations) & ~tf.reduce_all(done),
            body,
            (start, state, radius, done, used),
        )
        return state, radius, used

    def get_config(self) -> dict[str, Any]:
        """Returns plain Python values from which `from_config` makes the same attack."""
        return {
            "threat_model": self.threat_model.get_config(),
            "iterations": self.iterations,
            "schedule": None if self.schedule is None else self.schedule.get_config(),
            "stop_when_fooled": self.stop_when_fooled,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes the attack that `get_config` described."""
        config = dict(config)
        config["threat_model"] = ThreatModel.from_config(config["threat_model"])
        if config.get("schedule") is not None:
            config["schedule"] = RadiusSchedule(**config["schedule"])
        return cls(**config)

    def _compile(self, classifier: Any, from_logits: bool) -> Callable[..., AttackResult]:
        """Returns `run` as a compiled function; the last classifier's is kept."""
        if self._compiled is None or self._compiled[0] is not classifier or self._compiled[1] != from_logits:
            logits_fn = as_logits_fn(classifier, from_logits)

            @tf.function(reduce_retracing=False, jit_compile=compile_whole_graph(classifier), autograph=False)
            def attack_batch(*batch: tf.Tensor | None) -> AttackResult:
                return self.run(logits_fn, *batch)

            self._compiled = (classifier, from_logits, attack_batch)
        return self._compiled[2]


def batch_shape(count: int, batch_size: int) -> int:
    """Returns the images in a batch: a power of two up to the batch size, so that odd counts share a shape."""
    return min(batch_size, 1 << (count - 1).bit_length())


def _no_perturbation(problem: Problem) -> Perturbation:
    plan = identity_plan(problem.images, problem.support)
    return Perturbation(plan, problem.images, problem.radius, tf.zeros_like(problem.labels))
