"""Evaluates classifiers for the leaderboard; bin/leaderboard.py runs it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from wasser_tf import models, pretrained
from wasser_tf.attacks import Attack
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.fingerprint import safe_name
from wasser_tf.models import ModelOptions
from wasser_tf.publishing.card import write_card
from wasser_tf.publishing.certified import add_certified
from wasser_tf.publishing.leaderboard import OTHER_RADII, RADII, entries, entry_path, make_entry, write_leaderboard
from wasser_tf.reporting.certification import Certification, read_certification
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import storage
from wasser_tf.runtime.run_files import REPORT, Schema, read_document
from wasser_tf.threat_model import ThreatModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """The settings by which the classifiers of a leaderboard are evaluated, and the folders of the results.

    Attributes:
      source: The images.
      attacks: The attacks by name; an image counts as robust if it survives every attack.
      output_dir: The folder of the evaluations, with a subfolder for each classifier; interrupted runs resume there.
      results_dir: The folder of the page and of the entries.
      radii: The radii; those of `RADII` by default.
      batch_size: Images attacked at a time.
      options: What is given about the classifiers, such as the range of their pixels.
      allow_chance_accuracy: Whether to attack a classifier that is no better than chance.
      certification: The output_dir of a certification of the same images, for certified accuracies; empty for none.
      stored_examples: The form of the images in the stored results, see `EvaluationRun`.
    """

    source: ImageSource
    attacks: Mapping[str, Attack]
    output_dir: str
    results_dir: str
    radii: tuple[float, ...] = ()
    batch_size: int = 128
    options: ModelOptions = ModelOptions()
    allow_chance_accuracy: bool = False
    certification: str = ""
    stored_examples: str = "float32"

    def __post_init__(self) -> None:
        if not self.radii:
            object.__setattr__(self, "radii", RADII.get(self.source.dataset, OTHER_RADII))


def add_to_leaderboard(
    board: Board, name: str, path: str, description: str = "", log: Callable[[str], None] | None = None
) -> dict:
    """Evaluates a classifier, stores its entry and renders the leaderboard page.

    An evaluation of the classifier in the output_dir is resumed.

    Args:
      board: The settings of the leaderboard.
      name: The name of the classifier on the leaderboard.
      path: The path of the classifier, see `wasser_tf.models.load_classifier`.
      description: A sentence about the classifier's origin.
      log: Takes lines of progress.

    Returns:
      The entry.

    Raises:
      ValueError: The classifier, the images or a setting is invalid.
      OSError: A folder cannot be written to; existing files are unchanged.
      wasser_tf.runtime.interruption.Interrupted: A signal requested the run to stop; the same call resumes it.
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
        stored_examples=board.stored_examples,
        options=board.options,
    )
    # resume: a leaderboard with more images, radii or attacks reuses earlier results.
    run_evaluation(
        run,
        resume=True,
        allow_chance_accuracy=board.allow_chance_accuracy,
        certification=board.certification,
        log=log,
    )
    classifier = models.load_classifier(path, **board.options.of_file)
    found = make_entry(
        read_document(folder / REPORT, Schema.EVALUATION_REPORT),
        name,
        description=description,
        num_weights=classifier.count_params() if isinstance(classifier, keras.Model) else None,
    )
    place = pathlib.Path(board.results_dir).expanduser()
    storage.write_json(entry_path(place, board.source.dataset, found), found)
    write_leaderboard(place)
    return found


def certify_entries(results_dir: str, certification: str) -> list[str]:
    """Adds the certified accuracies of a certification to the stored entries of its classifiers, without attacking.

    The card of a packaged classifier gets them too.

    Args:
      results_dir: The folder of the page and of the entries.
      certification: The output_dir of bin/certify.py, on the images and with the ball of the entries.

    Returns:
      The names of the entries.

    Raises:
      ValueError: The folder holds no certification, no entry is of one of its classifiers and its ball, the images
        differ, or a certified accuracy is above the robust accuracy; nothing was written.
    """
    found, place = read_certification(certification), pathlib.Path(results_dir).expanduser()
    members = [entry for entry in entries(place) if _matches(entry, found)]
    if not members:
        raise ValueError(
            f"No entry in {place} is of a classifier and the ball that {certification} certifies: add the classifier "
            "with --models and --certification, or certify one of the entries."
        )
    changed = [add_certified(entry, found) for entry in members]
    cards = {
        name: card for name in pretrained.names() if _matches((card := pretrained.card(name))["evaluation"], found)
    }
    evaluations = {name: add_certified(card["evaluation"], found) for name, card in cards.items()}
    for entry in changed:
        # The dataset's name is the first word of "mnist test".
        storage.write_json(entry_path(place, entry["dataset"].rpartition(" ")[0], entry), entry)
    for name, card in cards.items():
        write_card(pretrained.path_of(name), card["classifier"], card["training"], evaluations[name])
    write_leaderboard(place)
    return [entry["name"] for entry in changed]


def _matches(entry: Mapping[str, Any], certification: Certification) -> bool:
    """Returns whether a certification is of the classifier and the ball of an entry."""
    ball = ThreatModel.from_config({**entry["threat_model"], "epsilon": 0.0})
    return entry["fingerprint"] in certification.classifiers and ball.rules == certification.threat_model.rules
