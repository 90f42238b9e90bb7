"""Loads and runs a program of `program.export` on JAX's first device, without TensorFlow and wasser_tf."""

import json
import pathlib

import jax
import numpy as np
from jax._src import xla_bridge
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jax._src.lib.mlir import ir


class Program:
    """A compiled step and its variables.

    Attributes:
      metadata: The content of metadata.json.
      variables: The current values of the variables, as arrays on the device.
    """

    def __init__(self, folder: pathlib.Path):
        """Compiles a folder's program."""
        self.metadata = json.loads((folder / "metadata.json").read_text())
        device = jax.devices()[0]
        state = {name: jax.device_put(value, device) for name, value in sorted(_state(folder, self.metadata).items())}
        self.variables = [value for name, value in state.items() if name.startswith("variable_")]
        # The values of the constant inputs, in their order.
        self._constants = [value for name, value in state.items() if name.startswith("constant_")]
        with mlir.make_ir_context() as context, ir.Location.unknown(context):
            module = ir.Module.parse((folder / "program.mlirbc").read_bytes())
            _without_copies(module)
            self._executable = xla_bridge.get_backend().compile_and_load(
                module, xla_client.DeviceList((device,)), xla_client.CompileOptions()
            )

    def __call__(self, *arguments: jax.Array) -> dict[str, jax.Array]:
        """Runs a step and returns its results by name, without waiting for them."""
        constants = iter(self._constants)
        captured = [next(constants) if number < 0 else self.variables[number] for number in self.metadata["inputs"]]
        # The captured arrays are already on the device.
        given = [*(jax.device_put(argument) for argument in arguments), *captured]
        found = self._executable.execute_sharded(given).disassemble_into_single_device_arrays()
        count = self.metadata["variables"]
        self.variables = [value[0] for value in found[:count]]
        return dict(zip(self.metadata["returned"], (value[0] for value in found[count:]), strict=False))

    def reset(self, first: int) -> None:
        """Sets all variables from number `first` on to 0."""
        self.variables[first:] = [jax.numpy.zeros_like(value) for value in self.variables[first:]]

    def values(self) -> list[np.ndarray]:
        """Waits for all steps and returns the values of the variables."""
        return [np.array(value) for value in self.variables]


def _without_copies(module: ir.Module) -> None:
    """Removes TensorFlow's copy operations, which do not belong to StableHLO: accelerators' compilers reject them."""
    copies = []

    def collect(operation: ir.Operation) -> ir.WalkResult:
        if operation.name == "mhlo.copy":
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(collect)
    for operation in copies:
        operation.results[0].replace_all_uses_with(operation.operands[0])
        operation.erase()


def _state(folder: pathlib.Path, metadata: dict) -> dict[str, np.ndarray]:
    if "drawn" not in metadata:
        with np.load(folder / "state.npz") as arrays:
            return dict(arrays)
    # Only the shapes were exported: the time of a step does not depend on the values.
    random = np.random.RandomState(0)
    return {
        name: (0.03 * random.standard_normal(shape)).astype(dtype) if dtype == "float32" else np.zeros(shape, dtype)
        for name, (shape, dtype) in metadata["drawn"].items()
    }
