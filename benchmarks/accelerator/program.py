"""A tf.function as one StableHLO program, with the inputs and variables it needs, in a folder that JAX can run from."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.transport import gibbs

PROGRAM, STATE, ABOUT, EXAMPLE = "program.mlirbc", "state.npz", "about.json", "example.npz"


def project_all_at_once() -> None:
    """Lets projections go through as on an accelerator, not in parts for a CPU's cache. To be called before tracing."""
    gibbs._PIXELS_A_PART = 2**62


def export(
    folder: pathlib.Path,
    step: Callable[..., dict[str, tf.Tensor]],
    examples: Sequence[tf.Tensor],
    variables: Sequence[Any],
    *,
    expected: bool = False,
    values: bool = True,
    **metadata: Any,
) -> None:
    """Writes a step that changes variables as a program that is given them and returns them, and what it returns.

    Args:
      folder: Where program, variables and description go.
      step: What is compiled, of tensors of static shapes; it returns tensors by name.
      examples: Arguments of these shapes.
      variables: All that the step reads or changes and that the next one shall find changed.
      expected: Whether the folder gets, beside the examples, what the step returns for them here.
      values: Whether the folder gets the values of variables; else only their shapes, and the runtime draws them.
      **metadata: What else the description says.
    """
    # Of Keras or of TensorFlow.
    variables = [variable if isinstance(variable, tf.Variable) else variable.value for variable in variables]
    returned: list[str] = []

    @tf.function(jit_compile=True, autograph=False)
    def program(*given: tf.Tensor) -> list[tf.Tensor]:
        results = step(*given)
        returned[:] = results
        return [*(variable.value() for variable in variables), *results.values()]

    concrete = program.get_concrete_function(*examples)
    places = {id(variable.handle): number for number, variable in enumerate(variables)}
    others = {id(variable.handle): variable for variable in concrete.variables}
    inputs, constants = [], {}
    for number, captured in enumerate(concrete.captured_inputs):
        # Of each input after the arguments: the number of the variable it is, or −1 for a constant.
        inputs.append(places.get(id(captured), -1))
        if inputs[-1] < 0:
            value = others[id(captured)].value() if id(captured) in others else captured
            constants[f"constant_{number:04}"] = value.numpy()
    serialized = program.experimental_get_compiler_ir(*examples)(stage="stablehlo_serialized")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_bytes(serialized)
    arrays = {f"variable_{number:04}": variable.numpy() for number, variable in enumerate(variables)} | constants
    if values:
        np.savez_compressed(folder / STATE, **arrays)
    else:
        metadata["drawn"] = {name: [list(value.shape), value.dtype.name] for name, value in arrays.items()}
    given = {f"argument_{number}": value.numpy() for number, value in enumerate(examples)}
    if expected:
        found = program(*examples)[len(variables) :]
        given |= {name: value.numpy() for name, value in zip(returned, found, strict=True)}
    np.savez_compressed(folder / EXAMPLE, **given)
    description = {"inputs": inputs, "variables": len(variables), "returned": returned, **metadata}
    (folder / ABOUT).write_text(json.dumps(description, indent=1))
