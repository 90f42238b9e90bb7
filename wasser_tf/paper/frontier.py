"""The section of a results page on natural against robust accuracy, with the results that others published.

`DATASET/published.json` holds those: {"about": caption, "drawn_up_to": largest radius, "results": [{"name",
"natural_accuracy" (or null), "robust_accuracy" {radius: share}, "attack", "source"}, …]}. Ours are the leaderboard's
entries and those in `DATASET/frontier/`, which were measured on other images or by other attacks.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from wasser_tf.publishing import leaderboard
from wasser_tf.reporting.frontier import FrontierPoint, save_frontier
from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percent

PUBLISHED = "published.json"
PICTURE = "frontier.png"
_FOLDER = "frontier"
_NOTES = "frontier.md"
# An entry is drawn if its robust accuracy is the worst case over attacks with this one among them.
_DRAWN = "mirror_ascent"


def frontier_section(results_dir: pathlib.Path, dataset: str) -> str:
    """Draws the frontier of a dataset and returns its section of the results page.

    Args:
      results_dir: Folder of all published results, such as docs/results.
      dataset: Name of the dataset's folder in it.

    Returns:
      The section as Markdown; "" without published results to compare with.

    Raises:
      ValueError: An entry or the published results cannot be read, or there are no entries.
    """
    folder = results_dir / dataset
    if not (folder / PUBLISHED).exists():
        return ""
    published = storage.read_json(folder / PUBLISHED)
    main = leaderboard.entries(results_dir, dataset)
    if not main:
        raise ValueError(f"{results_dir} has no leaderboard entries of {dataset} to compare with {PUBLISHED}: add one.")
    further = [storage.read_json(path) for path in sorted((folder / _FOLDER).glob("*.json"))]
    points = frontier_points([*main, *further])
    others = [_point(one["name"], one["natural_accuracy"], one) for one in published["results"]]
    radii = {radius for point in [*points, *others] for radius in point.robust}
    shown = sorted(radius for radius in radii if radius <= published["drawn_up_to"])
    save_frontier(folder / PICTURE, points, shown, published=others, caption=published["about"])
    notes = folder / _NOTES
    text = f"{notes.read_text(encoding='utf-8').strip()}\n\n" if notes.exists() else ""
    ball = f"{leaderboard.ball_in_words(main[0])}. All classifiers: [the leaderboard]({leaderboard.LEADERBOARD})."
    return (
        f"## Natural against robust accuracy\n\n{text}![Frontier]({dataset}/{PICTURE})\n\n{ball}\n\n"
        f"{leaderboard.leaderboard_table([*main, *further])}\n"
        f"Published by others:\n\n{_table(published['results'])}"
    )


def frontier_points(entries: Sequence[Mapping[str, Any]]) -> list[FrontierPoint]:
    """Returns a point for each classifier with an entry under mirror ascent.

    Several entries of a classifier are merged: at each radius the one with the most images counts.

    Args:
      entries: Leaderboard entries.
    """
    merged: dict[str, FrontierPoint] = {}
    for entry in sorted(entries, key=lambda entry: entry["num_images"], reverse=True):
        if not any(name.startswith(_DRAWN) for name in entry["attacks"]):
            continue
        point = _point(entry["name"], entry["natural_accuracy"], entry)
        known = merged.setdefault(entry["name"], point)
        merged[entry["name"]] = known._replace(robust={**point.robust, **known.robust})
    return sorted(merged.values(), key=lambda point: point.name)


def _point(name: str, natural: float | None, values: Mapping[str, Any]) -> FrontierPoint:
    return FrontierPoint(name, natural, {float(radius): share for radius, share in values["robust_accuracy"].items()})


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    radii = sorted({float(radius) for one in results for radius in one["robust_accuracy"]})
    rows = [
        [
            one["name"],
            percent(one["natural_accuracy"]),
            *(percent(one["robust_accuracy"].get(f"{radius:g}")) for radius in radii),
            one["attack"],
            one["source"],
        ]
        for one in results
    ]
    return markdown_table(["classifier", "natural", *(f"ε = {radius:g}" for radius in radii), "attack", "source"], rows)
