"""The parts of a sweep: its classifiers, its stages and the results of a stage."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from wasser_tf.attacks import Attack
from wasser_tf.evaluation.examples import Examples


class Model(NamedTuple):
    """A classifier in a sweep.

    Attributes:
      name: The name in reports.
      fingerprint: A hash that changes with the classifier, see `fingerprint`.
      classifier: The loaded model.
    """

    name: str
    fingerprint: str
    classifier: Any


class CellResult(NamedTuple):
    """The stored examples of one model under one attack at one radius.

    Attributes:
      label: The name of the attack in the sweep.
      attack: The attack.
      rows: The positions of the m attacked images among all images of the sweep, in ascending order, [m].
      examples: The examples of those images.
      seconds: Duration of the attack in seconds, summed over the chunks.
      rank: The number of classes that are more probable than the right one, on the feasible examples, [m]; None where
        there are at most 10 classes.
      commits: The commits of the code that made the examples, sorted; those that are not known are left out.
    """

    label: str
    attack: Attack
    rows: np.ndarray
    examples: Examples
    seconds: float
    rank: np.ndarray | None = None
    commits: tuple[str, ...] = ()


class Stage(NamedTuple):
    """One attack at one radius on one model: the positions of the images it attacks, and of those in each file."""

    label: str
    attack: Attack
    radius: float
    rows: np.ndarray
    cells: dict[pathlib.Path, np.ndarray]
