r"""Adds the classifier of a training run to the package.

  wasser-tf publish --run=runs/mnist --name=mnist_mine --dataset=mnist

compresses runs/mnist/best.keras into wasser_tf/pretrained/, evaluates the compressed file (by default on the whole test
set, with the ensemble), adds it to the leaderboard and writes its model card. After an interruption, the same command
resumes. Without --run, the packaged classifier of this name is evaluated again, on more images or with other attacks.
"""

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.runs import publish
from wasser_tf.runtime.progress import show_progress

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "run", None, "The output_dir of bin/train.py; without it, the packaged classifier is evaluated again."
)
flags.DEFINE_string("name", None, "The name of the classifier for wasser_tf.load_pretrained.", required=True)
flags.DEFINE_string("file", publish.Publication.file, "The classifier's file in the run.")
flags.DEFINE_bool("overwrite", False, "Whether to replace another classifier of this name.")
flags.DEFINE_string(
    "description", "", "Its description on the leaderboard (default: the existing one, or the training)."
)
_flags.define_board()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Publishes the classifier and prints its card and the path of its file."""
    config = publish.Publication(
        run=FLAGS.run, name=FLAGS.name, board=_flags.board(), file=FLAGS.file, overwrite=FLAGS.overwrite
    )
    path = publish.publish(config, FLAGS.description, log=show_progress)
    print(f"\n{path.with_suffix('.md').read_text(encoding='utf-8')}\nWritten: {path} and its card")


if __name__ == "__main__":
    _flags.run(main)
