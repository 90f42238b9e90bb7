"""The leaderboard: one JSON file (an entry) per classifier and threat model, and a page rendered from all entries.

An entry contains the results of an evaluation and their context: threat model, attacks, images, commit, command. Cards
and results pages are rendered from entries too, so no number is typed by hand.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf.attacks import spec
from wasser_tf.attacks.scoring import flagged_in_words
from wasser_tf.evaluation.fingerprint import safe_name
from wasser_tf.publishing.certified import certified_by, certified_part, check_certified
from wasser_tf.reporting.bracket import Bracket
from wasser_tf.reporting.certification import Certified
from wasser_tf.reporting.tables import markdown_table, threat_model_caption
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percent
from wasser_tf.threat_model import ThreatModel

LEADERBOARD = "leaderboard.md"
ENTRIES = "leaderboard"
# The radii of each dataset's table. The table is sorted by the middle one.
RADII = {
    "digits": (0.02, 0.05, 0.1, 0.2, 0.3),
    "mnist": (0.1, 0.3, 0.5, 1.0),
    "cifar10": (0.01, 0.02, 0.05, 0.1, 0.2),
}
OTHER_RADII = (0.05, 0.1, 0.2)


def make_entry(
    report: Mapping[str, Any], name: str, *, description: str = "", num_weights: int | None = None
) -> dict[str, Any]:
    """Makes a leaderboard entry from an evaluation.

    The robust accuracy at ε is the share of images that no attack fooled, at any of the radii, at a cost of at most ε
    (balls are nested). If the evaluation was given a certification, the entry has certified accuracies too.

    Args:
      report: The content of report.json of an evaluation with `skip_fooled`, see `runtime.run_files.read_document`.
      name: The classifier's name in the report.
      description: A sentence about the classifier, printed below the table.
      num_weights: Number of the classifier's weights; None if unknown.

    Returns:
      The entry as plain Python values.

    Raises:
      ValueError: The report does not contain the classifier, or an attack fooled an image within its certified radius.

    Example (`wasser_tf.runs.leaderboard.add_to_leaderboard` does this in one call):

    ```python
    report = read_document(output_dir / REPORT, Schema.EVALUATION_REPORT)
    entry = make_entry(report, "mine", description="LeNet, WasserTrain.", num_weights=classifier.count_params())
    storage.write_json(entry_path(results_dir, "mnist", entry), entry)
    write_leaderboard(results_dir)
    ```
    """
    if name not in report["models"]:
        raise ValueError(
            f"The evaluation contains {', '.join(report['models'])}, not {name!r}: pass one of these names."
        )
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
        "images_digest": report["images_digest"],
        "num_images": report["num_images"],
        "threat_model": {key: value for key, value in records[0]["threat_model"].items() if key != "epsilon"},
        "attacks": attacks,
        "seed": records[0]["seed"],
        "natural_accuracy": records[0]["natural_accuracy"],
        "robust_accuracy": {f"{radius:g}": float(np.mean(smallest > radius)) for radius in radii},
        **_certified(name, model, smallest, radii),
        **_warnings(model, records),
        "least_feasible_share": min(record["feasible"]["feasible_share"] for record in records),
        # The last record covers all attacks at all radii.
        "seconds": round(records[-1]["seconds"]),
        "num_weights": num_weights,
        "fingerprint": model["fingerprint"],
        # A resumed evaluation keeps what was attacked before; older files do not say at which commit.
        "commit": ", ".join(model.get("attacked_at", ())) or report["commit"],
        "command": report["command"],
    }


def _certified(name: str, model: Mapping[str, Any], smallest: np.ndarray, radii: Sequence[float]) -> dict[str, Any]:
    """Returns {"certified": accuracies and method}, or {} without certificates."""
    if "certified" not in model:
        return {}
    certified = Certified.from_json(model["certified"])
    if wrong := Bracket(certified.radius, smallest).contradictions():
        raise ValueError(
            f"Attacks fooled {wrong} images of {name} within their certified radii, so the certificates or the attack "
            "are wrong: report it, and do not publish this entry."
        )
    return {"certified": certified_part(certified, radii)}


def _warnings(model: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns {"warnings": sentences} of what makes the robust accuracy doubtful, or {}."""
    flagged = max((record.get("num_flagged", 0) for record in records), default=0)
    found = [flagged_in_words(flagged, records[0]["num_images"])] if flagged else []
    if masked := model.get("gradient_masking"):
        found.append(f"Gradient masking is likely ({', '.join(masked)}): do not trust the robust accuracy.")
    weak = [check["name"] for check in model.get("sanity", ()) if check["passed"] is False and not check["masking"]]
    if weak:
        found.append(f"The attack is not at its strongest ({', '.join(weak)}): the robust accuracy may be lower.")
    return {"warnings": found} if found else {}


def write_leaderboard(results_dir: pathlib.Path) -> pathlib.Path:
    """Renders results_dir/leaderboard.md from the stored entries.

    Returns:
      The path of the page.

    Raises:
      ValueError: There are no entries, one cannot be read, or one certifies more images than withstood the attack.
    """
    found = entries(results_dir)
    for entry in found:
        check_certified(entry)
    if not found:
        raise ValueError(f"{results_dir / ENTRIES} contains no entries: add a classifier first.")
    storage.write_text(results_dir / LEADERBOARD, render_leaderboard(found))
    return results_dir / LEADERBOARD


def entry_path(results_dir: pathlib.Path, dataset: str, entry: Mapping[str, Any]) -> pathlib.Path:
    """Returns the path of an entry, dataset/threat_model/name.json: an entry of each threat model has its own file."""
    threat_model = ThreatModel.from_config({**entry["threat_model"], "epsilon": 0.0})
    return results_dir / ENTRIES / safe_name(dataset) / threat_model.slug / f"{safe_name(entry['name'])}.json"


