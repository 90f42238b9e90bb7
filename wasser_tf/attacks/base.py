"""The protocol of all attacks: settings, the loop in which fooled images stop, batching and input checks.

An attack is one file with one class that perturbs a batch (`Attack.perturb`). `Attack.run` rounds its plans to feasible
ones, measures them and scores the examples (scoring.py), so no attack can return an example that was not checked.
"""

import abc
import dataclasses
import typing
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import compilation
from wasser_tf.attacks.inputs import check_memory
from wasser_tf.attacks.problem import Perturbation, Problem, choose
from wasser_tf.attacks.radius_schedule import RadiusSchedule
from wasser_tf.attacks.scoring import AttackResult, score, warn_of_flagged
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import (
    check_batch,
    check_label_range,
    check_labels,
    check_radius,
    num_classes,
    outputs_are_logits,
)
from wasser_tf.models.logits import LogitsFn
from wasser_tf.runtime.arguments import check_bool, check_whole
from wasser_tf.runtime.progress import Bar, show_progress
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Attack(abc.ABC):
    """Finds images in a Wasserstein ball that a classifier misclassifies.

    Subclasses declare their settings as annotated class attributes with defaults, as in a dataclass, check them in
    `__post_init__` and implement `perturb`. Every subclass is made a frozen dataclass: attacks are immutable,
    comparable, hashable, picklable and copyable, and `dataclasses.replace` makes a changed copy. In eager code call the
    attack itself; inside a graph (a training step) call `run`.

    A call attacks the classifier as it is at that moment: with its present weights, layers, trainable flags,
    quantisation and LoRA adapters (`wasser_tf.models.structure` lists what is recognised).

    Attributes:
      name: The name in the registry.
      in_wasserstein_ball: Whether its examples are made by moving mass, and so lie in the Wasserstein ball. Attacks
        that do not move mass are for training and figures; evaluations refuse them.
      has_radius: Whether the radius bounds its examples.
      skips_fooled: Whether a call leaves images that are already fooled out of its batches; such an attack is
        efficient on several batches at a time.
      uses_gradients: Whether it follows gradients of the classifier.
      preferred_for_checks: Whether an evaluation uses it, among several attacks, for minimal radii and sanity checks.
      threat_model: The ball. Its epsilon is the radius unless a call or the schedule gives another.
      iterations: The maximum number of iterations per image, I.
      schedule: None for a fixed radius, or how the radius grows with the iterations (images then stop once fooled).
      stop_when_fooled: Whether an image stops as soon as it is misclassified. Otherwise the attack keeps raising the
        loss.
      seed: Seed of all random draws, from 0 to 2**31 − 1.

    Raises:
      ValueError: A setting is out of its range; the message says what was given and what is needed.

    Example:
    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack = attacks.MirrorAscent(ThreatModel(epsilon=0.1), iterations=5)
    >>> attack(classifier, test.images[:4], test.labels[:4], radius=0.2).adversarial.shape
    (4, 8, 8, 1)
    >>> isinstance(attack, attacks.Attack), attack.get_config()["iterations"]
    (True, 5)
    """

    name: ClassVar[str]
    in_wasserstein_ball: ClassVar[bool] = True
    has_radius: ClassVar[bool] = True
    skips_fooled: ClassVar[bool] = False
    uses_gradients: ClassVar[bool] = True
    preferred_for_checks: ClassVar[bool] = False

    threat_model: ThreatModel = dataclasses.field(kw_only=False)
    iterations: int
    schedule: RadiusSchedule | None = None
    stop_when_fooled: bool = False
    seed: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A class without settings of its own keeps the constructor of its parent, which may be written by hand.
        new_settings = bool(cls.__dict__.get("__annotations__"))
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False, init=new_settings)(cls)
        # The methods of this class give the better message.
        del cls.__setattr__, cls.__delattr__

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            # Plain Python values, so that equal attacks have equal configs.
            if isinstance(value := getattr(self, field.name), np.generic):
                object.__setattr__(self, field.name, value.item())
        if not isinstance(self.threat_model, ThreatModel):
            raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {self.threat_model!r}.")
        check_whole("iterations", self.iterations, least=0, most=2**31 - 1)
        check_whole("seed", self.seed, least=0, most=2**31 - 1)
        if self.schedule is not None and not isinstance(self.schedule, RadiusSchedule):
            raise ValueError(f"schedule must be a wasser_tf.RadiusSchedule, or None, got {self.schedule!r}.")
        check_bool("stop_when_fooled", self.stop_when_fooled)

    def _refuse_change(self, name: str, *_: Any) -> NoReturn:
        raise dataclasses.FrozenInstanceError(
            f"attacks cannot be changed, but {name} was to be set or deleted; dataclasses.replace(attack, "
            "iterations=20) makes a changed copy."
        )

    @abc.abstractmethod
    def perturb(self, problem: Problem) -> Perturbation:
        """Finds a plan for every image of the batch. Graph code; shapes are static."""

    def check_warm_start(self) -> None:
        """Checks that the attack can start from the potentials that an earlier one ended with (`resume`).

        Raises:
          ValueError: It cannot.
        """
        raise ValueError(
            f"warm_start needs an attack whose plans are potentials, such as mirror_ascent; got {self.name}."
        )

    @property
    def supports_warm_start(self) -> bool:
        """Whether `check_warm_start` passes."""
        try:
            self.check_warm_start()
        except ValueError:
            return False
        return True

    def resume(self, problem: Problem, potential: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Attacks from the potentials that an earlier attack ended with; only where `check_warm_start` passes.

        Args:
          problem: The batch.
          potential: Φ of each image's plan, float32 [B, H, W, C]; 0 for an image without one.

        Returns:
          The feasible images [B, H, W, C], and the potentials Φ of their plans.
        """
        self.check_warm_start()
        raise NotImplementedError(f"{type(self).__name__} passes check_warm_start and must implement resume.")

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
          targets: The target class of each image, [B]; any wrong class by default.

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
        """Returns the problem of one batch, from the arguments of `run`."""
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
          classifier: A Keras model, any callable (images, training=False) -> logits or probabilities, or a
            `wasser_tf.Classifier` around one, which specifies what it takes and returns.
          images: Float array [n, H, W, C] in [0, 1], or as the classifier takes them.
          labels: Class indices [n], or one-hot [n, classes].
          radius: One radius, or one for each image; the threat model's epsilon by default.
          index: A number for each image, on which its random start depends, whatever its batch; 0 … n−1 by default.
          targets: The target class of each image, in the format of labels; any wrong class by default.
          from_logits: Whether the classifier returns logits; by default read from the model or inferred from its
            outputs.
          batch_size: Images at a time. It bounds memory and does not change the result.
          verbose: Whether to show a progress bar, or lines in a log.

        Returns:
          The result, as numpy arrays; its images are in the range and the order of those given.

        Warns:
          UserWarning: Images are flagged, see `AttackResult`.

        Raises:
          ValueError: The classifier does not take the input; the message says how to fix it.
        """
        seen = prepare_images(classifier, images, from_logits)
        classifier = seen.classifier
        if seen.graph_error:
            raise ValueError(
                f"The classifier cannot be traced as a TensorFlow graph ({seen.graph_error}): compute its outputs by "
                "operations of TensorFlow or keras.ops, not of NumPy, so that they have gradients."
            )
        images, labels = check_batch(classifier, seen.images, labels)
        # Functions and subclassed models do not declare the number of classes.
        check_label_range(labels, seen.num_classes)
        check_whole("batch_size", batch_size, least=1)
        count = len(images)
        radius = check_radius(self.threat_model.epsilon if radius is None else radius, count)
        targets = (
            None
            if targets is None
            else check_labels(np.asarray(targets), count, num_classes(classifier) or seen.num_classes)
        )
        index = np.arange(count, dtype=np.int32) if index is None else np.asarray(index)
        if index.shape != (count,) or not np.issubdtype(index.dtype, np.integer):
            raise ValueError(
                f"index must hold a whole number for each of the {count} images, got {index.dtype} {index.shape}."
            )
        index = index.astype(np.int32)
        from_logits = outputs_are_logits(classifier, images[:8]) if seen.from_logits is None else seen.from_logits
        attack_batch = compilation.compiled_attack(self, classifier, from_logits)
        size = batch_shape(count, batch_size)
        parts = []
        with Bar(count, "image", self.name, log=show_progress if verbose else None) as bar:
            for start in range(0, count, size):
                # The last batch is filled up with its last image, so that one shape is compiled.
                rows = np.minimum(np.arange(start, start + size), count - 1)
                # Tensors: with tf.config.run_functions_eagerly, functions would pass arrays through as they are.
                batch = [tf.constant(array[rows]) for array in (images, labels, radius, index)]
                result = attack_batch(*batch, None if targets is None else tf.constant(targets[rows]))
                kept = min(size, count - start)
                parts.append(tf.nest.map_structure(lambda field, kept=kept: field.numpy()[:kept], result))
                bar.update(start + kept)
        whole = tf.nest.map_structure(lambda *fields: np.concatenate(fields), *parts)
        if seen.unstable:
            whole = whole._replace(flagged=np.ones_like(whole.flagged))
        warn_of_flagged(whole.flagged)
        return whole._replace(adversarial=seen.restore(whole.adversarial), raw=seen.restore(whole.raw))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.ball()}; {self.iterations} iterations>"

    @property
    def can_perturb(self) -> bool:
        """Whether it can change an image at all."""
        return self.iterations > 0 and (self.schedule is not None or self.threat_model.epsilon > 0)

    def ball(self) -> str:
        """Describes in words where its examples lie."""
        return self.threat_model.describe()

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
            # The number of iterations is known beforehand: no condition is read back from an accelerator.
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
        """Returns the settings as plain Python values, from which `from_config` makes the same attack."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        for name, value in settings.items():
            if isinstance(value, (ThreatModel, RadiusSchedule)):
                settings[name] = value.get_config()
        return settings

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes the attack that `get_config` described."""
        config = dict(config)
        config["threat_model"] = ThreatModel.from_config(config["threat_model"])
        if config.get("schedule") is not None:
            config["schedule"] = RadiusSchedule(**config["schedule"])
        return cls(**config)


# Set here, for dataclasses refuse to make a class frozen that has them already.
Attack.__setattr__ = Attack.__delattr__ = Attack._refuse_change  # type: ignore[method-assign, assignment]


def batch_shape(count: int, batch_size: int) -> int:
    """Returns the number of images in a batch: the batch size, or the power of two that is enough for `count`."""
    return min(batch_size, 1 << (count - 1).bit_length())


def _no_perturbation(problem: Problem) -> Perturbation:
    plan = identity_plan(problem.images, problem.support)
    return Perturbation(plan, problem.images, problem.radius, tf.zeros_like(problem.labels))
