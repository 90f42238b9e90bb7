"""The output folder of a training run: its files, and whether it belongs to the same run."""

import dataclasses
import json
import pathlib
from typing import Any

from wasser_tf.data.dataset import STREAMED
from wasser_tf.runtime import storage
from wasser_tf.runtime.run_files import CONFIG, REPORT, REPORT_TEXT
from wasser_tf.training.config import TrainConfig

# The key of config.json.
DATASET_DIGEST = "dataset_digest"
HISTORY, CHECKPOINTS = "history.csv", "checkpoints"
STANDARD, BEST, SAVED_MODEL = "standard.keras", "best.keras", "best_saved_model"
CERTIFIED, BRACKET = "certified.keras", "bracket.png"
# The batch after which a number was not finite.
NOT_FINITE = "not_finite.npz"
# All files of a run, except for the figures examples_*.png.
_FILES = (
    CONFIG,
    HISTORY,
    CHECKPOINTS,
    STANDARD,
    BEST,
    SAVED_MODEL,
    CERTIFIED,
    BRACKET,
    REPORT,
    REPORT_TEXT,
    "success.png",
    NOT_FINITE,
)


def check_run_folder(folder: pathlib.Path, config: TrainConfig) -> None:
    """Raises an error if a run may not write into a folder.

    Args:
      folder: The output folder, which need not exist.
      config: The settings of the run, with `resume` and `overwrite`.

    Raises:
      ValueError: The folder holds another run, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, got the file {folder}: give another --output_dir.")
    there = [name for name in _FILES if (folder / name).exists()]
    if not there or config.overwrite:
        return
    if not config.resume:
        raise ValueError(
            f"output_dir {folder} holds another run ({', '.join(there)}): give another --output_dir, --resume to "
            "continue that run, or --overwrite to replace it."
        )
    saved = storage.read_json(folder / CONFIG)["config"]
    given = json.loads(json.dumps(config.identity()))
    if isinstance(saved, dict):
        # Fields that are missing in runs of older versions had the values that are the defaults today.
        usual = {field.name: field.default for field in dataclasses.fields(config) if field.name in given}
        saved = {**{name: value for name, value in usual.items() if value is not dataclasses.MISSING}, **saved}
    differing = _differences(saved, given)
    if differing:
        raise ValueError(
            f"--resume needs the flags of the run in {folder}, but these differ: {'; '.join(differing)}. Give the same "
            "flags, another --output_dir, or --overwrite."
        )


def check_dataset(folder: pathlib.Path, config: TrainConfig, digest: str | None) -> None:
    """Raises an error if a run is to be resumed with other images than those it began with.

    Args:
      folder: The output folder, which need not exist.
      config: The settings of the run.
      digest: The digest of the dataset as loaded, see `wasser_tf.data.Dataset`.

    Raises:
      ValueError: The files of the dataset were changed since the run began.
    """
    if not config.resume or not (folder / CONFIG).exists():
        return
    stored = storage.read_json(folder / CONFIG).get(DATASET_DIGEST)
    streamed = [str(one).startswith(STREAMED) for one in (stored, digest)]
    if streamed[0] != streamed[1]:
        raise ValueError(
            f"The run in {folder} read {config.dataset} {'as a stream' if streamed[0] else 'into memory'}: give "
            f"--streaming={'always' if streamed[0] else 'never'}."
        )
    if stored != digest:
        raise ValueError(
            f"--resume needs the images of the run in {folder}, but the files of {config.dataset} have changed: "
            "restore them, give another --output_dir, or --overwrite."
        )


def _differences(saved: Any, given: Any, name: str = "") -> list[str]:
    """Returns a list of "name is … there and … here" for all values that differ, at any depth."""
    if isinstance(saved, dict) and isinstance(given, dict):
        keys = list(dict.fromkeys([*saved, *given]))
        return [
            line
            for key in keys
            for line in _differences(saved.get(key), given.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if saved == given else [f"{name} is {saved!r} there and {given!r} here"]


def clear_run_folder(folder: pathlib.Path, config: TrainConfig) -> None:
    """Removes incomplete files of killed runs and, if `config.overwrite` is set, all files of the run in the folder."""
    storage.remove_leftovers(folder)
    if config.overwrite:
        for path in (*(folder / name for name in _FILES), *folder.glob("examples_*.png")):
            storage.remove(path)


def write_history(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes history.csv, a line for each epoch; scores that a phase does not have are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    storage.write_text(folder / HISTORY, "".join(",".join(map(str, line)) + "\n" for line in lines))
