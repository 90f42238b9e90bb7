"""What all attacks share: the protocol, the result, the loop in which fooled images stop, batching and input checks.

An attack is one file with one class that says how to perturb a batch (`Attack.perturb`). Rounding to a legal plan, the
certificate and the scores are made here, so that no attack can return an example that was not checked.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

# Keras takes it from there too.
from tensorflow.python.framework.config import is_op_determinism_enabled

from wasser_tf._checks import is_whole
from wasser_tf.attacks import losses
from wasser_tf.attacks.inputs import (
    check_batch,
    check_labels,
    check_memory,
    check_radius,
    num_classes,
    outputs_are_logits,
)
from wasser_tf.attacks.radius_schedule import RadiusSchedule
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.certificate import Certificate, certify, certify_without_plan
from wasser_tf.transport.gibbs import GibbsPlan, explicit_plan
from wasser_tf.transport.neighbourhood import Support, make_support
from wasser_tf.transport.plan import identity_plan, transport_budget
from wasser_tf.transport.rounding import Rounded, legal_plan, round_to_legal

# Of a margin: what float32 can make of nothing.
_ROUNDING = 1e-5

LogitsFn = Callable[[tf.Tensor], tf.Tensor]


class AttackResult(NamedTuple):
    """Examples and what is known of them; arrays from `Attack.__call__`, tensors from `Attack.run`.

    Attributes:
      adversarial: The certified examples x̃, float32 [B, H, W, C]: legal, and in [0, 1] exactly. Of an attack that does
        not transport they are `raw`, and their certificate is not valid where anything was changed.
      certificate: Their certificate, fields [B].
      success: Whether the classifier is wrong on them, or sees the target where there is one, bool [B].
      loss: Their cross-entropy in nats, [B].
      radius: The radius the attack was allowed (where an adaptive radius stopped), [B].
      iterations: Iterations used, int32 [B].
      raw: What the attack made before it was certified (what papers score), [B, H, W, C]. It may be illegal.
      raw_certificate: How illegal it is.
      raw_success: As `success`, for `raw`.
      raw_loss: As `loss`, for `raw`.
      flagged: Whether the classifier gave the attack nothing to go by at the clean image: no finite gradient of the
        margin but rounding, or outputs that are not finite. That the attack failed there proves nothing; bool [B].
    """

    adversarial: Any
    certificate: Certificate
    success: Any
    loss: Any
    radius: Any
    iterations: Any
    raw: Any
    raw_certificate: Certificate
    raw_success: Any
    raw_loss: Any
    flagged: Any = False

    def __repr__(self) -> str:
        # In the place of every number.
        shape = f"{type(self).__name__} of {tuple(self.adversarial.shape)}"
        if not isinstance(self.success, np.ndarray):
            return f"<{shape}>"
        return f"<{shape}: {self.success.sum()} successful, raw {self.raw_success.sum()}; {self.certificate!r}>"


class Problem(NamedTuple):
    """One batch to attack.

    Attributes:
      logits_fn: The classifier in inference mode, [B, H, W, C] to float32 logits [B, classes].
      images: x, float32 in [0, 1], [B, H, W, C].
      labels: y, int32 [B].
      radius: The radius of each image, float32 [B].
      index: A number for each image, int32 [B]; random starts depend on it and not on the place in the batch.
      support: Where mass may go.
      threat_model: The rules (`ThreatModel.rules`); the radius is above.
      targets: The class each image shall be taken for, int32 [B], or None: any wrong one.
    """

    logits_fn: LogitsFn
    images: tf.Tensor
    labels: tf.Tensor
    radius: tf.Tensor
    index: tf.Tensor
    support: Support
    threat_model: ThreatModel
    targets: tf.Tensor | None = None

    def fooled(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns whether the attacker has what it wants, bool [B]: a wrong class, or the target."""
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
        return predicted != self.labels if self.targets is None else predicted == self.targets

    def margin(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns how far the attacker has what it wants, [B]: above 0 where `fooled`."""
        return losses.margin(logits, self.labels) if self.targets is None else -losses.margin(logits, self.targets)

    def budget(self, radius: tf.Tensor) -> tf.Tensor:
        """Returns the largest ⟨Π, C⟩ of each image at a radius, [B]."""
        return transport_budget(self.images, radius, self.threat_model)


class Perturbation(NamedTuple):
    """What `Attack.perturb` returns.

    Attributes:
      plan: The plan found, [B, T, H, W, C], or a Gibbs plan; it need not be legal. None of an attack that does not
        transport.
      raw: The image as the attack's paper returns it, [B, H, W, C].
      radius: The radius of each image, [B].
      iterations: Iterations used by each image, int32 [B].
    """

    plan: tf.Tensor | GibbsPlan | None
    raw: tf.Tensor
    radius: tf.Tensor
    iterations: tf.Tensor


class Gradient(NamedTuple):
    """The loss at a batch of images, its gradient [B, H, W, C] (non-finite entries are 0), and which are fooled [B]."""

    loss: tf.Tensor
    image_gradient: tf.Tensor
    fooled: tf.Tensor


class Attack(abc.ABC):
    """Finds images in a Wasserstein ball that a classifier gets wrong.

    Subclasses write `perturb`. In eager code call the attack itself; inside a graph (a training step) call `run`.

    Attributes:
      name: The name in the registry.
      transports: Whether its examples are made by moving mass, and so lie in the Wasserstein ball. One that does not is
        there to be trained on and drawn; no evaluation takes it.
      threat_model: The ball. Its epsilon is the radius unless a call or the schedule gives another.
      iterations: The most iterations an image gets, I.
      schedule: None for a fixed radius, or how the radius grows (images then stop when fooled).
      stop_when_fooled: Whether an image stops as soon as it is misclassified. Otherwise the attack goes
        on to raise the loss.
      seed: Of whatever is random in the attack.
    """

    name: ClassVar[str]
    transports: ClassVar[bool] = True

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
        if self.transports:
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
    def moves(self) -> bool:
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
        stop = self.stop_when_fooled or self.schedule is not None

        def body(iteration: tf.Tensor, state: Any, radius: tf.Tensor, done: tf.Tensor, used: tf.Tensor) -> tuple:
            following, fooled = step(iteration, state)
            if stop:
                done |= fooled
                following = choose(done, state, following)
            radius = tf.where(done, radius, self.radius_at(iteration, problem))
            return iteration + 1, following, radius, done, used + tf.cast(~done, tf.int32)

        done = tf.zeros_like(problem.labels, tf.bool)
        used = tf.zeros_like(problem.labels)
        radius = self.radius_at(tf.constant(0), problem)
        _, state, radius, _, used = tf.while_loop(
            lambda iteration, state, radius, done, used: (iteration < self.iterations) & ~tf.reduce_all(done),
            body,
            (tf.constant(0), state, radius, done, used),
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


def rounded(perturbation: Perturbation, problem: Problem) -> Rounded:
    """Returns the legal images that the plans of a perturbation are rounded to."""
    return _round_to_legal(
        perturbation.plan, problem.images, problem.support, perturbation.radius, problem.threat_model
    )


def explicit(plan: tf.Tensor | GibbsPlan, images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the plan itself, [B, T, H, W, C]."""
    return _explicit_plan(plan, images, support) if isinstance(plan, GibbsPlan) else plan


def _no_perturbation(problem: Problem) -> Perturbation:
    plan = identity_plan(problem.images, problem.support)
    return Perturbation(plan, problem.images, problem.radius, tf.zeros_like(problem.labels))


def score(problem: Problem, perturbation: Perturbation) -> AttackResult:
    """Rounds a perturbation to a legal plan, certifies it and asks the classifier.

    Where the example's margin is not above that of the clean image, or not a number, that is returned unmoved.
    Without a plan the raw images are scored as they are.
    """
    if perturbation.plan is None:
        return _score_without_plan(problem, perturbation)
    images, support, threat_model, radius = problem.images, problem.support, problem.threat_model, perturbation.radius
    legal = rounded(perturbation, problem)
    with tf.GradientTape() as tape:
        tape.watch(images)
        clean_logits = problem.logits_fn(images)
        clean_margin = problem.margin(clean_logits)
    legal_logits = problem.logits_fn(legal.image)
    # The clean image is legal too. A margin is a maximum, which may pass over a NaN.
    unmoved = ~(problem.margin(legal_logits) > clean_margin) | _not_finite(legal_logits) | _not_finite(clean_logits)
    legal = legal._replace(image=where_image(unmoved, images, legal.image), step=tf.where(unmoved, 0.0, legal.step))
    certificate, raw_certificate = _certificates(
        perturbation.plan, perturbation.raw, legal, images, support, radius, threat_model
    )
    logits, raw_logits = where_image(unmoved, clean_logits, legal_logits), problem.logits_fn(perturbation.raw)
    return AttackResult(
        adversarial=legal.image,
        certificate=certificate,
        success=problem.fooled(logits),
        loss=losses.cross_entropy(logits, problem.labels),
        radius=radius,
        iterations=perturbation.iterations,
        raw=perturbation.raw,
        raw_certificate=raw_certificate,
        raw_success=problem.fooled(raw_logits),
        raw_loss=losses.cross_entropy(raw_logits, problem.labels),
        flagged=_not_finite(clean_logits)
        | _not_finite(legal_logits)
        | is_blind(tape.gradient(clean_margin, images), clean_margin),
    )


def _score_without_plan(problem: Problem, perturbation: Perturbation) -> AttackResult:
    raw = perturbation.raw
    certificate = certify_without_plan(raw, problem.images, perturbation.radius)
    logits = problem.logits_fn(raw)
    success, loss = problem.fooled(logits), losses.cross_entropy(logits, problem.labels)
    return AttackResult(
        adversarial=raw,
        certificate=certificate,
        success=success,
        loss=loss,
        radius=perturbation.radius,
        iterations=perturbation.iterations,
        raw=raw,
        raw_certificate=certificate,
        raw_success=success,
        raw_loss=loss,
        flagged=_not_finite(logits),
    )


def is_blind(gradient: tf.Tensor | None, margin: tf.Tensor) -> tf.Tensor:
    """Returns where the gradient [B, H, W, C] of a margin [B] is not finite, nothing but rounding, or None, bool [B].

    A saturated softmax is 1 in float32, or 1 − 6e-8, as the machine has it: its gradient is 0, or next to it.
    """
    if gradient is None:
        return tf.ones_like(margin, tf.bool)
    flat = tf.reshape(gradient, [tf.shape(gradient)[0], -1])
    return _not_finite(flat) | (tf.reduce_max(tf.abs(flat), axis=1) <= _ROUNDING * tf.abs(margin))


def _not_finite(rows: tf.Tensor) -> tf.Tensor:
    return ~tf.reduce_all(tf.math.is_finite(rows), axis=1)


# Compiled by itself, and so are the certificates: where a graph does not ask for them, it does not make the plans.
_round_to_legal = tf.function(round_to_legal, jit_compile=True, autograph=False)
_explicit_plan = tf.function(explicit_plan, jit_compile=True, autograph=False)


@tf.function(jit_compile=True, autograph=False)
def _certificates(
    plan: tf.Tensor | GibbsPlan,
    raw: tf.Tensor,
    legal: Rounded,
    images: tf.Tensor,
    support: Support,
    radius: tf.Tensor,
    threat_model: ThreatModel,
) -> tuple[Certificate, Certificate]:
    """Returns the certificates of the legal image that a plan was rounded to, and of the raw one and the plan itself.

    In one function, for both plans are made of the same factors, and no plan passes through memory between two.
    """
    return (
        certify(legal_plan(plan, legal, images, support), legal.image, images, support, radius, threat_model),
        certify(explicit(plan, images, support), raw, images, support, radius, threat_model),
    )


def image_gradient(problem: Problem, images: tf.Tensor, loss: losses.AttackLoss) -> Gradient:
    """Returns the loss at images [B, H, W, C], its gradient, and which images are fooled."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = problem.logits_fn(images)
        # Towards a target the loss of that class falls.
        value = loss(logits, problem.labels) if problem.targets is None else -loss(logits, problem.targets)
    gradient = tape.gradient(value, images)
    if gradient is None:
        raise ValueError("The classifier's output does not depend on its input by differentiable operations.")
    return Gradient(
        loss=value,
        image_gradient=tf.where(tf.math.is_finite(gradient), gradient, 0.0),
        fooled=problem.fooled(logits),
    )


def where_image(condition: tf.Tensor, chosen: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns tf.where for a condition on whole images, [B] against [B, …]."""
    return tf.where(tf.reshape(condition, [-1] + [1] * (chosen.shape.rank - 1)), chosen, other)


def choose(condition: tf.Tensor, chosen: Any, other: Any) -> Any:
    """Returns `where_image` on every tensor of two equal structures."""
    return tf.nest.map_structure(lambda new, old: where_image(condition, new, old), chosen, other)


def as_logits_fn(classifier: Callable[..., tf.Tensor], from_logits: bool) -> LogitsFn:
    """Returns the classifier in inference mode with float32 logits out, whatever it gives itself.

    Logits that a Keras softmax was made of are taken where they can be had, because a saturated softmax has no
    gradient; otherwise logarithms of the probabilities, which are logits too.
    """
    # No graph here is made by AutoGraph, whose conversion takes as long as XLA. A callable of a user may need it, a
    # Keras model does without, as in Keras' own `fit`.
    in_graph = classifier if isinstance(classifier, keras.Model) else tf.function(classifier)

    def logits_fn(images: tf.Tensor) -> tf.Tensor:
        outputs = (in_graph if tf.inside_function() else classifier)(images, training=False)
        if from_logits:
            return tf.cast(outputs, tf.float32)
        before_softmax = getattr(outputs, "_keras_logits", None)
        if before_softmax is not None:
            return tf.cast(before_softmax, tf.float32)
        return tf.math.log(tf.maximum(tf.cast(outputs, tf.float32), 1e-30))

    return logits_fn


def compile_whole_graph(classifier: Any) -> bool:
    """Returns whether whole attacks on a classifier are compiled by XLA: on a GPU.

    On a CPU a convolution inside an XLA loop runs three times slower than outside one, so there the loop is a graph and
    only the transport steps in it are compiled. The same goes on a GPU for a classifier with max pooling where
    operations shall be deterministic: XLA has no such gradient of it and refuses, TensorFlow has one.
    """
    if not tf.config.list_logical_devices("GPU"):
        return False
    return not (is_op_determinism_enabled() and _pools_by_max(classifier))


def _pools_by_max(layer: Any) -> bool:
    """Whether a layer is max pooling or has some in it, as far as Keras knows its parts."""
    pooling = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
    return isinstance(layer, pooling) or any(map(_pools_by_max, getattr(layer, "layers", ())))
