"""Loads a saved classifier for a run, and stops where it is no better than chance on the first images."""

import dataclasses
import math
from typing import Any

import numpy as np

from wasser_tf import models
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import metrics
from wasser_tf.models import Classifier, ModelOptions, canonical_of
from wasser_tf.models.classifier import CanonicalClassifier

# On fewer images than this, chance and a good classifier cannot be told apart.
_FEWEST, _MOST = 16, 256


def load_checked(path: str, options: ModelOptions, images: Selection, allow_chance_accuracy: bool = False) -> Any:
    """Loads a classifier as one of images [n, H, W, C] in [0, 1].

    Args:
      path: See `wasser_tf.models.load_classifier`.
      options: What is given about it.
      images: The images of the run.
      allow_chance_accuracy: Whether it may be no better than chance on the first of them.

    Raises:
      ValueError: It cannot be loaded, something must be given about it, or its natural accuracy is that of chance.
    """
    loaded = models.load_classifier(path, **options.of_file)
    shape = images.images.shape[1:]
    given = options.around(loaded)
    # A file of another library is a Classifier already.
    described = dataclasses.replace(loaded, **given) if isinstance(loaded, Classifier) else Classifier(loaded, **given)
    classifier = canonical_of(described, shape)
    if not allow_chance_accuracy:
        check_natural_accuracy(classifier, images.images[:_MOST], images.labels[:_MOST], str(path))
    return classifier


def check_natural_accuracy(classifier: Any, images: np.ndarray, labels: np.ndarray, name: str) -> None:
    """Checks that a classifier is better than chance, and no better on pixels of another range.

    Args:
      classifier: From `canonical_of`.
      images: Images in [0, 1], [n, H, W, C]; fewer than 16 are not looked at.
      labels: Their classes.
      name: What the message calls the classifier.

    Raises:
      ValueError: It is not.
    """
    if len(labels) < _FEWEST:
        return
    right = ~metrics.predict(classifier, images, labels).wrong
    accuracy, count = float(np.mean(right)), len(right)
    found = f"{name} classifies {100 * accuracy:.1f} % of the first {count} images correctly"
    if (other := _accuracy_on_eight_bits(classifier, images, labels)) is not None and other > accuracy + 0.1:
        raise ValueError(
            f"{found} with pixels in [0, 1], and {100 * other:.1f} % with pixels in [0, 255]: give --input_range=0,255 "
            "if it was trained on those, or --allow_chance_accuracy to go on as it is."
        )
    classes = classifier.output_shape[-1] if isinstance(getattr(classifier, "output_shape", None), tuple) else None
    chance = 1 / (classes or max(2, int(labels.max()) + 1))
    if accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / count):
        raise ValueError(
            f"{found}, no better than chance ({100 * chance:.1f} %): check --dataset, the order of the classes, and "
            "what the classifier takes and returns (--input_range, --data_format, --output, --returns), or give "
            "--allow_chance_accuracy to go on."
        )


def _accuracy_on_eight_bits(classifier: Any, images: np.ndarray, labels: np.ndarray) -> float | None:
    """Returns the accuracy on pixels in [0, 255], where neither the user nor the layers specify the range."""
    if isinstance(classifier, CanonicalClassifier):
        model, description = classifier.model, classifier.description
        if description.range_was_given or description.input_range != (0.0, 1.0):
            return None
    else:
        description = Classifier(classifier).describe(images.shape[1:])
        model = classifier
    if description.range_was_found:
        return None
    other = CanonicalClassifier(model, dataclasses.replace(description, input_range=(0.0, 255.0), plain=False))
    return float(np.mean(~metrics.predict(other, images, labels).wrong))
