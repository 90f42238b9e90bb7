"""Classifiers: architectures by name, and loading from files."""

from wasser_tf.models.architectures import MODELS, blurred, build, check_architecture
from wasser_tf.models.classifier import CanonicalClassifier, Classifier
from wasser_tf.models.conversion import canonical_of
from wasser_tf.models.layered import as_layers
from wasser_tf.models.loading import (
    load_classifier,
    load_keras,
    load_pretrained,
    load_published,
    model_name,
    returns_logits,
)
from wasser_tf.models.options import ModelOptions
from wasser_tf.models.precision import with_precision

__all__ = [
    "MODELS",
    "CanonicalClassifier",
    "Classifier",
    "ModelOptions",
    "as_layers",
    "blurred",
    "build",
    "canonical_of",
    "check_architecture",
    "load_classifier",
    "load_keras",
    "load_pretrained",
    "load_published",
    "model_name",
    "returns_logits",
    "with_precision",
]
