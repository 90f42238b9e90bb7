"""Output files of an experiment: NAME.json and NAME.csv (numbers), NAME.md (text) and, for figures, NAME.png."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from wasser_tf.publishing.leaderboard import short_commit
from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import provenance, storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentOutput:
    """The result of an experiment.

    Attributes:
      name: Base name of its files.
      title: Title of the table or figure.
      rows: The numbers; all rows have the same columns.
      table: The numbers as a Markdown table.
      num_images: Number of images that were evaluated.
      split: Split of the dataset that the images are from.
      threat_model: The threat model in words.
      settings: All other settings that the numbers depend on, as plain values.
      pictures: Names of its existing picture files.
    """

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    table: str
    num_images: int
    threat_model: str
    settings: Mapping[str, Any]
    pictures: Sequence[str] = ()
    split: str = "test"


def write_output(folder: pathlib.Path, made: ExperimentOutput, *, dataset: str, seed: int) -> None:
    """Writes the files of an output, with the command and the commit of this process.

    Args:
      folder: Where the files are written; the pictures are already there.
      made: The output.
      dataset: Name of the dataset.
      seed: Seed of the trainings and attacks.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(made.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(made.rows)
    storage.write_text(folder / f"{made.name}.csv", text.getvalue())
    values = {
        **dataclasses.asdict(made),
        "dataset": f"{dataset} {made.split}",
        "seed": seed,
        "commit": provenance.commit(),
        "command": provenance.command(),
    }
    storage.write_text(folder / f"{made.name}.md", "# " + output_markdown(values))
    # Last, so that an output with a JSON file is complete.
    storage.write_json(folder / f"{made.name}.json", values)


def output_markdown(values: Mapping[str, Any], place: str = "") -> str:
    """Returns an output as Markdown: title, table, pictures, and origin (images, seed, commit, command).

    Args:
      values: The content of its JSON file.
      place: Relative path of the pictures' folder with a "/" at the end, or "".
    """
    pictures = "".join(f"![{values['title']}]({place}{picture})\n\n" for picture in values["pictures"])
    return (
        f"{values['title']}\n\n{values['table']}\n{pictures}"
        f"{values['num_images']:,} images of {values['dataset']}, seed {values['seed']}, "
        f"commit {short_commit(values['commit'])}. {values['threat_model'].rstrip('.')}. "
        f"Numbers: [{values['name']}.csv]({place}{values['name']}.csv).\n\n"
        f"```bash\n{values['command']}\n```\n"
    )


def pivot(rows: Sequence[Mapping[str, Any]], index: Sequence[str], column: str, value: str, form: str) -> str:
    """Returns rows as a Markdown table with a line for each `index` and a column for each value of `column`.

    Args:
      rows: The numbers.
      index: Names of the columns that identify a line.
      column: Name of the column whose values become the table's columns, such as "epsilon".
      value: Name of the column that is shown.
      form: Format specification of the numbers, such as ".1%".

    Example:
    >>> rows = [{"attack": "x", "epsilon": 0.1, "success": 0.5}, {"attack": "x", "epsilon": 0.2, "success": 0.75}]
    >>> print(pivot(rows, ["attack"], "epsilon", "success", ".0%"))
    | attack | ε = 0.1 | ε = 0.2 |
    | :----- | ------: | ------: |
    | x      |     50% |     75% |
    """
    columns = sorted({row[column] for row in rows})
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for row in rows:
        lines.setdefault(tuple(str(row[key]) for key in index), {})[row[column]] = format(row[value], form)
    header = [*index, *(f"ε = {item:g}" for item in columns)]
    return markdown_table(
        header, [[*key, *(cells.get(item, "–") for item in columns)] for key, cells in lines.items()], len(index)
    )
