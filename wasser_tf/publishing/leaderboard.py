"""The leaderboard: of each classifier a small JSON file, an entry, and one page that is rendered from all of them.

An entry is what an evaluation came to, and what its numbers mean: threat model, attacks, images, commit, command. Model
cards and the results pages are made of entries too, so no number is typed.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf.attacks import spec
from wasser_tf.attacks.scoring import flagged_in_words
from wasser_tf.evaluation.sweep import safe_name
from wasser_tf.reporting.tables import markdown_table, threat_model_caption
from wasser_tf.runtime import storage
from wasser_tf.threat_model import ThreatModel

LEADERBOARD = "leaderboard.md"
ENTRIES = "leaderboard"
# The radii of a dataset's board; the middle one sorts it.
RADII = {
    "digits": (0.02, 0.05, 0.1, 0.2, 0.3),
    "mnist": (0.1, 0.3, 0.5, 1.0),
    "cifar10": (0.01, 0.02, 0.05, 0.1, 0.2),
}
OTHER_RADII = (0.05, 0.1, 0.2)


def make_entry(
    report: Mapping[str, Any], name: str, *, description: str = "", num_weights: int | None = None
) -> dict[str, Any]:
    """Returns what a board keeps of the report.json of an evaluation of who stands, as plain Python values.

    Robust accuracy at ε is the share of images that no attack at any radius fooled at a cost of ε or less: balls are
    nested.

    Raises:
      ValueError: The report does not know the classifier.
    """
    if name not in report["models"]:
        raise ValueError(f"The evaluation knows {', '.join(report['models'])}, not {name!r}: give one of these names.")
    model, records = report["models"][name], [record for record in report["records"] if record["model"] == name]
    smallest = np.array([float(radius) for radius in model["minimal_radius"]])
    radii = sorted({record["epsilon"] for record in records})
    attacks = {
        label: {key: value for key, value in attack["config"].items() if key != "threat_model"}
        for label, attack in report["config"]["attacks"].items()
    }
    return {
        "name": name,
        "description": description,
        "dataset": report["images"],
        "num_images": report["num_images"],
        "threat_model": {key: value for key, value in records[0]["threat_model"].items() if key != "epsilon"},
        "attacks": attacks,
        "seed": records[0]["seed"],
        "natural_accuracy": records[0]["natural_accuracy"],
        "robust_accuracy": {f"{radius:g}": float(np.mean(smallest > radius)) for radius in radii},
        **_warnings(model, records),
        "least_feasible_share": min(record["feasible"]["feasible_share"] for record in records),
        # The last row is of all attacks at all radii.
        "seconds": round(records[-1]["seconds"]),
        "num_weights": num_weights,
        "fingerprint": model["fingerprint"],
        "commit": report["commit"],
        "command": report["command"],
    }


def _warnings(model: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns {"warnings": sentences} of what makes the robust accuracy doubtful, or {}."""
    flagged = max((record.get("num_flagged", 0) for record in records), default=0)
    found = [flagged_in_words(flagged, records[0]["num_images"])] if flagged else []
    if masked := model.get("gradient_masking"):
        found.append(f"Gradient masking is likely ({', '.join(masked)}): do not trust the robust accuracy.")
    return {"warnings": found} if found else {}


def write_leaderboard(results_dir: pathlib.Path) -> pathlib.Path:
    """Renders the page from the entries that are stored.

    Raises:
      ValueError: There are none, or one is unreadable.
    """
    found = entries(results_dir)
    if not found:
        raise ValueError(f"{results_dir / ENTRIES} holds no entries: add a classifier first.")
    storage.write_text(results_dir / LEADERBOARD, render_leaderboard(found))
    return results_dir / LEADERBOARD


def entry_path(results_dir: pathlib.Path, dataset: str, entry: Mapping[str, Any]) -> pathlib.Path:
    """Returns where an entry is stored: by dataset, threat model and name, so that no ball overwrites another's."""
    threat_model = ThreatModel.from_config({**entry["threat_model"], "epsilon": 0.0})
    return results_dir / ENTRIES / safe_name(dataset) / threat_model.slug / f"{safe_name(entry['name'])}.json"


