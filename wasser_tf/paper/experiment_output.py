"""A table or figure as files: NAME.json and NAME.csv (the numbers), NAME.md (to be read), NAME.png where it is one."""

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
    """What an experiment ends with.

    Attributes:
      name: Its files are called so.
      title: What it shows.
      rows: The numbers, each row the same columns.
      table: The same as Markdown, as a person wants it.
      num_images: How many images the numbers are of.
      split: The split of the dataset that they are from.
      threat_model: The ball in words, or what stands for it.
      settings: All else that the numbers depend on, as plain values.
      pictures: File names of its pictures, which are there.
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
    """Writes the files, with the command and the commit of this process."""
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
    # Last: where it is there, all is there.
    storage.write_json(folder / f"{made.name}.json", values)


def output_markdown(values: Mapping[str, Any], place: str = "") -> str:
    """Returns an output to be read: title, table, pictures, and where it comes from.

    Args:
      values: What its JSON file holds.
      place: The folder of the pictures, as seen from the page; it ends in "/" unless it is empty.
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
    """Returns rows as a Markdown table: a line for each `index`, a column for each value of `column`.

    Args:
      rows: The numbers.
      index: Columns that name a line.
      column: The one whose values are the columns, as ε.
      value: The one that is shown.
      form: How a number is written, such as ".1%".
    """
    columns = sorted({row[column] for row in rows})
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for row in rows:
        lines.setdefault(tuple(str(row[key]) for key in index), {})[row[column]] = format(row[value], form)
    header = [*index, *(f"ε = {item:g}" for item in columns)]
    return markdown_table(
        header, [[*key, *(cells.get(item, "–") for item in columns)] for key, cells in lines.items()], len(index)
    )
