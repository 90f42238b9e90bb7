"""Which output holds the classes, and whether it is logits, probabilities or a sigmoid."""

import numpy as np
import pytest

from wasser_tf.models.outputs import check_probabilities, choose_output, what_is_returned
from wasser_tf.models.probe import Look, Output

SOFT = np.array([[0.2, 0.8], [1.0, 0.0]])


def output(values=SOFT, activation=None, operation="", name="output", key=None, mixed=False):
    return Output(key, name, np.asarray(values, float), activation, operation, False, mixed)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (output(activation="softmax"), "probabilities"),
        # A softmax that overflows is one nevertheless.
        (output(np.full((2, 2), np.nan), activation="softmax"), "probabilities"),
        (output(activation="log_softmax"), "logits"),
        (output([[0.2, 0.7], [0.9, 0.6]], operation="BiasAdd"), "logits"),
        # Logits of several images do not add up to 1; a mean or sum of probabilities does.
        (output(operation="Mean", mixed=True), "probabilities"),
        (output(operation="AddV2", mixed=True), "probabilities"),
        (output(operation="Exp"), "probabilities"),
        (output(), "probabilities"),
        (output(2 * SOFT), "logits"),
        (output(-SOFT), "logits"),
        (output([[0.2, 0.7], [0.5, 0.5]]), "logits"),
        (output([[0.2], [0.9]], activation="sigmoid"), "sigmoid"),
        (output([0.2, 0.9], activation="sigmoid"), "sigmoid"),
        (output([[0.2], [0.9]], operation="MatMul"), "logits"),
        (output([[-0.2], [0.9]], operation="Other"), "logits"),
        (output([[0.2], [1.9]], operation="Other"), "logits"),
    ],
)
def test_the_kind_of_an_output_by_its_graph_and_its_values(made, expected):
    assert what_is_returned(None, made, None) == expected


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (output(operation="BiasAdd"), "probabilities", "probabilities"),
        (output(3 * SOFT), "logits", "logits"),
        (output([[0.2], [0.9]]), "probabilities", "sigmoid"),
        (output([[0.2], [0.9]]), "sigmoid", "sigmoid"),
        (output([[0.2], [0.9]]), "logits", "logits"),
    ],
)
def test_a_given_kind_is_taken(made, given, expected):
    assert what_is_returned(None, made, given) == expected


class Declared:
    def __init__(self, from_logits):
        self.from_logits = from_logits


def test_a_declared_kind_is_taken_unless_one_is_given():
    assert what_is_returned(Declared(True), output(), None) == "logits"
    assert what_is_returned(Declared(False), output(operation="BiasAdd"), None) == "probabilities"
    assert what_is_returned(Declared(False), output(), "logits") == "logits"


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (output(), "sigmoid", "is for one unit, and the classifier returns 2"),
        (output(activation="softmax"), "logits", "outputs of a softmax, where logits were announced"),
        (output([[0.5], [0.1]], activation="sigmoid"), "logits", "outputs of a sigmoid"),
        (output(activation="sigmoid"), None, "2 sigmoid units, whose probabilities do not add up to 1"),
        (output([[0.2, 0.7], [0.5, 0.5]], operation="Minimum"), None, r"do not add up to 1 \(last operation Minimum\)"),
        (output([[0.2], [0.9]], operation="Other"), None, "one number for each image: give returns='sigmoid'"),
        (output(2 * SOFT), "probabilities", "reach from 0 to 2; if they are logits"),
        (output([[0.2, 0.7], [0.5, 0.5]]), "probabilities", "whose sums reach from 0.9 to 1;"),
        (output([[1.2], [0.5]]), "sigmoid", "reach from 0.5 to 1.2; if"),
    ],
)
def test_kinds_that_contradict_the_outputs_are_refused(made, given, message):
    with pytest.raises(ValueError, match=message):
        what_is_returned(None, made, given)


def test_probabilities_at_the_edge_of_the_tolerance():
    check_probabilities(np.array([[0.3, 0.709], [1.005, 0.0]]))
    check_probabilities(np.array([[0.3], [1.009]]), "sigmoid")
    check_probabilities(np.array([[np.nan, 2.0]]))
    for values in ([[0.3, 0.72]], [[1.02, 0.0]], [[-1e-6, 1.0]]):
        with pytest.raises(ValueError, match="no probabilities"):
            check_probabilities(np.array(values))


def test_outputs_are_chosen_by_name_key_or_place():
    one, two = output(name="digit", key="d"), output(np.zeros((2, 3)), name="parity", key="p")
    found = Look((one, two), (), None, True, num_images=2)
    assert choose_output(Look((one,), (), None, True, num_images=2), None) is one
    for given in ("parity", "p", 1, "1"):
        assert choose_output(found, given) is two
    assert choose_output(found, "0") is one
    with pytest.raises(ValueError, match=r"2 outputs: digit \[n, 2\], parity \[n, 3\]: choose .*output='digit'"):
        choose_output(found, None)
    with pytest.raises(ValueError, match=r"parity \[n, 3\], and none is 'x'"):
        choose_output(found, "x")


@pytest.mark.parametrize("shape", [(2, 0), (2, 3, 4), ()])
def test_outputs_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must return \[n, classes\]"):
        choose_output(
            Look((output(np.zeros((2, *shape[1:]) if shape else (2, 1, 1))),), (), None, True, num_images=2),
            None,
        )


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 2)])
def test_outputs_of_one_or_several_units_are_taken(shape):
    made = output(np.zeros(shape))
    assert choose_output(Look((made,), (), None, True, num_images=2), None) is made
