r"""Both sides of robust accuracy on a whole test set: only images that are not certified are attacked.

  python -m benchmarks.undecided --folder=runs/undecided --model=pretrained:mnist_certified --dataset=mnist \
    --data_dir=… --radii=0.1,0.2,0.3 --attacks=mirror_ascent:restarts=6:iterations=30,wasser_attack:iterations=100

An image that is certified at a radius cannot be fooled there, and one that was fooled at a smaller radius needs no
further attack. The fooled images are stored in the folder after each radius and attack, and the same command continues.
"""

import argparse
import hashlib
import pathlib

import numpy as np

from wasser_tf import models
from wasser_tf.attacks import make
from wasser_tf.attacks.spec import parse_spec
from wasser_tf.certification.prover import Prover
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.fingerprint import fingerprint, safe_name
from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percentage
from wasser_tf.threat_model import ThreatModel

# How far radii may be below the largest provable ones.
_RESOLUTION = 1e-5


def main() -> None:
    """Certifies, attacks what is undecided, and prints the table."""
    given = _flags()
    given.folder.mkdir(parents=True, exist_ok=True)
    radii = sorted(float(radius) for radius in given.radii.split(","))
    specs = given.attacks.split(",")
    selection = ImageSource(
        dataset=given.dataset,
        data_dir=given.data_dir,
        num_examples=given.num_examples,
        original_index=given.original_index,
    ).load()
    classifier = models.load_classifier(given.model)
    prover = Prover(classifier, ThreatModel(epsilon=2 * max(radii)))
    images, labels = prover.check(selection.images, selection.labels)
    proved = prover.certify(images, labels, "ibp", _RESOLUTION)
    fooled_at = np.where(proved.correct, np.inf, 0.0)
    rows = [["natural", "", percentage(float(np.mean(proved.correct)), 1), ""]]
    for radius in radii:
        for text in specs:
            key = {"model": fingerprint(given.model), "radius": radius, "attack": text, "images": len(labels)}
            undecided = np.flatnonzero((proved.radius < radius) & np.isinf(fooled_at))
            # With other radii or attacks before it, an attack has other images left.
            content = hashlib.sha256(images[undecided].tobytes() + repr(key).encode()).hexdigest()
            path = given.folder / f"{safe_name(text)}-{radius:g}-{content[:12]}.json"
            if not path.exists():
                name, settings = parse_spec(text)
                attack = make(name, ThreatModel(epsilon=radius), **settings)
                result = attack(
                    classifier, images[undecided], labels[undecided], index=undecided, batch_size=given.batch_size
                )
                found = undecided[result.success & result.feasibility.feasible()]
                storage.write_json(path, {**key, "attacked": len(undecided), "fooled": found.tolist()})
                print(f"{text}, ε = {radius:g}: {len(found)} of {len(undecided)} fooled", flush=True)
            fooled_at[storage.read_json(path)["fooled"]] = radius
        certified = float(np.mean(proved.radius >= radius))
        kept = float(np.mean(fooled_at > radius))
        rows.append([f"{radius:g}", percentage(certified, 1), percentage(kept, 1), percentage(kept - certified, 1)])
    print(f"\n{given.model}, {len(labels):,} images of {selection.name}\n")
    print(markdown_table(["ε", "certified [%]", "not fooled [%]", "difference"], rows))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the stored results")
    parser.add_argument("--model", required=True, help="a path or pretrained:NAME")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--original_index")
    parser.add_argument("--num_examples", type=int, help="default: all")
    parser.add_argument("--radii", required=True)
    parser.add_argument("--attacks", default="mirror_ascent:restarts=6:iterations=30,wasser_attack:iterations=100")
    parser.add_argument("--batch_size", type=int, default=250)
    return parser.parse_args()


if __name__ == "__main__":
    main()
