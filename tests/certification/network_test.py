"""The nodes of a classifier: which are affine in the image, by how many roundings, and which are the image."""

import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel
from wasser_tf.certification.network import Network
from wasser_tf.models.potentials import TransportPotentials

L = keras.layers
SHAPE = (4, 5, 2)


def network(make, shape=SHAPE):
    inputs = keras.Input(shape)
    return Network(keras.Model(inputs, make(inputs)))


def fields(found):
    return [(node.terms, node.is_image, node.divided) for node in found.nodes]


def test_copies_of_the_image_are_the_image():
    found = network(lambda x: L.Dense(3)(L.Flatten()(L.Permute((2, 1, 3))(L.ZeroPadding2D(1)(x)))))
    assert fields(found) == [(1, True, False)] * 4 + [(1 + 6 * 7 * 2 + 1, False, False)]
    assert [node.shape for node in found.nodes] == [SHAPE, (6, 7, 2), (7, 6, 2), (84,), (3,)]
    assert (found.output, found.num_classes, found.image_shape, found.softmax) == (4, 3, SHAPE, False)


def test_a_copy_of_a_feature_is_not_the_image():
    found = network(lambda x: L.Flatten()(L.Conv2D(3, 2)(x)))
    assert fields(found)[1:] == [(1 + 2 * 2 * 2 + 1, False, False), (10, False, False)]


def test_roundings_of_affine_layers_add_up_until_the_first_nonlinear_one():
    found = network(lambda x: L.Dense(2)(L.Flatten()(L.Conv2D(1, 2, activation="relu")(L.Conv2D(3, 1)(x)))))
    assert [node.terms for node in found.nodes] == [1, 1 + 3, 4 + 2 * 2 * 3 + 1, None, None, None]
    assert [node.affine_in_image for node in found.nodes] == [True, True, True, False, False, False]


def test_a_sum_of_affine_branches_has_the_roundings_of_the_longest():
    found = network(lambda x: L.Flatten()(L.Add()([L.Conv2D(2, 1)(x), x])))
    # The convolution has 2 + 1 roundings, and the sum adds one for each branch.
    assert fields(found)[-2:] == [(1 + 3 + 2, False, False)] * 2
    assert [node.inputs for node in found.nodes] == [(), (0,), (1, 0), (2,)]


def test_a_sum_with_a_nonlinear_branch_is_not_affine():
    found = network(lambda x: L.Flatten()(L.Add()([L.ReLU()(L.Conv2D(2, 1)(x)), x])))
    assert [node.affine_in_image for node in found.nodes] == [True, True, False, False, False]


def potentials(x):
    return TransportPotentials(3, ThreatModel(kernel_size=3), seed=0)(x)


def test_the_potentials_divide_the_image_by_its_mass():
    found = network(lambda x: L.Dense(2)(potentials(L.ZeroPadding2D(1)(x))))
    assert [(node.is_image, node.divided) for node in found.nodes] == [(True, False)] * 2 + [(False, True)] * 2
    assert found.nodes[3].terms == found.nodes[2].terms + 3 + 2 + 1


@pytest.mark.parametrize("make", [L.Conv2D(2, 1), lambda x: L.Permute((2, 1, 3))(L.Conv2D(2, 1)(x)), L.ReLU()])
def test_features_cannot_be_divided_by_the_mass_of_the_image(make):
    with pytest.raises(ValueError, match="Only the image itself can be divided by its mass"):
        network(lambda x: potentials(make(x)))


def test_divided_and_undivided_branches_together_are_not_affine():
    def branches(x):
        flat = L.Dense(5)(L.Flatten()(x))
        return L.Dense(2)(L.Add()([potentials(x), flat]))

    found = network(branches)
    added = next(node for node in found.nodes if len(node.inputs) == 2)
    assert {found.nodes[number].divided for number in added.inputs} == {True, False}
    assert all(found.nodes[number].affine_in_image for number in added.inputs)
    assert not added.affine_in_image and not added.divided and not found.nodes[found.output].affine_in_image


@pytest.mark.parametrize(
    ("head", "softmax"),
    [
        (lambda x: L.Dense(2, activation="softmax")(x), True),
        (lambda x: L.Softmax()(L.Dense(2)(x)), True),
        (lambda x: L.Activation("softmax")(L.Dense(2)(x)), True),
        (lambda x: L.Dense(2, activation="relu")(x), False),
    ],
)
def test_a_last_softmax_is_left_out(head, softmax):
    found = network(lambda x: head(L.Flatten()(x)))
    assert found.softmax is softmax and found.nodes[found.output].shape == (2,)
    assert len(found.nodes) == (3 if softmax else 4)


@pytest.mark.parametrize(
    ("shape", "make", "message"),
    [
        ((4, None, 1), lambda x: L.GlobalMaxPooling2D()(x), "must take one batch of images .*fixed size"),
        ((4, 5), lambda x: L.Flatten()(x), r"must take one batch of images .*got \(None, 4, 5\)"),
        (SHAPE, lambda x: [L.Flatten()(x), L.Dense(2)(L.Flatten()(x))], "must take one batch|must have one output"),
        (SHAPE, lambda x: L.Conv2D(2, 1)(x), "must have one output"),
    ],
)
def test_other_shapes_are_refused(shape, make, message):
    with pytest.raises(ValueError, match=message):
        network(make, shape)


def test_any_precision_is_taken_if_allowed():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, L.Dense(2, dtype="mixed_bfloat16")(L.Flatten()(inputs)))
    with pytest.raises(ValueError, match="computes in bfloat16"):
        Network(model)
    assert len(Network(model, any_precision=True).nodes) == 3
    outer = keras.Sequential([keras.Input(SHAPE), model])
    assert len(Network(outer, any_precision=True).nodes) == 3


def test_the_classifier_of_a_wrapper_is_taken():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(inputs)))

    class Wrapper:
        classifier = model

    assert fields(Network(Wrapper())) == fields(Network(model))
    np.testing.assert_array_equal([node.shape for node in Network(Wrapper()).nodes][-1], (2,))
