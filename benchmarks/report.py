"""Writes the results of benchmarks as JSON, Markdown and plots."""

import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import scaling
from wasser_tf.runtime import storage

_TITLES = {
    "steps": "An iteration of each attack against the classifier's forward and backward pass",
    "training": "A step of WasserTrain (10 iterations of mirror ascent) against a step of plain training",
    "scaling": "An iteration of mirror ascent on one core, in CPU time; transport alone is with a linear classifier",
    "strength": "Time to the same robust accuracy",
    "test_set": "A whole test set at one radius",
    "memory": "Peak memory of a training step",
    "replicas": "A training step over logical devices that share the same cores",
    "art": "The Wasserstein attack of the adversarial robustness toolbox",
}


def save(folder: pathlib.Path, metadata: Mapping[str, Any], results: Mapping[str, Any]) -> list[pathlib.Path]:
    """Writes benchmark.json, benchmark.md and the plots, and returns their paths."""
    paths = [folder / "benchmark.json", folder / "benchmark.md"]
    plots = _plots(folder, results)
    storage.write_json(paths[0], {"metadata": metadata, "results": results})
    storage.write_text(paths[1], markdown(metadata, results, [path.name for path in plots]))
    return paths + plots


def markdown(metadata: Mapping[str, Any], results: Mapping[str, Any], plots: list[str]) -> str:
    """Returns all tables."""
    parts = ["# Benchmarks", "Written by `make bench`; [speed.md](speed.md) explains the results.", _facts(metadata)]
    for section, result in results.items():
        parts.append(f"## {_TITLES[section]}")
        parts.append(_facts({key: value for key, value in result.items() if not isinstance(value, list)}))
        parts += [table(value) for value in result.values() if isinstance(value, list)]
    parts += [f"![{name}]({name})" for name in plots]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: list[Mapping[str, Any]]) -> str:
    """Returns rows as a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(key)) for key in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _facts(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {_cell(value)}" for key, value in values.items())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plots(folder: pathlib.Path, results: Mapping[str, Any]) -> list[pathlib.Path]:
    drawn = []
    if "steps" in results:
        rows = [row for row in results["steps"]["rows"] if row["model"] == "lenet"]
        bars = {row["attack"]: row["iteration / classifier"] for row in rows}
        drawn.append(_bars(folder / "benchmark_steps.png", bars, "iteration / (forward + backward), LeNet"))
    if "scaling" in results:
        drawn.append(_lines(folder / "benchmark_scaling.png", results["scaling"]["rows"]))
    if rows := results.get("strength", {}).get("rows"):
        bars = {row["attack"]: row["attack / mirror"] for row in rows if row["attack / mirror"]}
        drawn.append(_bars(folder / "benchmark_strength.png", bars, "seconds of each / seconds of mirror ascent"))
    return drawn


def _bars(path: pathlib.Path, values: Mapping[str, float], label: str) -> pathlib.Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 + 0.4 * max(len(values), 1)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(values), list(values.values()), color="#0072B2")
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.15)
    return _saved(figure, path)


def _lines(path: pathlib.Path, rows: list[Mapping[str, Any]]) -> pathlib.Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    labels = {"batch": "batch", "pixels": "shape", "kernel_size": "kernel_size"}
    for axes, (over, key) in zip(panels, labels.items(), strict=True):
        chosen = [row for row in rows if row["over"] == over]
        for (classifier, label), colour in zip(scaling.CLASSIFIERS.items(), ("#0072B2", "#D55E00"), strict=True):
            costs = [row[scaling.column(classifier)] for row in chosen]
            axes.plot([str(row[key]) for row in chosen], costs, "o-", color=colour, label=label)
        axes.set_xlabel(over.replace("_", " "))
        axes.tick_params(axis="x", labelrotation=30)
    # Last, because it ends the automatic scaling of the shared axis.
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("ns per iteration and pixel")
    panels[0].legend()
    return _saved(figure, path)


def _saved(figure: Any, path: pathlib.Path) -> pathlib.Path:
    with storage.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path
