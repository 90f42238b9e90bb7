"""A Keras classifier as a list of transforms: the graph of its layers, those of models within it included."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from wasser_tf.certification.rules import RULES, Call, transforms_of
from wasser_tf.certification.transforms import Affine, Interval, Transform


class Node(NamedTuple):
    """One step.

    Attributes:
      transform: What it does; None for the image itself.
      inputs: The numbers of the nodes it reads.
      shape: Of its output, without the batch.
      terms: Where it is affine in the image, the roundings between the image and it; None elsewhere.
      divided: Whether it is affine in x / m(x) and not in x; only where it is affine.
      is_image: Whether it is the image itself, in another shape or with zeros around it.
    """

    transform: Transform | None
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    terms: int | None = None
    divided: bool = False
    is_image: bool = False

    @property
    def affine_in_image(self) -> bool:
        """Whether it is an affine map of the image, or of the image divided by its mass."""
        return self.terms is not None


class Network:
    """The nodes of a classifier, each after those it reads, the image first and the logits last.

    Attributes:
      nodes: They.
      image_shape: (H, W, C).
      softmax: Whether the classifier ends in a softmax, which is left out.

    Raises:
      ValueError: It is no Keras model made of layers, or there is no rule for one of them.
    """

    def __init__(self, classifier: Any, *, any_precision: bool = False):
        self._any_precision = any_precision
        classifier = getattr(classifier, "classifier", classifier)
        functional = _functional(classifier)
        shape = classifier.input_shape
        if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
            raise ValueError(
                f"The classifier must take one batch of images [n, height, width, channels] of a fixed size, got "
                f"{shape}: give its keras.Input that shape."
            )
        self.image_shape: tuple[int, int, int] = shape[1:]
        self.nodes: list[Node] = [Node(None, (), self.image_shape, terms=1, is_image=True)]
        self.softmax = False
        outputs = self._walk(functional, [0])
        if len(outputs) != 1 or len(self.nodes[outputs[0]].shape) != 1:
            raise ValueError("The classifier must have one output, logits or probabilities [n, classes].")
        self.output = outputs[0]
        if self.num_classes < 2:
            raise ValueError(
                "The classifier has one output, which has no margin over another class: give it two logits, or "
                "describe it by wasser_tf.Classifier."
            )

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return self.nodes[self.output].shape[0]

    def _walk(self, model: Any, inputs: list[int]) -> list[int]:
        known = {id(tensor): number for tensor, number in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                # Without a rule it is refused below for that: preprocessing layers have training=True by default.
                known_kind = isinstance(node.operation, keras.Model) or type(node.operation) in RULES
                if known_kind and node.arguments.kwargs.get("training"):
                    raise ValueError(
                        f"The layer {node.operation.name!r} is called with training=True, so the classifier is not "
                        "the one of inference: build it without."
                    )
                read = [known[id(tensor)] for tensor in node.arguments.keras_tensors]
                if isinstance(node.operation, keras.Model):
                    found = self._walk(_functional(node.operation), read)
                else:
                    found = [self._add_layer(node.operation, read, node.arguments.args)]
                known.update(zip(map(id, node.outputs), found, strict=True))
        return [known[id(tensor)] for tensor in model.outputs]

    def _add_layer(self, layer: Any, inputs: list[int], arguments: tuple[Any, ...]) -> int:
        if self.softmax:
            raise ValueError(
                f"The layer {layer.name!r} reads the softmax, which can only be the last: give it the logits."
            )
        call = Call(layer, [self.nodes[number].shape for number in inputs], arguments)
        # Its rule leaves it out: the logits are those before it, and its order is theirs.
        is_softmax = getattr(layer, "activation", None) is keras.activations.softmax
        self.softmax = is_softmax or type(layer) is keras.layers.Softmax
        for transform in transforms_of(call, any_precision=self._any_precision):
            inputs = [self._add(transform, inputs)]
        return inputs[0]

    def _add(self, transform: Transform, inputs: list[int]) -> int:
        read = [self.nodes[number] for number in inputs]
        shape = _output_shape(transform, read)
        node = Node(transform, tuple(inputs), shape)
        if isinstance(transform, Affine):
            if transform.divides_by_mass and not all(each.is_image for each in read):
                raise ValueError("Only the image itself can be divided by its mass: divide before all other layers.")
            if all(each.affine_in_image for each in read) and len({each.divided for each in read}) == 1:
                node = node._replace(
                    terms=max(each.terms or 0 for each in read) + transform.terms,
                    divided=read[0].divided or transform.divides_by_mass,
                    is_image=transform.keeps_mass and all(each.is_image for each in read),
                )
        self.nodes.append(node)
        return len(self.nodes) - 1


def _output_shape(transform: Transform, read: list[Node]) -> tuple[int, ...]:
    """Returns the shape without the batch, by tracing one image through."""

    def trace(*inputs: tf.Tensor) -> tf.Tensor:
        return transform.interval([Interval(each, each) for each in inputs], tf.ones([1], tf.float64)).lower

    specs = [tf.TensorSpec([1, *each.shape], tf.float64) for each in read]
    return tuple(tf.function(trace, autograph=False).get_concrete_function(*specs).output_shapes[1:])


def _functional(model: Any) -> Any:
    """Returns the graph of a model's layers.

    Raises:
      ValueError: There is none: it is no Keras model, or a subclass with code of its own.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"classifier must be a keras.Model made of layers, got a {type(model).__name__}: bounds go through layers, "
            "so a SavedModel or a function can only be certified by smoothing."
        )
    if isinstance(model, keras.Sequential):
        functional = model._functional if model.built else None
        if functional is None:
            raise ValueError(f"The model {model.name!r} is not built: give it a keras.Input as its first layer.")
        return functional
    plain = type(keras.Model(inputs := keras.Input((1,)), inputs))
    if not isinstance(model, plain) or type(model).call is not plain.call:
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) has a call of its own, and bounds go through layers: "
            "build it as keras.Model(inputs, outputs)."
        )
    return model
