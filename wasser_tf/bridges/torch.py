"""PyTorch modules as classifiers: attacks and evaluations take their gradients from torch.autograd."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from wasser_tf.bridges.host import HostClassifier
from wasser_tf.bridges.needed import check_installed
from wasser_tf.models.classifier import Classifier
from wasser_tf.models.loading import OTHER_LIBRARIES
from wasser_tf.runtime.arguments import first_line


def from_torch(
    module: Any,
    *,
    input_range: tuple[float, float] | None = None,
    data_format: str = "channels_first",
    returns: str | None = None,
) -> Classifier:
    """Returns a PyTorch module as a classifier for attacks, evaluations and randomised smoothing.

    The module runs in evaluation mode on the device of its parameters, and is put back into its mode after each call.
    Its parameters receive no gradients. `certify` and `WasserTrain` need Keras layers and refuse it.

    Args:
      module: A `torch.nn.Module` from images [n, C, H, W] to logits or probabilities [n, classes]. Put normalisation
        into the module, for example as its first layer.
      input_range: The values of a black and a white pixel; (0, 1) by default.
      data_format: "channels_first" for images [n, C, H, W], "channels_last" for [n, H, W, C].
      returns: "logits" or "probabilities"; by default read from the outputs.

    Returns:
      The classifier. Give it, and every attack on it, images in the range and order of the module, as numpy arrays;
      examples come back in them.

    Raises:
      ImportError: PyTorch is not installed.
      ValueError: `module` is not a `torch.nn.Module`.

    Example:
    >>> import torch, wasser_tf
    >>> from wasser_tf import data
    >>> test = data.load("digits", splits=("test",)).test
    >>> images = test.images[:4].transpose(0, 3, 1, 2)  # [n, C, H, W], as in PyTorch.
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> classifier = wasser_tf.from_torch(module)
    >>> attack = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.1), iterations=5)
    >>> result = attack(classifier, images, test.labels[:4])
    >>> result.adversarial.shape, bool(result.feasibility.feasible().all())
    ((4, 1, 8, 8), True)
    """
    check_installed("torch", "torch")
    return Classifier(host_classifier(module), input_range=input_range, data_format=data_format, returns=returns)


def load_torchscript(path: pathlib.Path) -> Classifier:
    """Loads a TorchScript module, such as one saved by `torch.jit.trace(module, images).save("model.pt")`.

    Args:
      path: The file. Pickled modules (`torch.save`) are refused, because loading one runs code that it brings.

    Raises:
      ImportError: PyTorch is not installed.
      ValueError: The file is not a TorchScript module.
    """
    check_installed("torch", "torch")
    import torch

    try:
        with warnings.catch_warnings():
            # PyTorch recommends torch.export instead, whose programs cannot be put into evaluation mode.
            warnings.simplefilter("ignore")
            module = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"{path} is not a TorchScript module ({first_line(error)}): save the module in evaluation mode with "
            "torch.jit.trace(module, images).save(path)."
        ) from error
    return from_torch(module)


# For `load_classifier`, and so for --model of the commands.
OTHER_LIBRARIES[".pt"] = load_torchscript


def host_classifier(module: Any) -> HostClassifier:
    """Returns a PyTorch module as a differentiable function of images in the format of the module.

    Args:
      module: A `torch.nn.Module` from images [n, …] to outputs [n, classes].

    Raises:
      ValueError: `module` is not a `torch.nn.Module`.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module must be a torch.nn.Module, got {type(module).__name__}.")

    def tensor(array: np.ndarray) -> Any:
        first = next(iter(module.parameters()), torch.empty(0))
        dtype = first.dtype if first.is_floating_point() else torch.float32
        # A copy: arrays of TensorFlow cannot be written to, which PyTorch warns of.
        return torch.tensor(array, dtype=dtype, device=first.device)

    def forward(images: np.ndarray) -> np.ndarray:
        with _evaluation_mode(module), torch.no_grad():
            return module(tensor(images)).float().cpu().numpy()

    def backward(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
        with _evaluation_mode(module), torch.enable_grad():
            inputs = tensor(images).requires_grad_(True)
            outputs = module(inputs)
            (found,) = torch.autograd.grad(outputs, inputs, tensor(weights).to(outputs.dtype))
        return found.float().cpu().numpy()

    return HostClassifier(forward, backward)


@contextlib.contextmanager
def _evaluation_mode(module: Any) -> Iterator[None]:
    """Puts a module into evaluation mode, and each of its parts back into the mode that it had."""
    training = [part for part in module.modules() if part.training]
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
