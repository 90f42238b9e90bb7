"""Exports a tf.function as a StableHLO program, with its inputs and variables, to a folder that JAX can run."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.transport import gibbs

PROGRAM, STATE, METADATA, EXAMPLE = "program.mlirbc", "state.npz", "metadata.json", "example.npz"


def project_all_at_once() -> None:
    """Disables the splitting of projections for a CPU's cache. Call this before tracing."""
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
    """Writes a step that changes variables as a program that takes and returns their values.

    Args:
      folder: Folder for the program, the variables and the metadata.
      step: The function to compile, of tensors with static shapes; it returns tensors by name.
      examples: Example arguments, which determine the shapes.
      variables: All variables that the step changes, and those whose values the caller changes between steps.
      expected: Whether to store the step's results for the examples.
      values: Whether to store the values of the variables; otherwise only their shapes, and the runtime draws values.
      **metadata: More fields of the metadata.
    """
    # Keras variables wrap TensorFlow variables.
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
        # For each input after the arguments: the number of its variable, or −1 for a constant.
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
    (folder / METADATA).write_text(json.dumps(description, indent=1))
