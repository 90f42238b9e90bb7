r"""Averages classifiers: the weights of one architecture (SWA), or the logits of several, which is an ensemble.

  wasser-tf average --models=runs/first/best.keras,runs/second/best.keras --output=runs/average.keras

where the second run started from the first (wasser-tf train --initial). With --of=logits the classifiers may differ,
and the result is an ensemble of them. Evaluate the result with wasser-tf evaluate.
"""

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.models.averaging import average, average_logits

FLAGS = flags.FLAGS

flags.DEFINE_list("models", None, "The classifiers: .keras files, .npz or pretrained:NAME.", required=True)
flags.DEFINE_string("output", None, "The .keras file to write.", required=True)
flags.DEFINE_enum("of", "weights", ("weights", "logits"), "What is averaged. The mean of logits is an ensemble.")
_flags.define_import()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Averages the classifiers and prints the path of the result."""
    _flags.import_modules()
    classifier = (average if FLAGS.of == "weights" else average_logits)(FLAGS.models, FLAGS.output)
    print(f"Written: {FLAGS.output}: {classifier.name}, the mean of the {FLAGS.of} of {len(FLAGS.models)}")


if __name__ == "__main__":
    _flags.run(main)
