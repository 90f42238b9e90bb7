"""Classifiers: architectures by name, and loading from files."""

from wasser_tf.models.architectures import MODELS, blurred, build
from wasser_tf.models.loading import (
    load_classifier,
    load_keras,
    load_pretrained,
    load_published,
    model_name,
    returns_logits,
)

__all__ = [
    "MODELS",
    "blurred",
    "build",
    "load_classifier",
    "load_keras",
    "load_pretrained",
    "load_published",
    "model_name",
    "returns_logits",
]
