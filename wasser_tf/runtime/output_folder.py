"""Output folders: each holds one run, and is only overwritten on request."""

import pathlib


def check_output_dir(folder: pathlib.Path, files: tuple[str, ...], overwrite: bool) -> None:
    """Raises an error if an output_dir holds another run.

    Args:
      folder: The output_dir.
      files: The files that identify a run.
      overwrite: Whether they may be replaced.

    Raises:
      ValueError: The output_dir is a file, or it holds one of the files and overwrite is off.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, got the file {folder}: give another --output_dir.")
    there = [name for name in files if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"output_dir {folder} holds another run ({', '.join(there)}): give another --output_dir, or --overwrite."
        )
