"""Attacks classifiers within the certified radius of each image: no attack may succeed there.

    python -m benchmarks.soundness --folder=runs/soundness --data_dir=… --method=ibp --num_examples=1000

Mirror ascent attacks each image with a positive certified radius, at that radius, from several starts; `--also` adds
other attacks, such as `--also=frank_wolfe:iterations=50,random_plan`. The folder holds
a file of results for each classifier and chunk of images, so an interrupted run resumes, and report.json and report.md
of all that the folder holds. The exit status is 1 if an attack succeeded.
"""

import argparse
import hashlib
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np

from wasser_tf import models, pretrained
from wasser_tf.attacks import Attack, MirrorAscent, make
from wasser_tf.attacks.spec import parse_spec
from wasser_tf.certification.prover import Prover
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.evaluation.fingerprint import fingerprint, safe_name
from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import provenance, storage
from wasser_tf.threat_model import ThreatModel

# Test sets of fewer images than are usually asked for.
_SIZES = {"digits": 400}
# Radii above this are attacked at it: they bind almost no plan.
_LARGEST = 10.0


def main() -> int:
    """Runs the classifiers of the flags and writes the report; returns 1 if an attack succeeded."""
    given = _flags()
    found, sources = [], {}
    for path in _paths(given.models):
        dataset = _dataset_of(path) or given.dataset
        if dataset not in sources:
            sources[dataset] = ImageSource(
                dataset=dataset,
                data_dir=given.data_dir,
                num_examples=min(given.num_examples, _SIZES.get(dataset, given.num_examples)),
                original_index=given.original_index if dataset == "mnist" else None,
            ).load()
        found.append(_run(given, path, sources[dataset]))
        print(json.dumps(found[-1]), flush=True)
        _write(given)
    return int(any(row["fooled"] for row in found))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--models", default="packaged", help="paths, pretrained:NAME, or packaged for all of these")
    parser.add_argument("--dataset", default="mnist", help="of classifiers that are not packaged")
    parser.add_argument("--data_dir")
    parser.add_argument("--original_index")
    parser.add_argument("--num_examples", type=int, default=1000)
    parser.add_argument("--method", default="ibp", choices=("ibp", "crown"))
    parser.add_argument("--epsilon", type=float, default=0.02, help="where the search for a radius starts")
    parser.add_argument("--resolution", type=float, default=1e-5, help="of the certified radii")
    parser.add_argument("--restarts", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--also", default="", help="further attacks at the same radii, as name:setting=value")
    parser.add_argument("--chunk", type=int, default=250, help="images at a time; a file of results holds as many")
    return parser.parse_args()


def _paths(models: str) -> list[str]:
    """Returns the classifiers of --models; for "packaged" all of these, small ones first."""
    names = sorted(pretrained.names(), key=lambda name: pretrained.card(name)["classifier"]["num_weights"])
    found = []
    for path in models.split(","):
        found += [f"{pretrained.PREFIX}{name}" for name in names] if path == "packaged" else [path]
    return found


def _dataset_of(path: str) -> str | None:
    """Returns the dataset of a packaged classifier, which its name begins with; None for another classifier."""
    return path.removeprefix(pretrained.PREFIX).partition("_")[0] if path.startswith(pretrained.PREFIX) else None


def _run(given: argparse.Namespace, path: str, images: Selection) -> dict[str, Any]:
    """Certifies and attacks the chunks of one classifier that have no file; returns the row of the report."""
    key = {
        "model": fingerprint(path),
        "method": given.method,
        "epsilon": given.epsilon,
        "resolution": given.resolution,
        "restarts": given.restarts,
        "iterations": given.iterations,
        **({"also": given.also} if given.also else {}),
    }
    try:
        classifier = models.load_classifier(path)
        prover = Prover(classifier, ThreatModel(epsilon=given.epsilon))
        checked, labels = prover.check(images.images, images.labels)
    except ValueError as error:
        return _store(given, path, {**key, "images": images.name, "refused": str(error), "fooled": 0})
    ball = ThreatModel(epsilon=given.epsilon)
    adversaries = [MirrorAscent(ball, restarts=given.restarts, iterations=given.iterations)]
    for text in filter(None, given.also.split(",")):
        name, settings = parse_spec(text)
        adversaries.append(make(name, ball, **settings))
    parts = []
    for start in range(0, len(labels), given.chunk):
        rows = slice(start, start + given.chunk)
        content = hashlib.sha256(json.dumps(key).encode() + checked[rows].tobytes() + labels[rows].tobytes())
        cell = given.folder / "cells" / f"{safe_name(path)}-{start:06d}-{content.hexdigest()[:12]}.json"
        if not cell.exists():
            storage.make_folder(cell.parent)
            storage.write_json(cell, _attacked(given, classifier, prover, adversaries, checked[rows], labels[rows]))
        parts.append(storage.read_json(cell))
    radius = np.array([float(value) for part in parts for value in part["radius"]])
    proved = radius > 0
    row = {
        **key,
        "images": images.name,
        "num_images": len(radius),
        "natural": float(np.mean([value for part in parts for value in part["correct"]])),
        "positive": int(proved.sum()),
        "median_of_positive": float(np.median(radius[proved])) if proved.any() else 0.0,
        "largest": float(radius.max()),
        "fooled": sum(part["fooled"] for part in parts),
        "seconds_to_certify": round(sum(part["seconds_to_certify"] for part in parts)),
        "seconds_to_attack": round(sum(part["seconds_to_attack"] for part in parts)),
    }
    return _store(given, path, row)


def _attacked(
    given: argparse.Namespace,
    classifier: Any,
    prover: Prover,
    adversaries: list[Attack],
    images: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """Certifies images and attacks those with a positive radius at it; counts the images that any attack fooled."""
    begin = time.perf_counter()
    result = prover.certify(images, labels, given.method, given.resolution)
    certified = time.perf_counter()
    proved, fooled = np.flatnonzero(result.radius > 0), 0
    if len(proved):
        # A batch of one size for all chunks, so that the attack is compiled once.
        few = -(-given.chunk // 5)
        rows = np.resize(proved, given.chunk if len(proved) > few else few)
        radius = np.minimum(result.radius[rows], _LARGEST)
        success = np.zeros(len(proved), bool)
        for adversary in adversaries:
            tried = adversary(classifier, images[rows], labels[rows], radius=radius)
            success |= np.asarray(tried.success)[: len(proved)]
        fooled = int(success.sum())
    return {
        "radius": result.radius.tolist(),
        "correct": result.correct.tolist(),
        "fooled": fooled,
        "seconds_to_certify": certified - begin,
        "seconds_to_attack": time.perf_counter() - certified,
    }


def _store(given: argparse.Namespace, path: str, row: dict[str, Any]) -> dict[str, Any]:
    row = {"classifier": path.rpartition("/")[2], **row}
    storage.make_folder(given.folder / "rows")
    file = f"{safe_name(row['classifier'])}-{given.method}{'-also' if given.also else ''}.json"
    storage.write_json(given.folder / "rows" / file, row)
    return row


def _write(given: argparse.Namespace) -> None:
    """Writes report.json and report.md of all rows in the folder."""
    rows = [storage.read_json(path) for path in sorted((given.folder / "rows").glob("*.json"))]
    report = {"rows": rows, "commit": provenance.commit(), "command": provenance.command()}
    storage.write_json(given.folder / "report.json", report)
    header = [
        "classifier",
        "method",
        "attacks",
        "images",
        "natural",
        "radius > 0",
        "their median",
        "largest",
        "fooled",
        "seconds",
    ]
    table = [
        [
            row["classifier"],
            row["method"],
            ", ".join(["mirror_ascent", *(text.partition(":")[0] for text in row.get("also", "").split(",") if text)]),
            f"{row['num_images']:,} of {row['images']}",
            f"{100 * row['natural']:.1f} %",
            f"{row['positive']}",
            f"{row['median_of_positive']:.2g}",
            f"{row['largest']:.2g}",
            f"{row['fooled']}",
            f"{row['seconds_to_certify']} + {row['seconds_to_attack']}",
        ]
        for row in rows
        if "refused" not in row
    ]
    lines = [markdown_table(header, table, text_columns=4)]
    lines += [f"- {row['classifier']}: not certified. {row['refused']}" for row in rows if "refused" in row]
    storage.write_text(given.folder / "report.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
