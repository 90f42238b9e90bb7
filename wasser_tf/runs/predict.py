"""Sends images to a served model and collects labels, probabilities and latencies; bin/predict.py runs it."""

import csv
import dataclasses
import io
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.data.selection import ImageSource
from wasser_tf.runtime import interruption, storage
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.runtime.progress import Bar
from wasser_tf.serving.client import PROTOCOLS, SignatureInfo, connect
from wasser_tf.serving.signatures import DEFAULT, ENCODED, UINT8

_ENCODED_SUFFIXES = (".png", ".jpg", ".jpeg")


class ServedPredictions(NamedTuple):
    """The responses of a served model.

    Attributes:
      names: The names of the n images: the file, or the position in the dataset.
      outputs: The outputs by name, arrays whose first axis is n.
      truth: The dataset's labels, int32 [n], or None.
      seconds: The latency of each request in seconds, float64 [requests].
    """

    names: list[str]
    outputs: dict[str, np.ndarray]
    truth: np.ndarray | None
    seconds: np.ndarray

    @property
    def accuracy(self) -> float | None:
        """The share of correctly classified images; None if there are no labels."""
        return None if self.truth is None else float(np.mean(self.outputs["class_id"] == self.truth))

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Returns the column titles and a row for each image: its name, its class and its scalar outputs."""
        columns: dict[str, Any] = {"image": self.names}
        for key in ("label", "class_id"):
            if key in self.outputs:
                columns[key] = self.outputs[key]
        if "probabilities" in self.outputs:
            columns["probability"] = [f"{row.max():.6g}" for row in self.outputs["probabilities"]]
        for key in ("margin", "radius"):
            if key in self.outputs:
                columns[key] = [f"{value:.6g}" for value in self.outputs[key]]
        if "flagged" in self.outputs:
            # Beside the radius, which shows nothing there.
            columns["flagged"] = ["yes" if value else "no" for value in self.outputs["flagged"]]
        if self.truth is not None:
            columns["truth"] = self.truth
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def summary(self) -> str:
        """Returns the accuracy, if known, and the latency percentiles as text."""
        p50, p90, p99 = np.percentile(self.seconds * 1000, [50, 90, 99])
        lines = [
            f"{len(self.names)} images in {len(self.seconds)} requests: p50 {p50:.1f} ms, p90 {p90:.1f} ms, "
            f"p99 {p99:.1f} ms, {len(self.names) / self.seconds.sum():.0f} images/s"
        ]
        if self.accuracy is not None:
            lines.insert(0, f"accuracy {self.accuracy:.2%}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictRun:
    """The configuration of a client run.

    Attributes:
      server: The server as host:port.
      model: The name of the model on the server.
      protocol: One of `client.PROTOCOLS`.
      version: The version of the model, or None for the latest.
      signature: The signature, or None to choose it by the input; over REST, 8-bit images are then sent as PNG, which
        is lossless.
      images: PNG, JPEG or .npy files. An .npy file holds uint8 values, or floats in [0, 1], [n, H, W, C].
      source: A dataset whose images are sent instead of files.
      batch_size: Images per request.
      timeout: Timeout of a request in seconds.
      retries: How often a request is repeated if the server is unavailable.

    Raises:
      ValueError: A field is out of range, or both files and a dataset are given, or neither.
    """

    server: str
    model: str
    protocol: str = "grpc"
    version: int | None = None
    signature: str | None = None
    images: Sequence[str] = ()
    source: ImageSource | None = None
    batch_size: int = 64
    timeout: float = 10.0
    retries: int = 3

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}.")
        if bool(self.images) == (self.source is not None):
            raise ValueError("Give either files of images or a dataset.")
        if not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}.")


def run_predict(config: PredictRun) -> ServedPredictions:
    """Sends the images to the server.

    Args:
      config: The configuration.

    Returns:
      The responses.

    Raises:
      ValueError: An image cannot be read or the server rejects it, or the server lacks the model or the signature.
      ConnectionError: The server does not respond.
      wasser_tf.runtime.interruption.Interrupted: A signal requested the run to stop.
    """
    options = {"version": config.version, "timeout": config.timeout, "retries": config.retries}
    truth = None
    if config.source is not None:
        selection = config.source.load()
        groups = [([str(position) for position in selection.index], selection.images)]
        truth = selection.labels
    else:
        groups = list(_read(config.images))
    names: list[str] = []
    answers: list[dict[str, np.ndarray]] = []
    seconds: list[float] = []
    with connect(config.protocol, config.server, config.model, **options) as client:
        signatures = (
            client.signatures()
        )  # Requested here, so that the latency of the first prediction does not include it.
        for group, arrays in groups:
            names += group
            if config.protocol != "grpc" and config.signature is None:
                arrays = _compact(arrays, signatures)
            key, signature = _input(arrays, config.signature)
            with Bar(len(group), "image", "Requests") as bar:
                for start in range(0, len(group), config.batch_size):
                    interruption.raise_if_requested()
                    started = time.perf_counter()
                    answers.append(client.predict({key: arrays[start : start + config.batch_size]}, signature))
                    seconds.append(time.perf_counter() - started)
                    bar.update(min(start + config.batch_size, len(group)))
    outputs = {key: np.concatenate([answer[key] for answer in answers]) for key in answers[0]}
    return ServedPredictions(names, outputs, truth, np.array(seconds))


def save_predictions(predictions: ServedPredictions, path: str) -> None:
    """Writes predictions as CSV, one line per image.

    Args:
      predictions: The responses.
      path: The file to write.

    Raises:
      OSError: The file cannot be written.
    """
    heading, rows = predictions.rows()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heading, *rows])
    storage.write_text(path, text.getvalue())


def _input(arrays: np.ndarray, signature: str | None) -> tuple[str, str]:
    """Returns the input name and the signature for an array."""
    if arrays.dtype == object:
        return "image_bytes", signature or ENCODED
    return "image", signature or (UINT8 if arrays.dtype == np.uint8 else DEFAULT)


def _compact(arrays: np.ndarray, signatures: Mapping[str, SignatureInfo]) -> np.ndarray:
    """Returns 8-bit images [n, H, W, C] as PNG files [n], and other images unchanged.

    JSON writes numbers as text, which takes a server longer to parse than a small classifier takes to evaluate.
    """
    default = signatures.get(DEFAULT)
    # The server resizes files of another size but rejects arrays, so only arrays of the right size are converted.
    fits = (
        default is not None and "image" in default.inputs and default.inputs["image"].shape == (None, *arrays.shape[1:])
    )
    if ENCODED not in signatures or not fits:
        return arrays
    pixels = arrays
    if arrays.dtype != np.uint8:
        if not np.issubdtype(arrays.dtype, np.floating) or not np.all((arrays >= 0) & (arrays <= 1)):
            return arrays  # Invalid; the client raises the error.
        pixels = np.round(arrays * 255).astype(np.uint8)
        if not np.array_equal(pixels.astype(np.float32) / np.float32(255), arrays.astype(np.float32)):
            return arrays
    files = np.empty(len(pixels), object)
    for place, image in enumerate(pixels):
        files[place] = tf.io.encode_png(image).numpy()
    return files


def _read(paths: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields names and arrays: one group for all encoded files, and one for each .npy file."""
    encoded = [path for path in paths if pathlib.Path(path).suffix.lower() in _ENCODED_SUFFIXES]
    arrays = [path for path in paths if pathlib.Path(path).suffix.lower() == ".npy"]
    if unknown := [path for path in paths if path not in encoded and path not in arrays]:
        raise ValueError(f"Images must be .png, .jpg or .npy files, got {', '.join(unknown)}.")
    if encoded:
        files = np.empty(len(encoded), object)
        for place, path in enumerate(encoded):
            try:
                files[place] = pathlib.Path(path).read_bytes()
            except OSError as error:
                raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
        yield encoded, files
    for path in arrays:
        images = storage.read_array(path)
        if images.ndim != 4 or not len(images):
            raise ValueError(f"{path} must hold images [n, height, width, channels], got {np.shape(images)}.")
        yield [f"{path}[{place}]" for place in range(len(images))], images
