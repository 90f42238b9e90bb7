"""The published attacks on CIFAR-10, each with its authors' settings there.

The settings are those of the scripts that the authors published: `attack_cifar.py` of Wong et al. 2019,
`attack_cifar_baseline.py` of Hu et al. 2020, and the scripts in `bash/` of Wu et al. 2020, which run all of their
attacks and Wong's at ε = 0.005. What the papers report is for their own classifiers.

    python benchmarks/published.py --num_examples=64 --output=runs/published.jsonl
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import RadiusSchedule, ThreatModel, attacks
from wasser_tf.attacks import Attack
from wasser_tf.reporting import tables

_WU_RADIUS = 0.005
_WU_ITERATIONS = 300
_LARGEST_RADIUS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddingSchedule(RadiusSchedule):
    """The radius of Hu et al.: `start` and `increment` more after every `every` iterations.

    Attributes:
      increment: What is added.
    """

    increment: float = 0.001

    def radius(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns the radius at an iteration (int32 scalar, from 0), a float32 scalar."""
        growth = tf.cast(tf.math.floordiv(iteration, self.every), tf.float32)
        return tf.clip_by_value(self.start + self.increment * growth, self.minimum, self.maximum)


class Published(NamedTuple):
    """An attack with its authors' settings for CIFAR-10, and the radii at which it is reported."""

    name: str
    attack: Attack
    radii: Sequence[float]


def published(iterations: int | None = None) -> list[Published]:
    """Returns the attacks.

    Args:
      iterations: Of each attack; by default the authors'.
    """
    wong = {"regularization": 3000.0, "iterations": iterations or 400}
    grown = RadiusSchedule(start=0.001, factor=1.17, every=10, minimum=0.001, maximum=_LARGEST_RADIUS)
    added = AddingSchedule(start=0.001, every=1, minimum=0.001, maximum=_LARGEST_RADIUS)
    wu_ball, wu = ThreatModel(epsilon=_WU_RADIUS), {"iterations": iterations or _WU_ITERATIONS}
    return [
        Published(
            "projected Sinkhorn, Wong et al., p = 2",
            attacks.make("projected_sinkhorn", ThreatModel(p=2.0), schedule=grown, **wong),
            (0.005, 0.01, 0.02, 0.05, 0.1),
        ),
        Published(
            "projected Sinkhorn, Wong et al., p = 1",
            attacks.make("projected_sinkhorn", ThreatModel(), schedule=grown, **wong),
            (0.005, 0.01, 0.02, 0.05, 0.1),
        ),
        Published(
            "constrained Sinkhorn, Hu et al.",
            attacks.make(
                "constrained_sinkhorn",
                ThreatModel(),
                schedule=added,
                regularization=3000.0,
                iterations=iterations or 400,
            ),
            (0.005, 0.01, 0.02, 0.05, 0.1),
        ),
        Published(
            "projected Sinkhorn, Wu et al.",
            attacks.make(
                "projected_sinkhorn",
                wu_ball,
                regularization=3000.0,
                sinkhorn_iterations=500,
                stop_when_fooled=False,
                **wu,
            ),
            (_WU_RADIUS,),
        ),
        Published("Frank-Wolfe, Wu et al.", attacks.make("frank_wolfe", wu_ball, **wu), (_WU_RADIUS,)),
        Published(
            "dual projection, Wu et al.", attacks.make("dual_projection", wu_ball, step_size=0.01, **wu), (_WU_RADIUS,)
        ),
    ]


def measure(chosen: Published, classifier: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Attacks the images, and returns the robust accuracy of raw and of feasible examples at each radius.

    Where the radius grows, an image counts as robust at a radius if it was fooled at a larger one only.
    """
    started = time.process_time()
    result = chosen.attack(classifier, images, labels, from_logits=True, batch_size=len(labels))
    seconds = time.process_time() - started
    radii = {}
    for radius in chosen.radii:
        within = result.radius <= radius * (1 + 1e-6)
        radii[f"{radius:g}"] = {
            "raw": 1 - float(np.mean(result.raw_success & within)),
            "feasible": 1 - float(np.mean(result.success & within)),
        }
    return {
        "attack": chosen.name,
        "images": len(labels),
        "natural_accuracy": float(np.mean(classifier.predict(images, verbose=0).argmax(axis=1) == labels)),
        "radii": radii,
        "raw_precision_error": float(np.mean(result.raw_feasibility.mass_error)),
        "raw_largest_pixel": float(np.max(result.raw)),
        "iterations": int(np.max(result.iterations)),
        "cpu_seconds": seconds,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown table: robust accuracy in %, raw / feasible."""
    radii = sorted({radius for row in rows for radius in row["radii"]}, key=float)

    def cell(shares: dict[str, float] | None) -> str:
        return f"{100 * shares['raw']:.1f} / {100 * shares['feasible']:.1f}" if shares else ""

    cells = [
        [
            row["attack"],
            *(cell(row["radii"].get(radius)) for radius in radii),
            f"{row['raw_precision_error']:.1e}",
            f"{row['raw_largest_pixel']:.2f}",
        ]
        for row in rows
    ]
    return tables.markdown_table(["attack", *radii, "raw precision error", "raw largest pixel"], cells)


def _main() -> None:
    """Measures all attacks, or those given, and prints the table."""
    from absl import flags

    from benchmarks import strength_grid
    from wasser_tf.commands import _flags

    flags.DEFINE_string("classifier", "cifar10_standard", "A pretrained classifier, or the path of one.")
    flags.DEFINE_list("rows", None, "Numbers of the attacks, from 0 (default: all).")
    flags.DEFINE_integer("num_examples", 64, "Validation images, the first ones.", lower_bound=1)
    flags.DEFINE_string(
        "data_dir", None, "Folder of the prepared sets (the parent of cifar10/). TFDS's own by default."
    )
    flags.DEFINE_string("output", "runs/published.jsonl", "File to which a JSON line is added for each attack.")

    def main() -> None:
        given = flags.FLAGS
        grid = strength_grid.Grid([], [], [], None, given.num_examples, ThreatModel(), given.data_dir)
        target = strength_grid.load_target(given.classifier, grid)
        path = pathlib.Path(given.output).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, chosen in enumerate(published()):
            if given.rows is None or str(number) in given.rows:
                rows.append(measure(chosen, target.classifier, target.images, target.labels))
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        print(table(rows))

    _flags.run(main)


if __name__ == "__main__":
    _main()
