"""A sweep: models × attacks × radii, stored in cells, so that no cell is attacked twice.

A cell is one model, one attack, one radius and one chunk of images. Its file is named by a hash of everything its
content depends on and is written atomically. An interrupted sweep therefore resumes with the first missing cell, and a
sweep with one more radius attacks at that radius only.
"""

import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf import attacks
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import examples, metrics, stored_examples
from wasser_tf.evaluation.cells import CellResult as CellResult
from wasser_tf.evaluation.cells import Model as Model
from wasser_tf.evaluation.cells import Stage
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.fingerprint import array_digest, safe_name
from wasser_tf.evaluation.rescoring import rescore
from wasser_tf.evaluation.stored_examples import PICTURES, STORED
from wasser_tf.runtime import interruption, provenance
from wasser_tf.runtime.arguments import check_one_of
from wasser_tf.runtime.progress import Progress
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__

# An attack that drops fooled images does so in whole batches, so its cells hold several batches.
_BATCHES_WHERE_FOOLED_ARE_SKIPPED = 4


class Sweep:
    """The cells of models × attacks × radii over a set of images.

    Each model passes through stages in a fixed order: the smallest radius first, and at each radius the attacks in the
    given order. Without `skip_fooled`, every stage attacks all images. With `skip_fooled`, a stage attacks only the
    images that no earlier stage fooled, so its cells are known only once all earlier stages are complete.

    Attributes:
      folder: The folder of the cells.
      models: The classifiers.
      attacks: The attacks by the names used in reports. Their threat models differ at most in epsilon, which is
        ignored.
      radii: The radii, in ascending order.
      images: The images.
      chunk_size: Images in a cell, four times as many for an attack that drops fooled images. A killed run loses at
        most one cell.
      batch_size: Images attacked at a time.
      skip_fooled: Whether an attack skips images that an earlier attack fooled, at the same radius or a smaller one,
        and, after the first attack, images that are misclassified clean.
      stored: The form of the images in the cells, one of `stored_examples.STORED`. It does not change the results.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        models: Sequence[Model],
        attacks: Mapping[str, Attack],
        radii: Sequence[float],
        images: Selection,
        *,
        chunk_size: int = 128,
        batch_size: int = 128,
        skip_fooled: bool = False,
        stored: str = "float32",
    ):
        """Initialises the sweep; nothing is attacked or written yet.

        Args:
          folder: The folder of the cells.
          models: The classifiers, with distinct names.
          attacks: The attacks by the names used in reports.
          radii: Distinct radii, in any order.
          images: The images.
          chunk_size: Images in a cell.
          batch_size: Images attacked at a time, at most `chunk_size`.
          skip_fooled: Whether an attack skips images that are already fooled.
          stored: The form of the images in the cells.

        Raises:
          ValueError: A list is empty, two models or radii are equal, a radius is not valid, or an attack does not
            produce examples in the Wasserstein ball.
        """
        if not models or not attacks or not radii:
            raise ValueError("A sweep needs at least one model, one attack and one radius.")
        for attack in attacks.values():
            check_in_wasserstein_ball(attack)
        for name, given in (("models", [model.name for model in models]), ("radii", list(radii))):
            if len(set(given)) != len(given):
                raise ValueError(f"The {name} of a sweep must differ, got {', '.join(map(str, given))}.")
        self.folder = pathlib.Path(folder)
        self.models = tuple(models)
        self.attacks = dict(attacks)
        # ThreatModel validates the radii.
        self.radii = tuple(sorted(ThreatModel(epsilon=radius).epsilon for radius in radii))
        self.images = images
        self.chunk_size = min(chunk_size, len(images.labels))
        self.batch_size = min(batch_size, self.chunk_size)
        self.skip_fooled = skip_fooled
        check_one_of("stored_examples", stored, STORED)
        self.stored = stored
        self._fooled: dict[pathlib.Path, np.ndarray] = {}
        self._digests: dict[bytes, str] = {}

    def run(self, log: Callable[[str], None] | None = None) -> None:
        """Attacks every cell that has no file.

        Args:
          log: Takes a line for each attacked cell, with the estimated time left.

        Raises:
          ValueError: An attack or a classifier does not accept the images.
          Interrupted: A signal requested the run to stop; the current cell was finished and stored.
        """
        # The largest number of cells of an attack's stage; with skip_fooled a stage may have fewer.
        counts = {label: len(self._chunks(label, np.arange(len(self.images.labels)))) for label in self.attacks}
        repeats = len(self.models) * len(self.radii)
        kinds = [label for label, count in counts.items() for _ in range(repeats * count)]
        with Progress(kinds, log, unit="cell") as meter:
            for model in self.models:
                from_logits = metrics.is_from_logits(model.classifier, self.images.images)
                for label, attack, radius, _, cells in self._stages(model):
                    for _ in range(counts[label] - len(cells)):
                        meter.skip(label)
                    for path, rows in cells.items():
                        if path.exists():
                            meter.skip(label)
                            continue
                        begin = time.perf_counter()
                        found = self._attack(model.classifier, from_logits, attack, radius, rows)
                        seconds = time.perf_counter() - begin
                        fooled = int(np.sum(found.result.success | found.clean.wrong))
                        extra = {"seconds": np.float64(seconds), **self._ranks(model.classifier, found, from_logits)}
                        extra["commit"] = np.str_(provenance.commit() or "")
                        if self.stored == "none":
                            found = examples.keep_images(found, int(np.sum(rows < PICTURES)))
                        examples.write_examples(path, found, self.stored, **extra)
                        line = f"{model.name}, {label}, ε = {radius:g}: {fooled} of {len(rows)} fooled"
                        meter.done(label, seconds, line)
                        interruption.raise_if_requested()

    def missing(self) -> list[pathlib.Path]:
        """Lists the files of cells that are not stored yet.

        With `skip_fooled`, lists for each model only those of its first incomplete stage, because the images of later
        stages depend on that stage's results.

        Returns:
          The paths, in the order in which `run` would write them.
        """
        paths: list[pathlib.Path] = []
        for model in self.models:
            for stage in self._stages(model):
                absent = [path for path in stage.cells if not path.exists()]
                paths += absent
                if absent and self.skip_fooled:
                    break
        return paths

    def results(
        self,
        model: Model,
        radius: float,
        *,
        rescored: bool = False,
        images: int | None = None,
        exact: bool = False,
    ) -> Iterator[CellResult]:
        """Yields the stored results of a model at a radius, one attack at a time.

        All cells of the model up to this radius must exist. Attacks that had no image left to attack are skipped.

        Args:
          model: One of the models.
          radius: One of the radii.
          rescored: Whether to evaluate the classifier on the stored examples again, see `rescoring.rescore`.
          images: The number of examples whose images are kept, counted from the first; None for all. Memory grows
            with it.
          exact: Whether the images must be those that were scored, not changes of 16 or 8 bits.

        Yields:
          The result of each attack.

        Raises:
          ValueError: A file is missing or unreadable, or does not hold the images that are needed.
        """
        for stage in self._stages(model):
            if stage.radius != radius or not stage.cells:
                continue
            parts, ranks, seconds, commits = [], [], 0.0, set()
            for path, rows in stage.cells.items():
                kept = None if images is None else int(np.sum(rows < images))
                clean = functools.partial(self._first_images, rows)
                needed = None if rescored else kept
                part, extra = examples.read_examples(path, clean, needed, exact=exact or rescored)
                part = rescore(model.classifier, part) if rescored else part
                parts.append(part if kept is None else examples.keep_images(part, kept))
                ranks.append(extra.get("rank"))
                seconds += float(extra.get("seconds", 0.0))
                commits |= {str(extra["commit"])} - {""} if "commit" in extra else set()
            known = [rank for rank in ranks if rank is not None]
            rank = np.concatenate(known) if len(known) == len(ranks) else None
            whole = examples.concatenate(parts)
            yield CellResult(stage.label, stage.attack, stage.rows, whole, seconds, rank, tuple(sorted(commits)))

    def concatenate(self, model: Model, radius: float, path: str | os.PathLike[str]) -> None:
        """Writes all examples of the only attack at a radius into one file; memory does not grow with their number."""
        (stage,) = (stage for stage in self._stages(model) if stage.radius == radius)
        stored_examples.concatenate_files(list(stage.cells), path, skip=("seconds", "commit"))

    def _stages(self, model: Model) -> Iterator[Stage]:
        """Yields the stages of a model in order.

        With `skip_fooled`, the generator reads a stage's files after yielding it, to find the images of the next: the
        caller must create them first.
        """
        rows = np.arange(len(self.images.labels))
        for radius in self.radii:
            for label, attack in self.attacks.items():
                cells = {self._path(model, label, radius, chunk): chunk for chunk in self._chunks(label, rows)}
                yield Stage(label, attack, radius, rows, cells)
                if self.skip_fooled and cells:
                    rows = rows[~np.concatenate([self._fooled_in(path) for path in cells])]

    def _fooled_in(self, path: pathlib.Path) -> np.ndarray:
        """Returns which images of a cell are fooled or misclassified clean; each file is read once."""
        if path not in self._fooled:
            stored, _ = examples.read_examples(path)
            self._fooled[path] = stored.result.success | stored.clean.wrong
        return self._fooled[path]

    def _chunks(self, label: str, rows: np.ndarray) -> list[np.ndarray]:
        size = self.chunk_size * (_BATCHES_WHERE_FOOLED_ARE_SKIPPED if self.attacks[label].skips_fooled else 1)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _attack(self, classifier: Any, from_logits: bool, attack: Attack, radius: float, rows: np.ndarray) -> Examples:
        # The last chunk is padded with its last image, so that its shape needs no further compilation.
        filled = np.concatenate([rows, np.full(-len(rows) % self.chunk_size, rows[-1])])
        chosen, labels = self.images.images[filled], self.images.labels[filled]
        clean = metrics.predict(classifier, chosen, labels, from_logits=from_logits)
        result = attack(
            classifier,
            chosen,
            labels,
            radius=radius,
            index=self.images.index[filled],
            from_logits=from_logits,
            batch_size=self.batch_size,
        )
        whole = Examples(self.images.index[filled], chosen, labels, clean, result)
        return examples.first(whole, len(rows))

    def _first_images(self, rows: np.ndarray, count: int) -> np.ndarray:
        return self.images.images[rows[:count]]

    def _ranks(self, classifier: Any, found: Examples, from_logits: bool) -> dict[str, np.ndarray]:
        """Returns the ranks of the right classes as an array of a file, for classifiers with many classes."""
        if not metrics.has_many_classes(classifier):
            return {}
        adversarial = found.result.adversarial
        return {"rank": metrics.ranks(classifier, adversarial, found.labels, from_logits=from_logits)}

    def _path(self, model: Model, label: str, radius: float, rows: np.ndarray) -> pathlib.Path:
        config = attacks.serialize(self.attacks[label])
        config["config"]["threat_model"]["epsilon"] = radius
        content = {
            "wasser_tf": __version__,
            "model": model.fingerprint,
            "attack": config,
            "images": self._digest_of(rows),
        }
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
        name = f"{rows[0]:06d}-{rows[-1]:06d}-{key}.npz"
        return self.folder / safe_name(model.name) / safe_name(label) / f"{radius:g}" / name

    def _digest_of(self, rows: np.ndarray) -> str:
        """Returns a hash of some of the images; it is cached, because every attack and radius needs it."""
        key = rows.tobytes()
        if key not in self._digests:
            images = self.images
            self._digests[key] = array_digest(images.index[rows], images.images[rows], images.labels[rows])
        return self._digests[key]
