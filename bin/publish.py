r"""Turns a training run into a classifier that comes with the package.

  python bin/publish.py --run=runs/mnist --name=mnist_mine --dataset=mnist

packs runs/mnist/best.keras into wasser_tf/pretrained/, evaluates the packed file (by default the whole test set, with
the ensemble), adds it to the leaderboard and writes its model card. Interrupted, it goes on where it was. Without --run
the classifier that the package has of this name is evaluated anew, on more images or by other attacks.
"""

import _flags
from absl import flags

from wasser_tf.runs import publish

FLAGS = flags.FLAGS

flags.DEFINE_string("run", None, "The output_dir of bin/train.py; without it, what the package has is evaluated anew.")
flags.DEFINE_string("name", None, "What wasser_tf.load_pretrained shall call it.", required=True)
flags.DEFINE_string("file", publish.Publication.file, "Which classifier of the run.")
flags.DEFINE_bool("overwrite", False, "Whether to replace another classifier of this name.")
flags.DEFINE_string(
    "description", "", "The leaderboard's sentence on it; by default the one there is, or the training."
)
_flags.define_board()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Turns the flags into a config, publishes and says where the file is."""
    config = publish.Publication(
        run=FLAGS.run, name=FLAGS.name, board=_flags.board(), file=FLAGS.file, overwrite=FLAGS.overwrite
    )
    path = publish.publish(config, FLAGS.description, log=lambda line: print(line, flush=True))
    print(f"\n{path.with_suffix('.md').read_text(encoding='utf-8')}\nWritten: {path} and its card beside it")


if __name__ == "__main__":
    _flags.run(main)
