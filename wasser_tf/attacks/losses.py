"""Losses that attacks maximise: (logits [B, classes], labels [B]) -> [B]. A positive margin means misclassified."""

from collections.abc import Callable

import tensorflow as tf

AttackLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns −log p_y in nats."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns max_{j≠y} z_j − z_y, the paper's l0 (Eq. 5)."""
    is_label = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    others = tf.reduce_max(tf.where(is_label, logits.dtype.min, logits), axis=1)
    return others - tf.reduce_sum(tf.where(is_label, logits, 0.0), axis=1)


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the difference of logits ratio, margin / (z_(1) − z_(3)) (Croce and Hein, ICML 2020).

    It does not change when the logits are scaled or shifted. Two classes have no third logit; the loss is then the sign
    of the margin.
    """
    top = tf.math.top_k(logits, k=min(3, logits.shape[1])).values
    return margin(logits, labels) / tf.maximum(top[:, 0] - top[:, -1], 1e-12)


def towards(target: tf.Tensor) -> AttackLoss:
    """Returns the loss z_t − z_y towards one class t of each image, int32 [B]."""

    def loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.gather(logits, target, axis=1, batch_dims=1) - tf.gather(logits, labels, axis=1, batch_dims=1)

    return loss


def ranked_class(logits: tf.Tensor, labels: tf.Tensor, rank: tf.Tensor | int) -> tf.Tensor:
    """Returns the wrong class with the rank-th largest logit (1 is the largest) of each image, int32 [B]."""
    is_label = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    order = tf.math.top_k(tf.where(is_label, logits.dtype.min, logits), k=logits.shape[1]).indices
    return tf.gather(order, rank - 1, axis=1)


LOSSES: dict[str, AttackLoss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def get(name: str) -> AttackLoss:
    """Returns the loss with that name.

    Raises:
      ValueError: There is no such loss; the message lists all losses.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ValueError(f"Unknown attack loss {name!r}; there are {', '.join(LOSSES)}.")
    return LOSSES[name]
