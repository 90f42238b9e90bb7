r"""Adds classifiers to the leaderboard and renders its page.

  python bin/leaderboard.py --dataset=mnist --models=mine=best.keras --description="my training" --output_dir=runs/leaderboard
  python bin/leaderboard.py

The first evaluates mine on the whole test set with the ensemble, stores docs/results/leaderboard/mnist/p1-k5-normalized-capacity1/mine.json and
renders docs/results/leaderboard.md; interrupted, it goes on where it was. The second renders the page alone.
"""

import pathlib

import _flags
from absl import flags

from wasser_tf.evaluation.config import parse_models
from wasser_tf.publishing import leaderboard
from wasser_tf.runs.leaderboard import add_to_leaderboard

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "models", None, "Classifiers as path or name=path: .keras, SavedModels' folders, .npz, pretrained:NAME."
)
flags.DEFINE_string("description", "", "A sentence on where they come from.")
_flags.define_board()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Turns the flags into a config, adds each classifier and says where the page is."""
    if FLAGS.models:
        board = _flags.board()
        for name, path in parse_models(FLAGS.models).items():
            found = add_to_leaderboard(board, name, path, FLAGS.description, log=lambda line: print(line, flush=True))
            print(f"\n{leaderboard.leaderboard_table([found])}")
    print(f"Written: {leaderboard.write_leaderboard(pathlib.Path(FLAGS.results_dir))}")


if __name__ == "__main__":
    _flags.run(main)
