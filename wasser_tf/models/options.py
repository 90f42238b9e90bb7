"""What a user gives about a classifier, in Python or by the flags of a binary."""

import dataclasses
import json
import math
from typing import Any

import keras

from wasser_tf.runtime.arguments import is_whole

RETURNS = ("logits", "probabilities", "sigmoid")
DATA_FORMATS = ("channels_last", "channels_first")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ClassifierOptions:
    """What is given about a classifier; None where it is to be found out.

    Attributes: see `Classifier`.

    Raises:
      ValueError: A field is not one of its values.
    """

    input_range: tuple[float, float] | None = None
    data_format: str | None = None
    output: str | int | None = None
    returns: str | None = None
    batch_size: int | None = None
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.input_range is not None:
            try:
                low, high = (float(value) for value in self.input_range)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"input_range must be the values of a black and a white pixel, such as (0, 255), got "
                    f"{self.input_range!r}."
                ) from error
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"input_range must be two rising finite numbers, such as (0, 255), got {low}, {high}.")
            if low < 0:
                raise ValueError(
                    f"input_range must not begin below 0, got {low:g}: mass is counted from black, so put the "
                    "normalisation inside the model, as a keras.layers.Rescaling or Normalization in front, and give "
                    "the range before it."
                )
            object.__setattr__(self, "input_range", (low, high))
        for name, values in (("data_format", DATA_FORMATS), ("returns", RETURNS)):
            if getattr(self, name) is not None and getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}.")
        whole_or_name = isinstance(self.output, (str, type(None))) or is_whole(self.output, 0)
        if not whole_or_name:
            raise ValueError(f"output must be the name or the place of an output, got {self.output!r}.")
        if self.batch_size is not None and not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, or None, got {self.batch_size!r}.")
        if self.image_shape is not None:
            shape = self.image_shape
            if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(is_whole(side, 1) for side in shape):
                raise ValueError(f"image_shape must be height, width and channels, got {shape!r}.")
            object.__setattr__(self, "image_shape", tuple(int(side) for side in shape))

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(ClassifierOptions)}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ModelOptions(ClassifierOptions):
    """What the flags of a binary give about a saved classifier.

    Attributes:
      signature: Of a SavedModel, the signature to call; the others as of `Classifier`.

    Example:
    >>> ModelOptions(input_range=(0, 255), returns="probabilities").to_json()
    {'options': {'input_range': [0.0, 255.0], 'returns': 'probabilities'}}
    """

    signature: str | None = None

    @property
    def of_file(self) -> dict[str, Any]:
        """The arguments of `load_classifier`."""
        given = {"signature": self.signature} if self.signature is not None else {}
        return {**given, "output": self.output} if self.output is not None else given

    def around(self, loaded: Any) -> dict[str, Any]:
        """Returns the arguments of `Classifier` for a loaded file; a SavedModel has chosen its output already."""
        return {key: value for key, value in self.given.items() if key != "output" or isinstance(loaded, keras.Model)}

    def to_json(self) -> dict[str, Any]:
        """Returns {"options": what is given} as plain values, or {} where nothing is."""
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in self.given.items()}
        given |= {"signature": self.signature} if self.signature is not None else {}
        return {"options": given} if given else {}

    def mark(self, fingerprint: str) -> str:
        """Returns the fingerprint of a file, which also depends on what is given about it."""
        given = self.to_json()
        return f"{fingerprint} {json.dumps(given, sort_keys=True)}" if given else fingerprint
