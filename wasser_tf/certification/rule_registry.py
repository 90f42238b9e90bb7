"""The registry of rules, and how a layer's rule is found in it. Rules: rules.py, affine_rules.py."""

from collections.abc import Callable
from typing import Any, NamedTuple

from wasser_tf.certification.activations import ACTIVATIONS
from wasser_tf.certification.transforms import Transform


class Call(NamedTuple):
    """A layer, or an operation of keras.ops, and what it is called with.

    Attributes:
      layer: It.
      shapes: Of its inputs, without the batch.
      arguments: Positional arguments; those that are symbolic are inputs, the others constants.
    """

    layer: Any
    shapes: list[tuple[int, ...]]
    arguments: tuple[Any, ...]

    def refuse(self, reason: str) -> ValueError:
        """Returns the error that says why this layer cannot be bounded."""
        kind = type(self.layer).__name__
        return ValueError(f"The layer {self.layer.name!r} ({kind}) cannot be certified: {reason}.")


Rule = Callable[[Call], list[Transform]]
RULES: dict[type, Rule] = {}


def rule(*kinds: type) -> Callable[[Rule], Rule]:
    """Registers a rule for classes of layers."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def transforms_of(call: Call, *, any_precision: bool = False) -> list[Transform]:
    """Returns what a layer does, one after the other; `any_precision` allows layers that do not compute in float32.

    Raises:
      ValueError: There is no rule for it, or not for these settings; the message names it.
    """
    found = RULES.get(type(call.layer))
    if found is None:
        known = sorted({kind.__name__ for kind in RULES})
        raise call.refuse(
            f"there is no rule for it, only for {', '.join(known)}. Register one in wasser_tf.certification.rules.RULES"
        )
    precise = getattr(call.layer, "compute_dtype", "float32") in ("float32", "float64")
    if not precise and not any_precision:
        raise call.refuse(f"it computes in {call.layer.compute_dtype}, and float32 is needed: load it with that policy")
    if getattr(call.layer, "quantization_mode", None):
        raise call.refuse("it is quantised: certify the classifier before quantisation")
    if getattr(call.layer, "data_format", "channels_last") == "channels_first":
        raise call.refuse("it has the channels first, and images have them last")
    return found(call)


def activation_of(call: Call, function: Any) -> list[Transform]:
    """Returns what an activation function of a layer does: nothing, or one transform.

    Raises:
      ValueError: There is no rule for it; the message names it.
    """
    if function not in ACTIVATIONS:
        name = getattr(function, "__name__", function)
        known = sorted(known.__name__ for known in ACTIVATIONS)
        raise call.refuse(f"there is no rule for its activation {name}, only for {', '.join(known)}")
    found = ACTIVATIONS[function]
    return [] if found is None else [found]
