"""Evaluates classifiers for the leaderboard: what bin/leaderboard.py does."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import keras

from wasser_tf import models
from wasser_tf.attacks import Attack
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.sweep import safe_name
from wasser_tf.models import ModelOptions
from wasser_tf.publishing.leaderboard import OTHER_RADII, RADII, entry_path, make_entry, write_leaderboard
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """How the classifiers of a board are evaluated, and where results go.

    Attributes:
      source: The images.
      attacks: The attacks by name; robust is who withstands all of them.
      output_dir: The evaluations, a folder for each classifier; a run that was interrupted goes on there.
      results_dir: Where the page and the folder of entries are.
      radii: The radii; those of `RADII` by default.
      batch_size: Images at a time.
      options: What is given about the classifiers.
      allow_chance_accuracy: Whether to attack a classifier that is no better than chance.
    """

    source: ImageSource
    attacks: Mapping[str, Attack]
    output_dir: str
    results_dir: str
    radii: tuple[float, ...] = ()
    batch_size: int = 128
    options: ModelOptions = ModelOptions()
    allow_chance_accuracy: bool = False

    def __post_init__(self) -> None:
        if not self.radii:
            object.__setattr__(self, "radii", RADII.get(self.source.dataset, OTHER_RADII))


def add_to_leaderboard(
    board: Board, name: str, path: str, description: str = "", log: Callable[[str], None] | None = None
) -> dict:
    """Evaluates a classifier, or what is left of it, stores its entry and renders the page.

    Args:
      board: How.
      name: What the board calls the classifier.
      path: The classifier, see `wasser_tf.models.load_classifier`.
      description: A sentence on where it comes from.
      log: Is given lines of progress.

    Returns:
      The entry.

    Raises:
      ValueError: The classifier, the images or a setting are not what is needed.
    """
    folder = pathlib.Path(board.output_dir).expanduser() / safe_name(name)
    run = EvaluationRun(
        models={name: path},
        source=board.source,
        attacks=board.attacks,
        radii=board.radii,
        output_dir=str(folder),
        sanity=False,
        batch_size=board.batch_size,
        skip_fooled=True,
        options=board.options,
    )
    # resume: a board of more images, radii or attacks takes what was made before.
    run_evaluation(run, resume=True, allow_chance_accuracy=board.allow_chance_accuracy, log=log)
    classifier = models.load_classifier(path, **board.options.of_file)
    found = make_entry(
        storage.read_json(folder / "report.json"),
        name,
        description=description,
        num_weights=classifier.count_params() if isinstance(classifier, keras.Model) else None,
    )
    place = pathlib.Path(board.results_dir).expanduser()
    storage.write_json(entry_path(place, board.source.dataset, found), found)
    write_leaderboard(place)
    return found
