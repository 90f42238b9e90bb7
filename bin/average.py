r"""Averages the weights of classifiers of one architecture: of the ends of one training's cycles (SWA).

  python bin/average.py --models=runs/first/best.keras,runs/second/best.keras --output=runs/average.keras

where the second run went on from the first (bin/train.py --initial). bin/evaluate.py measures what came of it.
"""

import _flags
from absl import flags

from wasser_tf.models.averaging import average

FLAGS = flags.FLAGS

flags.DEFINE_list("models", None, "The classifiers: .keras files, .npz or pretrained:NAME.", required=True)
flags.DEFINE_string("output", None, "The .keras file to write.", required=True)


def main() -> None:
    """Averages and says where the file is."""
    classifier = average(FLAGS.models, FLAGS.output)
    print(f"Written: {FLAGS.output}: {classifier.name}, the mean of {len(FLAGS.models)}")


if __name__ == "__main__":
    _flags.run(main)
