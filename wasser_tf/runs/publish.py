"""Adds the classifier of a training run to the package; bin/publish.py runs it."""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from wasser_tf import pretrained
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.publishing import card
from wasser_tf.publishing.compress_float16 import compress_float16
from wasser_tf.runs.leaderboard import Board, add_to_leaderboard
from wasser_tf.runtime import storage

_NAME = re.compile(r"[a-z0-9_]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publication:
    """The configuration of a publication.

    Attributes:
      run: The folder of a training run, or None to evaluate the packaged classifier of this name again.
      name: The name of the classifier for `wasser_tf.load_pretrained`.
      board: The settings of its evaluation; the dataset must be that of the run.
      file: The classifier's file in the run.
      overwrite: Whether to replace another classifier of this name.

    Raises:
      ValueError: The name contains characters other than lower-case letters, digits and underscores, or `overwrite` is
        given without a run.
    """

    run: str | None = None
    name: str
    board: Board
    file: str = "best.keras"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"name must consist of lower-case letters, digits and underscores, got {self.name!r}.")
        if self.run is None and self.overwrite:
            raise ValueError("overwrite replaces a packaged classifier by that of a run, got no run: give --run.")


def publish(config: Publication, description: str = "", log: Callable[[str], None] | None = None) -> pathlib.Path:
    """Compresses a classifier, evaluates the compressed file, and writes its leaderboard entry and its card.

    An interrupted publication resumes the evaluation, because compressing again produces the same file.

    Args:
      config: The configuration.
      description: The description on the leaderboard; by default that of the existing card, or a short description of
        the training.
      log: Takes lines of progress.

    Returns:
      The path of the classifier in the package.

    Raises:
      ValueError: The run, the images or a setting is invalid, the package has another classifier of this name, or no
        run is given and the package has no classifier of this name.
      OSError: A file cannot be written; existing files are unchanged.
      wasser_tf.runtime.interruption.Interrupted: A signal requested the run to stop; the same call resumes it.
    """
    if config.run is None:
        path = packed = pretrained.path_of(config.name)
        before = pretrained.card(config.name)
        described, training = before["classifier"], before["training"]
        _check_dataset(config, training)
        description = description or before["evaluation"]["description"]
    else:
        run = pathlib.Path(config.run).expanduser()
        training = card.training_of(run)
        _check_dataset(config, training)
        path, packed, described = _compress(config, run)
        description = description or _description(config, described, training)
    entry = add_to_leaderboard(config.board, config.name, str(packed), description, log)
    card.write_card(path, described, training, entry)
    # Copied last, so that the package never holds a classifier without a card.
    if packed != path:
        with storage.atomic_path(path) as beside:
            shutil.copyfile(packed, beside)
    return path


def _check_dataset(config: Publication, training: Mapping[str, Any]) -> None:
    """Raises ValueError if a classifier would be evaluated on another dataset than that of its training."""
    dataset = training["config"]["dataset"]
    if dataset != config.board.source.dataset:
        raise ValueError(f"{config.run or config.name} was trained on {dataset}: give --dataset={dataset}.")


def _compress(config: Publication, run: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, dict[str, Any]]:
    """Compresses a run's classifier next to its evaluation.

    Returns:
      Its path in the package, the compressed file, and a description of the classifier for its card.
    """
    packed = pathlib.Path(config.board.output_dir).expanduser() / f"{config.name}.keras"
    classifier = compress_float16(run / config.file, packed)
    path = pretrained.FOLDER / packed.name
    # Identical files are the same classifier, published before.
    if path.exists() and not config.overwrite and fingerprint(path) != fingerprint(packed):
        raise ValueError(
            f"The package has another classifier called {config.name!r}: give another --name, or --overwrite to "
            "replace that classifier."
        )
    described = {
        "model": classifier.name,
        "image_shape": list(classifier.input_shape[1:]),
        "num_classes": classifier.output_shape[-1],
        "num_weights": classifier.count_params(),
        "bytes": packed.stat().st_size,
        "file": config.file,
    }
    return path, packed, described


def _description(config: Publication, described: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    trained = training["config"]
    # At ω = 0, training involves no attack.
    standard = config.file == "standard.keras" or trained["omega"] == 0
    how = "standard training" if standard else f"WasserTrain, {trained['attack']['name']}"
    return f"{described['model']}, {how}, seed {trained['seed']}; comes with the package."
