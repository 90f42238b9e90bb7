"""What the pages of ablations share: the command line, stored results, and the table."""

import argparse
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percentage


def parse_arguments(description: str | None, recipes: Sequence[str], page: str) -> argparse.Namespace:
    """Parses the command line, and makes the folder of stored results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the stored results")
    parser.add_argument("--data_dir", help="of prepared datasets")
    parser.add_argument("--results", type=pathlib.Path, help=f"where {page} is written")
    parser.add_argument("--recipes", nargs="*", choices=recipes, default=recipes, help="rows to make")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    return given


def complete(folder: pathlib.Path, names: Iterable[str], measure: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Measures what is not stored yet, stores each result, and returns all that is stored."""
    path = folder / "ablations.json"
    found: dict[str, Any] = storage.read_json(path) if path.exists() else {}
    for name in names:
        if name not in found:
            found[name] = measure(name)
            print(name, found[name], flush=True)
            storage.write_json(path, found)
    return found


def table(found: dict[str, Any], names: Iterable[str], radii: Sequence[float], kind: str) -> str:
    """Returns the table: natural accuracy, the shares of a kind at the radii, and the seconds of training."""
    header = ["", "natural", *(f"ε = {radius:g}" for radius in radii), "CPU seconds"]
    rows = [
        [
            name,
            *(percentage(share, 1) for share in (found[name]["natural"], *found[name][kind])),
            f"{found[name]['cpu_seconds']:.0f}" if found[name].get("cpu_seconds") else "–",
        ]
        for name in names
        if name in found
    ]
    return markdown_table(header, rows)
