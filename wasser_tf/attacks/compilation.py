"""Compiled attacks, kept for each classifier for as long as it lives and its structure stays the same.

A compiled function is found by the classifier object, the attack's settings (attacks are compared by value) and the
structure of the classifier (`wasser_tf.models.structure`). Weights are variables, which a compiled function reads anew
in every call. The table holds classifiers weakly.
"""

import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from wasser_tf.models.classifier import CanonicalClassifier
from wasser_tf.models.description import Description
from wasser_tf.models.logits import as_logits_fn, compile_whole_graph
from wasser_tf.models.structure import Structure, structure_of

# The most recently used functions of a classifier: those of an ensemble's members at a few settings.
_FUNCTIONS_PER_CLASSIFIER = 32

_Functions = dict[tuple, tuple[Structure, Callable[..., Any]]]
_functions: "weakref.WeakKeyDictionary[Any, _Functions]" = weakref.WeakKeyDictionary()


def compiled_attack(attack: Any, classifier: Any, from_logits: bool) -> Callable[..., Any]:
    """Returns `attack.run` on a classifier as a compiled function of (images, labels, radius, index, targets).

    Args:
      attack: The attack, a `wasser_tf.attacks.Attack` (whose module imports this one).
      classifier: A Keras model or any callable (images, training=False) -> [B, classes]. The function refers to it
        weakly: the caller must hold it.
      from_logits: Whether the classifier returns logits.
    """
    whole_graph = compile_whole_graph(classifier)
    description = classifier.description if isinstance(classifier, CanonicalClassifier) else None
    # A canonical classifier is made anew for each call, the model within stays.
    classifier = classifier if description is None else classifier.model
    key = (attack, from_logits, whole_graph, description)
    try:
        hash(key)
        functions = _functions.setdefault(classifier, {})
    except TypeError:
        # A classifier without weak references or an attack with settings that cannot be hashed is compiled every time.
        return _compile(attack, lambda: classifier, from_logits, whole_graph, description)
    structure = structure_of(classifier)
    known = functions.pop(key, None)
    if known is None or known[0] != structure:
        known = (structure, _compile(attack, weakref.ref(classifier), from_logits, whole_graph, description))
    # Last in the order, as the most recently used.
    functions[key] = known
    while len(functions) > _FUNCTIONS_PER_CLASSIFIER:
        del functions[next(iter(functions))]
    return known[1]


def _compile(
    attack: Any,
    classifier: Callable[[], Any],
    from_logits: bool,
    whole_graph: bool,
    description: Description | None,
) -> Callable[..., Any]:
    @tf.function(reduce_retracing=False, jit_compile=whole_graph, autograph=False)
    def attack_batch(*batch: tf.Tensor | None) -> Any:
        model = classifier()
        seen = model if description is None else CanonicalClassifier(model, description)
        return attack.run(as_logits_fn(seen, from_logits), *batch)

    return attack_batch