def entries(results_dir: pathlib.Path, dataset: str | None = None) -> list[dict[str, Any]]:
    """Returns the stored entries of one dataset, or of all (None).

    Raises:
      ValueError: An entry cannot be read.
    """
    return [storage.read_json(path) for path in sorted((results_dir / ENTRIES).glob(f"{dataset or '*'}/*/*.json"))]


def render_leaderboard(found: Sequence[Mapping[str, Any]]) -> str:
    """Renders entries as a page with a table for each dataset and threat model, the most robust classifiers first.

    Args:
      found: The entries, see `make_entry`.

    Returns:
      The page as Markdown.

    Example:
    >>> entry = {
    ...     "name": "mine",
    ...     "description": "A linear classifier.",
    ...     "dataset": "digits test",
    ...     "num_images": 100,
    ...     "threat_model": {"p": 1.0},
    ...     "attacks": {"mirror_ascent": {"iterations": 50}},
    ...     "natural_accuracy": 0.95,
    ...     "robust_accuracy": {"0.1": 0.4},
    ...     "num_weights": 650,
    ...     "commit": None,
    ... }
    >>> for line in render_leaderboard([entry]).splitlines():
    ...     if line.startswith(("#", "|")):
    ...         print(line)
    # Leaderboard
    ## digits test
    | classifier | weights | natural | ε = 0.1 | images |                       attack |  commit |
    | :--------- | ------: | ------: | ------: | -----: | ---------------------------: | ------: |
    | mine       |     650 | 95.00 % | 40.00 % |    100 | mirror_ascent, 50 iterations | unknown |
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in found:
        groups.setdefault((entry["dataset"], ball_in_words(entry)), []).append(entry)
    parts = [
        "# Leaderboard\n\n"
        "Accuracy on clean images, and robust accuracy: the share of images that no attack fooled within ε. Only "
        "feasible examples count. Robust accuracies are upper bounds: a stronger attack may lower them. Certified "
        "accuracies, if an entry has any, are lower bounds: the share of the same images whose right answer no "
        "feasible plan of radius ε changes. Rendered "
        f"from [{ENTRIES}/]({ENTRIES}) by `python bin/leaderboard.py`.\n"
    ]
    for (dataset, ball), members in groups.items():
        parts.append(f"## {dataset}\n\n{ball}.\n\n{leaderboard_table(members)}")
        parts.append(
            "\n".join(f"- **{entry['name']}**: {entry['description']}" for entry in members if entry["description"])
            + "\n"
        )
    return "\n".join(part for part in parts if part.strip())


def leaderboard_table(members: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of entries that share their images and threat model.

    It is sorted by the robust accuracy at the middle of the radii that all entries share, then by natural accuracy.
    """
    radii = sorted({float(radius) for entry in members for radius in entry["robust_accuracy"]})
    shared = [radius for radius in radii if all(f"{radius:g}" in entry["robust_accuracy"] for entry in members)]
    by = f"{shared[len(shared) // 2]:g}" if shared else None
    proved = radii if any("certified" in entry for entry in members) else []

    def rank(entry: Mapping[str, Any]) -> tuple[float, float]:
        return (-entry["robust_accuracy"][by] if by else 0.0, -entry["natural_accuracy"])

    rows = [
        [
            entry["name"],
            "–" if entry["num_weights"] is None else f"{entry['num_weights']:,}",
            percent(entry["natural_accuracy"]),
            *(
                percent(entry["robust_accuracy"].get(f"{radius:g}")) + (" (!)" if entry.get("warnings") else "")
                for radius in radii
            ),
            *(percent(entry.get("certified", {}).get("accuracy", {}).get(f"{radius:g}")) for radius in proved),
            f"{entry['num_images']:,}",
            attacks_in_words(entry["attacks"]),
            short_commit(entry["commit"]),
        ]
        for entry in sorted(members, key=rank)
    ]
    header = ["classifier", "weights", "natural", *(f"ε = {radius:g}" for radius in radii)]
    header += [f"certified {radius:g}" for radius in proved]
    warnings = "".join(f"\n(!) **{one['name']}**: {line}\n" for one in members for line in one.get("warnings", ()))
    methods = "".join(
        f"\n**{one['name']}** is certified by {certified_by(one)}.\n" for one in members if certified_by(one)
    )
    return markdown_table([*header, "images", "attack", "commit"], rows) + warnings + methods


def ball_in_words(entry: Mapping[str, Any]) -> str:
    """Describes the threat model of an entry in words, without its epsilon."""
    return threat_model_caption({**entry["threat_model"], "epsilon": 0.0}).rstrip(".")


def attacks_in_words(attacks: Mapping[str, Mapping[str, Any]]) -> str:
    """Describes the attacks of an entry: name, iterations, and restarts if there are several.

    An attack that also runs with more restarts is left out, because the first of these restarts is identical to it.

    Args:
      attacks: The settings of each attack, by name or by name:settings.

    Example:
    >>> attacks_in_words({"mirror_ascent": {"iterations": 50}, "frank_wolfe": {"iterations": 20, "restarts": 3}})
    'mirror_ascent, 50 iterations; frank_wolfe, 20 iterations, 3 restarts'
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

    shown = [(name, settings) for name, settings in attacks.items() if not contained(name, settings)]
    return "; ".join(in_words(name, settings) for name, settings in shown)


def short_commit(commit: str | None) -> str:
    """Returns the first 8 digits of one commit or several, with "-dirty" if a commit ends so; "unknown" for None."""
    if commit is None:
        return "unknown"
    return ", ".join(one[:8] + ("-dirty" if one.endswith("-dirty") else "") for one in commit.split(", "))
