"""The robust accuracy that attacks leave, over a grid of classifiers, radii, attacks and iterations.

On validation images, so that defaults can be chosen by it. Every cell is stored as a JSON line as soon as it is
measured, and a stored cell is not measured again: the same command resumes an interrupted grid.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks import material
from wasser_tf import ThreatModel, models, pretrained
from wasser_tf.attacks import Attack
from wasser_tf.attacks.spec import make_from_spec
from wasser_tf.data.selection import ImageSource

# One radius below, around and above those at which each dataset's classifiers fall.
RADII = {
    "digits": (0.05, 0.1, 0.3, 0.5, 1.0, 2.0),
    "mnist": (0.05, 0.1, 0.3, 0.5, 1.0, 2.0),
    "cifar10": (0.001, 0.005, 0.01, 0.05, 0.1),
}
DIGITS = "digits"
# The fields that identify a cell.
_KEY = ("classifier", "images", "epsilon", "attack", "iterations", "ball")


class Grid(NamedTuple):
    """What is measured.

    Attributes:
      classifiers: Each "digits" (a LeNet, trained for a moment), the name of a pretrained classifier or a path.
      attacks: Each "name" or "name:setting=value".
      iterations: Iterations of each attack.
      radii: None for those of each dataset.
      num_examples: The number of images, the first of the validation split.
      ball: The threat model; its epsilon is not used.
      data_dir: The folder of prepared sets.
    """

    classifiers: Sequence[str]
    attacks: Sequence[str]
    iterations: Sequence[int]
    radii: Sequence[float] | None
    num_examples: int
    ball: ThreatModel
    data_dir: str | None


class Target(NamedTuple):
    """A classifier, and the validation images that it is attacked on."""

    classifier: keras.Model
    dataset: str
    images: np.ndarray
    labels: np.ndarray


def dataset_of(classifier: str) -> str:
    """Returns the name of the dataset that a classifier of the grid is for, by its card or its name."""
    if classifier == DIGITS:
        return DIGITS
    known = classifier.removeprefix(pretrained.PREFIX)
    return known.partition("_")[0] if known in pretrained.names() else "mnist"


def load_target(classifier: str, grid: Grid) -> Target:
    """Loads a classifier of the grid and its images.

    Raises:
      ValueError: The classifier or its dataset is missing or unreadable.
    """
    dataset = dataset_of(classifier)
    if dataset == DIGITS:
        model, digits = material.lenet_on_digits()
        split = digits.validation
        return Target(model, dataset, split.images[: grid.num_examples], split.labels[: grid.num_examples])
    known = classifier in pretrained.names()
    model = models.load_classifier(f"{pretrained.PREFIX}{classifier}" if known else classifier)
    chosen = ImageSource(dataset=dataset, data_dir=grid.data_dir, split="validation", num_examples=grid.num_examples)
    selection = chosen.load()
    return Target(model, dataset, selection.images, selection.labels)


def measure(grid: Grid, path: pathlib.Path) -> list[dict[str, Any]]:
    """Measures the cells that are not stored yet.

    Args:
      grid: Which cells.
      path: The file of JSON lines, which is created or appended to.

    Returns:
      All cells of the grid, from the file and new.
    """
    stored = {_key(cell): cell for cell in read(path)}
    cells = []
    for classifier in grid.classifiers:
        target = None
        for description in grid.attacks:
            for iterations in grid.iterations:
                wanted = [
                    {
                        "classifier": pathlib.Path(classifier).stem,
                        "images": grid.num_examples,
                        "epsilon": epsilon,
                        "attack": description,
                        "iterations": iterations,
                        "ball": _words(grid.ball),
                    }
                    for epsilon in grid.radii or RADII[dataset_of(classifier)]
                ]
                missing = [cell for cell in wanted if _key(cell) not in stored]
                if missing:
                    target = target or load_target(classifier, grid)
                    attack = make_from_spec(description, grid.ball, {"iterations": iterations})
                    for cell in _attack(target, attack, missing):
                        stored[_key(cell)] = cell
                        _append(path, cell)
                cells += [stored[_key(cell)] for cell in wanted]
    return cells


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the stored cells; none where there is no file. A last line that was not finished is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown table for each classifier: robust accuracy in %, by attack and iterations against radius."""
    tables = []
    for classifier in dict.fromkeys(cell["classifier"] for cell in cells):
        own = [cell for cell in cells if cell["classifier"] == classifier]
        radii = sorted({cell["epsilon"] for cell in own})
        head = f"| {classifier} | iterations | " + " | ".join(f"{radius:g}" for radius in radii) + " |"
        rows = {}
        for cell in own:
            row = rows.setdefault((cell["attack"], cell["iterations"]), {})
            row[cell["epsilon"]] = f"{100 * cell['robust_accuracy']:.1f}"
        lines = [
            f"| {attack} | {iterations} | " + " | ".join(row.get(radius, "") for radius in radii) + " |"
            for (attack, iterations), row in rows.items()
        ]
        tables.append("\n".join([head, "| :-- | --: |" + " --: |" * len(radii), *lines]))
    return "\n\n".join(tables)


def _attack(target: Target, attack: Attack, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Attacks the images at all radii at once, so that one compiled function serves them."""
    count = len(target.labels)
    radii = np.repeat(np.array([cell["epsilon"] for cell in wanted], np.float32), count)
    copies = len(wanted)
    started = time.perf_counter()
    result = attack(
        target.classifier,
        np.concatenate([target.images] * copies),
        np.concatenate([target.labels] * copies),
        radius=radii,
        index=np.tile(np.arange(count, dtype=np.int32), copies),
        from_logits=True,
        batch_size=count,
    )
    seconds = (time.perf_counter() - started) / copies
    measured = []
    for number, cell in enumerate(wanted):
        part = slice(number * count, (number + 1) * count)
        measured.append(
            {
                **cell,
                "images": count,
                "robust_accuracy": 1 - float(np.mean(result.success[part])),
                "raw_robust_accuracy": 1 - float(np.mean(result.raw_success[part])),
                "cross_entropy": float(np.mean(result.loss[part])),
                "raw_precision_error": float(np.max(result.raw_feasibility.mass_error[part])),
                "mean_cost": float(np.mean(result.feasibility.cost[part])),
                "all_feasible": bool(result.feasibility.feasible()[part].all()),
                "seconds": seconds,
            }
        )
    return measured


def _key(cell: dict[str, Any]) -> tuple:
    return tuple(cell[name] for name in _KEY)


def _words(ball: ThreatModel) -> str:
    settings = {name: value for name, value in ball.get_config().items() if name != "epsilon"}
    return json.dumps(settings, sort_keys=True)


def _append(path: pathlib.Path, cell: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (text := path.read_text()).endswith("\n"):
        # A killed run left half a line.
        path.write_text(text[: text.rfind("\n") + 1])
    with path.open("a") as file:
        file.write(json.dumps(cell) + "\n")
