"""What belongs to the structure of a classifier, and what does not."""

import functools
import types

import keras
import numpy as np
import pytest

from wasser_tf.models.structure import structure_of


def function_of(source, **names):
    """Returns the function `f` of a source, whose globals are the given names."""
    space = {"__name__": "__main__", **names}
    exec(source, space)
    return space["f"]


def closure():
    state = {"scale": 2}

    def classifier(images):
        return images * state["scale"]

    return classifier, lambda: state.update(scale=3)


def unassigned():
    def outer():
        def classifier(images):
            return images * later

        before = structure_of(classifier)
        later = 2
        return classifier, before

    return outer()


class Own:
    """A classifier of a user's own class."""

    scale = 2

    def __init__(self):
        self.weights, self.nested = np.ones(3), {"a": [1, {2}]}

    @property
    def doubled(self):
        return 2 * self.scale

    def helper(self, images):
        return images

    @staticmethod
    def static(images):
        return images

    def __call__(self, images):
        return images


def own(change):
    made = Own()
    return made, lambda: change(made)


def module():
    mine = types.ModuleType("mine")
    mine.scale, mine.other = 2, 5
    return mine, function_of("def f(images): return images * mine.scale", mine=mine)


def read_attribute():
    mine, function = module()
    return function, lambda: setattr(mine, "scale", 3)


def called_function():
    inner = function_of("def f(x, factor=2): return x * factor")
    return function_of("def f(x): return g(x)", g=inner), lambda: setattr(inner, "__defaults__", (3,))


def nested_function():
    function = function_of("def f(x):\n  def g(y): return y * scale\n  return g(x)", scale=2)
    return function, lambda: function.__globals__.update(scale=3)


def of_function(change, source="def f(x, *, factor=2): return x * factor"):
    function = function_of(source)
    return function, lambda: change(function)


def partial():
    made = functools.partial(function_of("def f(x, scale, shift): return x"), 1, shift=[2])
    return made, lambda: made.keywords["shift"].append(3)


def layer():
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, name="d")])
    return model, model.get_layer("d")


def of_layer(change):
    model, dense = layer()
    return model, lambda: change(dense)


CHANGES = {
    "variable of a closure": closure,
    "attribute of a module": read_attribute,
    "default of a called function": called_function,
    "global of a nested function": nested_function,
    "default": lambda: of_function(lambda f: setattr(f, "__defaults__", (1,)), "def f(x=0): return x"),
    "keyword default": lambda: of_function(lambda f: f.__kwdefaults__.update(factor=3)),
    "code": lambda: of_function(lambda f: setattr(f, "__code__", (lambda x, *, factor=2: x).__code__)),
    "attribute of a function": lambda: of_function(lambda f: setattr(f, "from_logits", True)),
    "argument of a partial": partial,
    "array in place": lambda: own(lambda made: made.weights.__setitem__(0, 5)),
    "dtype of an array": lambda: own(lambda made: setattr(made, "weights", np.ones(3, np.float32))),
    "shape of an array": lambda: own(lambda made: setattr(made, "weights", np.ones((3, 1)))),
    "item of a nested container": lambda: own(lambda made: made.nested["a"].append(2)),
    "item of a set": lambda: own(lambda made: made.nested["a"][1].add(3)),
    "key of a dict": lambda: own(lambda made: made.nested.update(b=1)),
    "type of a number": lambda: own(lambda made: setattr(made, "weights", 1) or setattr(made, "more", True)),
    "new attribute": lambda: own(lambda made: setattr(made, "more", None)),
    "trainable flag": lambda: of_layer(lambda dense: setattr(dense, "trainable", False)),
    "activation": lambda: of_layer(lambda dense: setattr(dense, "activation", keras.activations.relu)),
    "own attribute of a layer": lambda: of_layer(lambda dense: setattr(dense, "mine", 3)),
    "dtype policy": lambda: of_layer(lambda dense: setattr(dense, "dtype_policy", keras.DTypePolicy("mixed_bfloat16"))),
}


@pytest.mark.parametrize("make", CHANGES.values(), ids=CHANGES)
def test_changes_of_the_graph_change_the_structure(make):
    classifier, change = make()
    before = structure_of(classifier)
    assert structure_of(classifier) == before
    change()
    assert structure_of(classifier) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 3),
        ("helper", lambda self, images: 2 * images),
        ("__call__", lambda self, images: 2 * images),
        ("doubled", property(lambda self: 3)),
        ("static", staticmethod(lambda images: 2 * images)),
    ],
)
@pytest.mark.parametrize("bound", [False, True])
def test_changes_of_the_class_change_the_structure(monkeypatch, name, value, bound):
    made = Own()
    before = structure_of(made.helper if bound else made)
    monkeypatch.setattr(Own, name, value)
    assert structure_of(made.helper if bound else made) != before


def test_unread_attributes_of_a_module_do_not_belong_to_it():
    mine, function = module()
    before = structure_of(function)
    mine.other = 6
    assert structure_of(function) == before


def test_values_of_variables_and_training_do_not_belong_to_it():
    model, dense = layer()
    before = structure_of(model)
    dense.kernel.assign(dense.kernel + 1)
    model.stop_training = True
    assert structure_of(model) == before
    assert structure_of(layer()[0]) != before


def test_a_variable_that_is_not_assigned_yet_is_none():
    classifier, before = unassigned()
    assert structure_of(classifier) != before


def test_references_to_itself_end():
    made = Own()
    made.nested["self"] = made
    assert structure_of(made) == structure_of(made)
    assert structure_of(made) != 3 and (structure_of(3) == structure_of(3)) and structure_of(1) != structure_of(True)
    with pytest.raises(TypeError, match="unhashable"):
        hash(structure_of(made))


def test_numpy_scalars_are_plain_numbers():
    assert structure_of(np.float32(0.5)) == structure_of(0.5) and structure_of(np.int32(1)) != structure_of(1.0)
