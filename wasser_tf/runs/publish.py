"""A training run to a classifier that comes with the package: what bin/publish.py does."""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from wasser_tf import pretrained
from wasser_tf.evaluation.sweep import fingerprint
from wasser_tf.publishing import card
from wasser_tf.publishing.compress_float16 import compress_float16
from wasser_tf.runs.leaderboard import Board, add_to_leaderboard
from wasser_tf.runtime import storage

_NAME = re.compile(r"[a-z0-9_]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publication:
    """What to publish.

    Attributes:
      run: The folder of a training run; or None to evaluate anew what the package has of this name.
      name: What `wasser_tf.load_pretrained` shall call the classifier.
      board: How it is evaluated; its dataset must be that of the run.
      file: Which classifier of the run.
      overwrite: Whether to replace another classifier of this name.

    Raises:
      ValueError: The name is not made of small letters, digits and underscores, or there is no run to overwrite from.
    """

    run: str | None = None
    name: str
    board: Board
    file: str = "best.keras"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be of small letters, digits and underscores, got {self.name!r}.")
        if self.run is None and self.overwrite:
            raise ValueError("overwrite replaces a classifier by that of a run, got no run: give --run.")


def publish(config: Publication, description: str = "", log: Callable[[str], None] | None = None) -> pathlib.Path:
    """Packs the classifier, evaluates the packed file, and writes its entry and its card.

    Interrupted, it goes on with the evaluation where it was: packing gives the same file again.

    Args:
      config: What and how.
      description: The leaderboard's sentence on it. Without one, it is the card's that there is, or the training in a few
        words.
      log: Is given lines of progress.

    Returns:
      The packed file.

    Raises:
      ValueError: The run, the images or a setting are not what is needed, or the package has another classifier of this
        name, or without a run none.
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
        path, packed, described = _pack(config, run)
        description = description or _description(config, described, training)
    entry = add_to_leaderboard(config.board, config.name, str(packed), description, log)
    card.write_card(path, described, training, entry)
    # In the package there shall be no classifier without its card, so it goes there last.
    if packed != path:
        with storage.atomic_path(path) as beside:
            shutil.copyfile(packed, beside)
    return path


def _check_dataset(config: Publication, training: Mapping[str, Any]) -> None:
    """Raises ValueError where a classifier would be evaluated on images of another kind than its own."""
    dataset = training["config"]["dataset"]
    if dataset != config.board.source.dataset:
        raise ValueError(f"{config.run or config.name} was trained on {dataset}: give --dataset={dataset}.")


def _pack(config: Publication, run: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, dict[str, Any]]:
    """Packs a run's classifier beside its evaluation; returns its place in the package, the file and what it is."""
    packed = pathlib.Path(config.board.output_dir).expanduser() / f"{config.name}.keras"
    classifier = compress_float16(run / config.file, packed)
    path = pretrained.FOLDER / packed.name
    # The same bytes are this very classifier, published before.
    if path.exists() and not config.overwrite and fingerprint(path) != fingerprint(packed):
        raise ValueError(
            f"The package has another classifier called {config.name!r}: give a --name of your own, or --overwrite to "
            "replace that one."
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
    # At ω = 0 nothing is attacked.
    standard = config.file == "standard.keras" or trained["omega"] == 0
    how = "standard training" if standard else f"WasserTrain, {trained['attack']['name']}"
    return f"{described['model']}, {how}, seed {trained['seed']}; comes with the package."
