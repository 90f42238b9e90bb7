"""RobustBench: entries of our leaderboard in the format of its model_info files, and its function `load_model`.

RobustBench has one file for each model, `model_info/DATASET/THREAT_MODEL/NAME.json`. Accuracies are percentages,
written as strings. Its field `autoattack_acc` is for AutoAttack in an ℓp ball, which does not apply here; the robust
accuracy is in `external`, its field for accuracies under other attacks.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from wasser_tf import pretrained
from wasser_tf.models.loading import load_pretrained
from wasser_tf.publishing.leaderboard import entries
from wasser_tf.runtime import storage

THREAT_MODEL = "Wasserstein"


def model_info(entry: Mapping[str, Any], epsilon: float | None = None) -> dict[str, Any]:
    """Returns an entry of the leaderboard in the format of RobustBench.

    Args:
      entry: The entry, see `wasser_tf.publishing.leaderboard.make_entry`.
      epsilon: One of its radii; by default the middle one, by which our leaderboard is sorted.

    Returns:
      The fields of RobustBench, and `threat_model` and `attacks` with the settings of ours.

    Raises:
      ValueError: The entry has no robust accuracy at this radius.

    Example:
    >>> entry = {"name": "lenet", "description": "LeNet.", "dataset": "mnist test", "natural_accuracy": 0.99,
    ...     "robust_accuracy": {"0.1": 0.9, "0.3": 0.6}, "threat_model": {"p": 1.0}, "attacks": {}, "num_images": 100}
    >>> info = model_info(entry, 0.1)
    >>> info["eps"], info["clean_acc"], info["external"]
    ('0.1', '99.00', '90.00')
    """
    accuracies = entry["robust_accuracy"]
    radii = sorted(accuracies, key=float)
    key = radii[len(radii) // 2] if epsilon is None else f"{epsilon:g}"
    if key not in accuracies:
        raise ValueError(f"{entry['name']} has no robust accuracy at ε = {key}, only at {', '.join(radii)}.")
    external = f"{100 * accuracies[key]:.2f}"
    return {
        "link": "",
        "name": entry["name"],
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": entry["dataset"].split()[0],
        "venue": "",
        "architecture": entry["description"],
        "eps": key,
        "clean_acc": f"{100 * entry['natural_accuracy']:.2f}",
        "reported": external,
        "autoattack_acc": "",
        "external": external,
        "unreliable": bool(entry.get("warnings")),
        "num_images": entry["num_images"],
        "threat_model": dict(entry["threat_model"]),
        "attacks": dict(entry["attacks"]),
    }


def write_model_info(results_dir: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Writes the model_info file of every entry of a leaderboard.

    Args:
      results_dir: The folder of the leaderboard, such as docs/results.
      folder: The folder of the files, which are written to DATASET/Wasserstein/NAME.json.

    Returns:
      The paths of the files.
    """
    written = []
    for entry in entries(pathlib.Path(results_dir)):
        info = model_info(entry)
        path = pathlib.Path(folder) / info["dataset"] / THREAT_MODEL / f"{info['name']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(path, info)
        written.append(path)
    return written


def load_model(
    model_name: str,
    model_dir: str | os.PathLike[str] = "./models",
    dataset: str = "cifar10",
    threat_model: str = THREAT_MODEL,
) -> keras.Model:
    """Loads a packaged classifier, with the arguments of `robustbench.load_model`.

    Args:
      model_name: One of `wasser_tf.pretrained.names()`, such as "cifar10_wassertrain".
      model_dir: Accepted for compatibility: packaged classifiers are not downloaded.
      dataset: The dataset of the classifier.
      threat_model: "Wasserstein".

    Returns:
      The classifier, a Keras model from images [n, H, W, C] in [0, 1] to logits.

    Raises:
      ValueError: There is no such classifier, of this dataset or for this threat model.

    Example:
    >>> load_model("mnist_wassertrain", dataset="mnist").output_shape
    (None, 10)
    """
    del model_dir
    if threat_model != THREAT_MODEL:
        raise ValueError(
            f"threat_model must be {THREAT_MODEL!r}, got {threat_model!r}: use robustbench.load_model for ℓp balls and "
            "corruptions."
        )
    known = pretrained.card(model_name)["evaluation"]["dataset"].split()[0]
    if known != dataset:
        raise ValueError(f"{model_name} classifies {known}, got dataset={dataset!r}: give dataset={known!r}.")
    return load_pretrained(model_name)
