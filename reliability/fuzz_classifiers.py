"""Generated classifiers of many forms: is each attacked as its canonical form is, or refused in a sentence?"""

import pathlib
import random
import traceback
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from reliability import generated
from reliability.fuzz import Outcome, stopwatch
from wasser_tf import Classifier, MirrorAscent, ThreatModel
from wasser_tf.attacks import AttackResult, losses
from wasser_tf.evaluation import metrics
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.logits import as_logits_fn

# The right answers besides "refused".
AGREES, FLAGGED = "agrees", "flagged"


def fuzz_classifiers(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Attacks generated classifiers, first without any description, and with the full one where that is refused.

    Args:
      folder: May be written into.
      count: How many.
      seed: Of the choice.
    """
    chance = random.Random(seed)
    attack = MirrorAscent(ThreatModel(epsilon=0.01, kernel_size=3), iterations=2, polish=0)
    images = np.random.default_rng(5).uniform(size=(8, *generated.SHAPE)).astype(np.float32)
    expected = {}
    for classes in (2, 3):
        model = generated.reference(classes)
        labels = model.predict(images, verbose=0).argmax(axis=1)
        labels[:2] = (labels[:2] + 1) % classes
        expected[classes] = (
            labels,
            metrics.predict(model, images, labels),
            _logits_and_gradients(model, images, labels),
            attack(model, images, labels),
        )
    outcomes = []
    for number in range(count):
        case = generated.random_case(chance)
        taken, answers = stopwatch(), []
        for described in (False, True):
            answers.append(
                _outcome(case, described, number % 8 == 0, folder, attack, images, *expected[case.num_classes])
            )
            if answers[-1] != "refused":
                break
        outcomes.append(Outcome(taken() or answers[-1], f"{case}, {'described' if len(answers) > 1 else 'as it is'}"))
    return outcomes


def _outcome(
    case: generated.Generated,
    described: bool,
    attacked: bool,
    folder: pathlib.Path,
    attack: MirrorAscent,
    images: np.ndarray,
    labels: np.ndarray,
    clean: metrics.Predictions,
    answers: tuple[np.ndarray, np.ndarray],
    result: AttackResult,
) -> str:
    own, (expected_logits, expected_gradients) = case.own_images(images), answers
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            classifier = generated.make(case, folder)
            classifier = Classifier(classifier, **case.given_for(classifier)) if described else classifier
            predicted = metrics.predict(classifier, own, labels)
            logits, gradients = _logits_and_gradients(classifier, own, labels)
            # A whole attack takes most of the time.
            found = attack(classifier, own, labels) if attacked else None
    except ValueError as error:
        told = str(error).strip()
        return "refused" if told and "Traceback" not in told else f"without a sentence: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]} at {traceback.extract_tb(error.__traceback__)[-1]}"
    if any("flagged" in str(one.message) for one in warned):
        return FLAGGED
    if not np.array_equal(predicted.predicted, clean.predicted):
        return f"differs: {np.mean(predicted.wrong):.3f} wrong, {np.mean(clean.wrong):.3f} in canonical form"
    for name, one, other in (("logits", logits, expected_logits), ("gradients", gradients, expected_gradients)):
        if not np.allclose(one, other, rtol=1e-3, atol=1e-3):
            return f"differs: {name} by up to {np.abs(one - other).max():.2g}"
    if found is None:
        return AGREES
    if not np.array_equal(found.success, result.success):
        return f"differs: {np.mean(found.success):.3f} fooled, {np.mean(result.success):.3f} in canonical form"
    if not np.allclose(case.unit_images(found.adversarial), result.adversarial, atol=2e-2):
        return "differs: other examples"
    return AGREES


def _logits_and_gradients(classifier: Any, own: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits less their mean, and the gradients of the margin in canonical images, as attacks see them.

    Raises:
      ValueError: There are no gradients.
    """
    seen = prepare_images(classifier, own)
    logits_fn = as_logits_fn(seen.classifier, bool(seen.from_logits))

    @tf.function(autograph=False)
    def both(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = logits_fn(images)
            margin = losses.margin(logits, tf.constant(labels, tf.int32))
        return logits, tape.gradient(margin, images)

    logits, gradients = both(tf.constant(seen.images))
    if gradients is None:
        raise ValueError("The classifier's output does not depend on its input by differentiable operations.")
    return logits.numpy() - logits.numpy().mean(axis=1, keepdims=True), gradients.numpy()
