r"""Adds classifiers to the leaderboard and renders its page.

  wasser-tf leaderboard --dataset=mnist --models=mine=best.keras --description="my training" \
    --output_dir=runs/leaderboard
  wasser-tf leaderboard

The first command evaluates the classifier on the whole test set with the ensemble, stores its entry as
docs/results/leaderboard/mnist/p1-k5-normalized-capacity1/mine.json and renders docs/results/leaderboard.md. After an
interruption, the same command resumes. The second command only renders the page.

  wasser-tf leaderboard --certification=runs/certificates

adds certified accuracies to the stored entries, without attacking; with --models, new entries get them too.
"""

import pathlib

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.evaluation.config import parse_models
from wasser_tf.publishing import leaderboard
from wasser_tf.runs.leaderboard import add_to_leaderboard, certify_entries
from wasser_tf.runtime.progress import show_progress

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "models", None, "The classifiers, each as path or name=path: .keras, SavedModel folder, .npz or pretrained:NAME."
)
flags.DEFINE_string("description", "", "A sentence about the classifiers' origin.")
_flags.define_board()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Adds each classifier to the leaderboard and prints the path of the page."""
    if FLAGS.models:
        board = _flags.board()
        for name, path in parse_models(FLAGS.models).items():
            found = add_to_leaderboard(board, name, path, FLAGS.description, log=show_progress)
            print(f"\n{leaderboard.leaderboard_table([found])}")
    elif FLAGS.certification:
        print(f"Certified: {', '.join(certify_entries(FLAGS.results_dir, FLAGS.certification))}")
    print(f"Written: {leaderboard.write_leaderboard(pathlib.Path(FLAGS.results_dir))}")


if __name__ == "__main__":
    _flags.run(main)