def entries(results_dir: pathlib.Path, dataset: str | None = None) -> list[dict[str, Any]]:
    """Returns the stored entries, those of one dataset or all."""
    return [storage.read_json(path) for path in sorted((results_dir / ENTRIES).glob(f"{dataset or '*'}/*/*.json"))]


def render_leaderboard(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page: a table for each set of images and threat model, the most robust first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in found:
        groups.setdefault((one["dataset"], ball_in_words(one)), []).append(one)
    parts = [
        "# Leaderboard\n\n"
        "Accuracy on clean images, and robust accuracy: the share of images that no attack fooled within ε. Every "
        "example counted is feasible. Robust accuracies are upper bounds: a stronger attack may lower them. Rendered "
        f"from [{ENTRIES}/]({ENTRIES}) by `python bin/leaderboard.py`.\n"
    ]
    for (dataset, ball), members in groups.items():
        parts.append(f"## {dataset}\n\n{ball}.\n\n{leaderboard_table(members)}")
        parts.append(
            "\n".join(f"- **{one['name']}**: {one['description']}" for one in members if one["description"]) + "\n"
        )
    return "\n".join(part for part in parts if part.strip())


def leaderboard_table(members: Sequence[Mapping[str, Any]]) -> str:
    """Returns a board's table; members share images' name and threat model."""
    radii = sorted({float(radius) for one in members for radius in one["robust_accuracy"]})
    shared = [radius for radius in radii if all(f"{radius:g}" in one["robust_accuracy"] for one in members)]
    by = f"{shared[len(shared) // 2]:g}" if shared else None

    def rank(one: Mapping[str, Any]) -> tuple[float, float]:
        return (-one["robust_accuracy"][by] if by else 0.0, -one["natural_accuracy"])

    rows = [
        [
            one["name"],
            "–" if one["num_weights"] is None else f"{one['num_weights']:,}",
            percent(one["natural_accuracy"]),
            *(
                percent(one["robust_accuracy"].get(f"{radius:g}")) + (" (!)" if one.get("warnings") else "")
                for radius in radii
            ),
            f"{one['num_images']:,}",
            attacks_in_words(one["attacks"]),
            short_commit(one["commit"]),
        ]
        for one in sorted(members, key=rank)
    ]
    header = ["classifier", "weights", "natural", *(f"ε = {radius:g}" for radius in radii)]
    warnings = "".join(f"\n(!) **{one['name']}**: {line}\n" for one in members for line in one.get("warnings", ()))
    return markdown_table([*header, "images", "attack", "commit"], rows) + warnings


def ball_in_words(one: Mapping[str, Any]) -> str:
    """Returns an entry's threat model as a sentence without its epsilon."""
    return threat_model_caption({**one["threat_model"], "epsilon": 0.0}).rstrip(".")


def attacks_in_words(attacks: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the attacks of an entry, each with its iterations, and its restarts where it has several.

    An attack that is there with more restarts too is left out: the first of those is what it does.
    """

    def in_words(name: str, settings: Mapping[str, Any]) -> str:
        restarts = f", {settings['restarts']} restarts" if settings.get("restarts", 1) > 1 else ""
        return f"{spec.attack_name(name)}, {settings['iterations']} iterations{restarts}"

    def contained(name: str, settings: Mapping[str, Any]) -> bool:
        return any(
            spec.attack_name(name) == spec.attack_name(other)
            and settings.get("restarts", 1) < theirs.get("restarts", 1)
            and {**settings, "restarts": 0} == {**theirs, "restarts": 0}
            for other, theirs in attacks.items()
        )

    told = [(name, settings) for name, settings in attacks.items() if not contained(name, settings)]
    return "; ".join(in_words(name, settings) for name, settings in told)


def percent(share: float | None) -> str:
    """Returns a share in per cent, or a dash."""
    return "–" if share is None else f"{100 * share:.2f} %"


def short_commit(commit: str | None) -> str:
    """Returns a commit as it is usually written."""
    return "unknown" if commit is None else commit[:8] + ("-dirty" if commit.endswith("-dirty") else "")
