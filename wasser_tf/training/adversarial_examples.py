"""The adversarial examples of a WasserTrain step: image numbers, radii, chunks of a batch and warm starts."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.models.logits import LogitsFn
from wasser_tf.training.warm_start import Numbers, WarmStart

_GOLDEN_RATIO = 0.5 * (5**0.5 - 1)


def numbers_of_step(count: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Returns numbers for the images of a training step that no other step has.

    An attack with a random start derives the start from the number, so it draws a new one in every step. All replicas
    have batches of the same size and together get the numbers that a single replica with all images would get.

    Args:
      count: The number of images of this replica, int32 [].
      step: The number of the step, from 0, an integer [].

    Returns:
      The numbers, int32 [count].
    """
    context = tf.distribute.get_replica_context()
    batch = tf.cast(step, tf.int32) * context.num_replicas_in_sync
    return (batch + context.replica_id_in_sync_group) * count + tf.range(count)


def radii_of_step(
    attack: Attack, number: tf.Tensor, random_radius: bool, epsilon: tf.Tensor | float | None = None
) -> tf.Tensor:
    """Returns the radii of the images of a step.

    Args:
      attack: The attack, whose threat model has the largest radius.
      number: The numbers of the images, integers [B].
      random_radius: Whether each image has its own radius, uniform from 0 to the largest, as a function of its number.
      epsilon: The largest radius, a scalar, instead of the threat model's.

    Returns:
      The radii ε, float32 [B].
    """
    largest = attack.threat_model.epsilon if epsilon is None else epsilon
    radius = tf.fill(tf.shape(number), tf.cast(largest, tf.float32))
    return radius * spread_evenly(number) if random_radius else radius


def spread_evenly(number: tf.Tensor) -> tf.Tensor:
    """Maps whole numbers to [0, 1) such that consecutive numbers are evenly spread (Weyl's sequence).

    The result depends on the number alone, so it is the same with chunks, on replicas and in resumed runs.

    Args:
      number: Integers [B].

    Returns:
      The points, float32 [B].
    """
    return tf.cast(tf.math.floormod(tf.cast(number, tf.float64) * _GOLDEN_RATIO, 1.0), tf.float32)


def perturb_batch(
    attack: Attack,
    logits_fn: LogitsFn,
    batch: dict[str, tf.Tensor],
    *,
    chunk: int | None = None,
    warm_start: WarmStart | None = None,
    numbers: Numbers | None = None,
) -> tf.Tensor:
    """Attacks a batch within a training step.

    Args:
      attack: The attack.
      logits_fn: A function from images [B, H, W, C] to logits [B, classes].
      batch: The arguments of `attack.run` with a row for each image: "images" [B, H, W, C], "labels" [B], "radius" [B]
        and "index" [B].
      chunk: The maximum number of images that are attacked at a time, or None for all at once.
      warm_start: The potentials from which the attack starts and that it updates, or None.
      numbers: With `warm_start`, which training images these are. Without them, as in evaluation, the attack starts
        from scratch.

    Returns:
      The adversarial images, float32 [B, H, W, C], through which no gradient flows.
    """
    if warm_start is None or numbers is None:

        def run(rows: dict[str, tf.Tensor]) -> tuple[tf.Tensor]:
            return (attack.run(logits_fn, **rows).adversarial,)

        return tf.stop_gradient(map_in_chunks(run, batch, chunk, (tf.float32,))[0])

    def resume(rows: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        potential = rows.pop("potential")
        return attack.resume(attack.problem(logits_fn, **rows), potential)

    batch = {**batch, "potential": warm_start.potentials(numbers)}
    adversarial, potential = map_in_chunks(resume, batch, chunk, (tf.float32, tf.float32))
    warm_start.keep(numbers, potential)
    return tf.stop_gradient(adversarial)


def map_in_chunks(
    function: Callable[[dict[str, tf.Tensor]], tuple[tf.Tensor, ...]],
    batch: dict[str, tf.Tensor],
    chunk: int | None,
    dtypes: Sequence[tf.DType],
) -> tuple[tf.Tensor, ...]:
    """Calls a function on a batch, a chunk of its rows at a time, which bounds memory.

    Args:
      function: Takes a dict of tensors and returns a tuple of tensors, all with a row for each image.
      batch: The tensors, each [B, ...], "images" among them.
      chunk: The maximum number of rows at a time, or None for all at once.
      dtypes: The types of the results.

    Returns:
      The results, each [B, ...].
    """
    if chunk is None:
        return function(dict(batch))
    count = batch["images"].shape[0] or tf.shape(batch["images"])[0]
    # Chunks of equal size; the last is padded with the last image.
    chunks = -(-count // chunk)
    size = -(-count // chunks)
    rows = tf.minimum(tf.reshape(tf.range(chunks * size), [chunks, size]), count - 1)
    found = tf.map_fn(
        lambda rows: function({name: tf.gather(value, rows) for name, value in batch.items()}),
        rows,
        parallel_iterations=1,
        fn_output_signature=tuple(dtypes),
    )
    return tuple(tf.reshape(parts, [-1, *parts.shape[2:]])[:count] for parts in found)
