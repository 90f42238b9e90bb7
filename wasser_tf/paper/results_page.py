"""The results page of a dataset, docs/results/DATASET.md: its frontier, the paper's numbers, ours, and notes."""

import pathlib

from wasser_tf.paper import experiment_output, frontier, published_numbers
from wasser_tf.publishing import leaderboard
from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import storage

# The order of the outputs on the page.
NAMES = ("table1", "fig1", "fig3", "fig4", "fig5", "beyond", "certified")
NOTES = "notes.md"


def write_results_page(results_dir: pathlib.Path, dataset: str) -> pathlib.Path:
    """Renders the page from results_dir/DATASET/*.json, the leaderboard's entries and results_dir/DATASET/notes.md.

    With results of others in results_dir/DATASET/published.json, the frontier comes first (`paper.frontier`).

    Args:
      results_dir: Folder of all published results, such as docs/results.
      dataset: Name of the dataset's folder in it.

    Returns:
      The path of the page.

    Raises:
      ValueError: There are no outputs, or one cannot be read.
    """
    folder = results_dir / dataset
    found = {name: storage.read_json(folder / f"{name}.json") for name in NAMES if (folder / f"{name}.json").exists()}
    if not found:
        raise ValueError(f"{folder} contains no outputs: run bin/reproduce.py with --publish_dir={results_dir} first.")
    section = frontier.frontier_section(results_dir, dataset)
    title = f"Robust classifiers of {dataset}" if section else f"The paper on {dataset}, reproduced"
    parts = [f"# {title}\n\nRendered from [{dataset}/]({dataset}) by `bin/reproduce.py`.\n"]
    if section:
        parts.append(f"{section}\n# The paper on {dataset}, reproduced\n")
    if dataset in published_numbers.PAPERS:
        rows = [list(line) for line in published_numbers.lines(dataset, found)]
        header = ["", "the paper", "ours, as the paper scores", "ours, feasible"]
        if rows:
            parts.append(f"## Comparison\n\n{markdown_table(header, rows)}")
    notes = folder / NOTES
    if notes.exists():
        parts.append(f"## Differences\n\n{notes.read_text(encoding='utf-8').strip()}\n")
    parts += [f"## {experiment_output.output_markdown(values, f'{dataset}/')}" for values in found.values()]
    if not section and (entries := leaderboard.entries(results_dir, dataset)):
        parts.append(
            f"## Under the strongest ensemble\n\n{leaderboard.ball_in_words(entries[0])}. All classifiers: "
            f"[the leaderboard]({leaderboard.LEADERBOARD}).\n\n{leaderboard.leaderboard_table(entries)}"
        )
    path = results_dir / f"{dataset}.md"
    storage.write_text(path, "\n".join(parts))
    return path
