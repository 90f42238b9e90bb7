"""Model cards of served versions: description, threat model of the training, and measured robustness."""

import datetime
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from wasser_tf.attacks.scoring import flagged_in_words
from wasser_tf.runtime import storage
from wasser_tf.runtime.provenance import commit
from wasser_tf.runtime.run_files import CONFIG, REPORT
from wasser_tf.serving.robustness import RobustnessProbe
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__

JSON, MARKDOWN = "model_card.json", "model_card.md"

# The files of a training run, and the names of their classifiers in the report.
_MODELS_OF_A_RUN = {"best.keras": "wasser_train", "best_saved_model": "wasser_train", "standard.keras": "standard"}


def of_run(model: pathlib.Path) -> dict[str, Any]:
    """Returns the metadata that a training run's folder contains about one of its classifiers.

    Args:
      model: A file that bin/train.py wrote, such as best.keras.

    Returns:
      "training" (the run's config), "dataset", "data_dir", "threat_model" and "robustness_measured", as far as known.
      An empty dict if the file does not belong to a training run.

    Raises:
      ValueError: A file of the run cannot be read.
    """
    config, report = model.parent / CONFIG, model.parent / REPORT
    if model.name not in _MODELS_OF_A_RUN or not config.is_file():
        return {}
    metadata = storage.read_json(config)
    training = metadata.get("config", {})
    found = {"training": training, "dataset": training.get("dataset"), "data_dir": metadata.get("data_dir")}
    if _MODELS_OF_A_RUN[model.name] == "wasser_train":
        found["threat_model"] = metadata.get("threat_model")
    if report.is_file():
        found["robustness_measured"] = [
            {
                "dataset": record["dataset"],
                "num_images": record["num_images"],
                "attack": record["attack"],
                "iterations": record["settings"].get("iterations"),
                "threat_model": record["threat_model"],
                "natural_accuracy": record["natural_accuracy"],
                "robust_accuracy": record["feasible"]["robust_accuracy"],
                **({"num_flagged": record["num_flagged"]} if record.get("num_flagged") else {}),
            }
            for record in storage.read_json(report).get("records", ())
            if record["model"] == _MODELS_OF_A_RUN[model.name]
        ]
    return found


def describe(
    name: str,
    version: int,
    signatures: dict[str, Any],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str] | None,
    robustness: RobustnessProbe | None,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Returns the model card as plain Python values.

    Args:
      name: Name of the model on the server.
      version: Number of the version.
      signatures: The exported concrete functions by name.
      image_shape: (H, W, C).
      class_names: A name for each class, or None.
      robustness: Settings of the signature `robustness`, or None.
      more: More fields, such as those of `of_run`; they replace fields of the same name.

    Returns:
      The card; unknown fields are None.
    """
    function = signatures["serving_default"]
    return {
        "name": name,
        "version": version,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "image_shape": list(image_shape),
        "num_weights": sum(int(tf.size(variable)) for variable in function.variables),
        "class_names": None if class_names is None else list(class_names),
        "signatures": {key: list(made.structured_outputs) for key, made in signatures.items()},
        "robustness_signature": None if robustness is None else robustness.get_config(),
        "dataset": None,
        "threat_model": None,
        "robustness_measured": [],
        "training": None,
        "commit": commit(),
        "versions": {
            "wasser_tf": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        **more,
    }


def write_model_card(path: pathlib.Path, card: dict[str, Any]) -> None:
    """Writes the card to the folder of the version, as JSON and as Markdown."""
    storage.write_json(path / JSON, card)
    storage.write_text(path / MARKDOWN, _markdown(card))


def _markdown(card: dict[str, Any]) -> str:
    height, width, channels = card["image_shape"]
    lines = [
        f"# {card['name']}, version {card['version']}",
        "",
        f"An image classifier of {card['num_weights']:,} weights for {height}×{width}×{channels} images in [0, 1]. "
        f"Exported {card['created']} from commit {card['commit'] or 'unknown'}.",
        "",
        f"Classes: {', '.join(card['class_names'] or ['not named'])}.",
        "",
        "| signature | outputs |",
        "|---|---|",
        *(f"| {key} | {', '.join(outputs)} |" for key, outputs in card["signatures"].items()),
        "",
        "## Robustness",
        "",
        f"Threat model of its training: {_ball(card['threat_model'])}.",
    ]
    if card["robustness_measured"]:
        lines += ["", "| ε | images | attack | natural accuracy | robust accuracy |", "|---|---|---|---|---|"]
    warnings: list[str] = []
    for record in card["robustness_measured"]:
        lines.append(
            f"| {record['threat_model']['epsilon']:g} | {record['num_images']} of {record['dataset']} | "
            f"{record['attack']}, {record['iterations']} iterations | {record['natural_accuracy']:.2%} | "
            f"{record['robust_accuracy']:.2%} |"
        )
        if flagged := record.get("num_flagged"):
            warnings.append(
                f"At ε = {record['threat_model']['epsilon']:g}, {flagged_in_words(flagged, record['num_images'])}"
            )
    lines += [line for warning in warnings for line in ("", f"**{warning}**")]
    if not card["robustness_measured"]:
        lines += ["", "The robust accuracy was not measured."]
    if card["robustness_signature"]:
        probe = card["robustness_signature"]
        lines += [
            "",
            f"The signature `robustness` tries {probe['rounds']} radii up to {probe['largest']:g} with "
            f"{probe['iterations']} mirror steps each; its radius is an upper bound on an image's minimal radius. "
            f"{_ball(probe['threat_model'], 'any radius')}.",
        ]
    return "\n".join(lines) + "\n"


def _ball(config: dict[str, Any] | None, radius: str | None = None) -> str:
    if not config:
        return "unknown, or none"
    return ThreatModel.from_config(config).describe(radius)
