"""Output folders: one run each, never overwritten without being asked to."""

import pathlib


def check_output_dir(folder: pathlib.Path, files: tuple[str, ...], overwrite: bool) -> None:
    """Refuses an output_dir that holds another run.

    Args:
      folder: The output_dir.
      files: The files by which a run is known.
      overwrite: Whether they may be replaced.

    Raises:
      ValueError: It is a file, or holds one of the files and overwrite is off.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, got the file {folder}: give another --output_dir.")
    there = [name for name in files if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"output_dir {folder} holds another run ({', '.join(there)}): give another --output_dir, or --overwrite."
        )
