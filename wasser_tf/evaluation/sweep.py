"""Models × attacks × radii, in cells that are files: what was attacked once is never attacked again.

A cell is one model, one attack, one radius and one chunk of images. Its file is named by a hash of all that its content
depends on and is written whole, so an interrupted sweep goes on where it was, and a sweep with one more radius only
attacks there.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wasser_tf import attacks, pretrained
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import examples, metrics
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.runtime import interruption
from wasser_tf.runtime.progress import Progress
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__

# Batches in a cell of an attack that leaves fooled images out of its batches, and so needs several.
_BATCHES_WHERE_FOOLED_ARE_SKIPPED = 4


class Model(NamedTuple):
    """A classifier in a sweep.

    Attributes:
      name: What reports call it.
      fingerprint: Changes when the classifier does, see `fingerprint`.
      classifier: It.
    """

    name: str
    fingerprint: str
    classifier: Any


class CellResult(NamedTuple):
    """Everything known of a model under one attack at a radius.

    Attributes:
      label: What the attack is called in this sweep.
      attack: The attack.
      rows: The places of the images it attacked among all, rising.
      examples: Of those images.
      seconds: What attacking took, summed over the chunks.
    """

    label: str
    attack: Attack
    rows: np.ndarray
    examples: Examples
    seconds: float


class _Turn(NamedTuple):
    """An attack at a radius: the places of the images it attacks, and those of each chunk by its file."""

    label: str
    attack: Attack
    radius: float
    rows: np.ndarray
    cells: dict[pathlib.Path, np.ndarray]


class Sweep:
    """The cells of models × attacks × radii over some images.

    Attributes:
      folder: Where the cells are.
      models: The classifiers.
      attacks: The attacks by what reports call them; their threat models differ at most in epsilon, which is not used.
      radii: The radii, rising.
      images: The images.
      chunk_size: Images per cell, four times as many for an attack that skips fooled images; an interruption loses one
        cell at most.
      batch_size: Images at a time.
      skip_fooled: Whether an attack gets only the images that no attack before it has fooled, at its radius or a
        smaller one, and no image that is misclassified clean after the first.
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
    ):
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
        # Checks them too.
        self.radii = tuple(sorted(ThreatModel(epsilon=radius).epsilon for radius in radii))
        self.images = images
        self.chunk_size = min(chunk_size, len(images.labels))
        self.batch_size = min(batch_size, self.chunk_size)
        self.skip_fooled = skip_fooled
        self._fooled: dict[pathlib.Path, np.ndarray] = {}
        self._digests: dict[bytes, str] = {}

    def run(self, progress: Callable[[str], None] | None = None) -> None:
        """Attacks whatever has no file yet.

        Args:
          progress: Is given a line for each cell that was attacked, with the time left.

        Raises:
          ValueError: An attack or a classifier does not take the images.
          Interrupted: The run was asked to stop; the cell at work was finished.
        """
        # The most there can be in a turn.
        counts = {label: len(self._chunks(label, np.arange(len(self.images.labels)))) for label in self.attacks}
        turns = len(self.models) * len(self.radii)
        meter = Progress([label for label, count in counts.items() for _ in range(turns * count)], progress)
        for model in self.models:
            from_logits = metrics.is_from_logits(model.classifier, self.images.images)
            for label, attack, radius, _, cells in self._turns(model):
                for _ in range(counts[label] - len(cells)):
                    meter.skip(label)
                for path, rows in cells.items():
                    if path.exists():
                        meter.skip(label)
                        continue
                    begin = time.perf_counter()
                    found = self._attack(model.classifier, from_logits, attack, radius, rows)
                    seconds = time.perf_counter() - begin
                    examples.write_examples(path, found, seconds=np.float64(seconds))
                    fooled = int(np.sum(found.result.success | found.clean.wrong))
                    told = f"{model.name}, {label}, ε = {radius:g}: {fooled} of {len(rows)} fooled"
                    meter.done(label, seconds, told)
                    interruption.raise_if_requested()

    def missing(self) -> list[pathlib.Path]:
        """Returns the files that are not there yet.

        Where only who stands is attacked, of each model those of the first turn that lacks some, on which the next
        depend.
        """
        paths: list[pathlib.Path] = []
        for model in self.models:
            for turn in self._turns(model):
                absent = [path for path in turn.cells if not path.exists()]
                paths += absent
                if absent and self.skip_fooled:
                    break
        return paths

    def results(
        self, model: Model, radius: float, *, rescored: bool = False, images: int | None = None
    ) -> Iterator[CellResult]:
        """Yields what is stored of a model at a radius, attack by attack; all its cells must be there.

        Attacks that no image was left for are passed over.

        Args:
          model: One of the models.
          radius: One of the radii.
          rescored: Whether to ask the classifier about the examples anew, see `rescore`.
          images: Of how many examples, the first ones, images are kept; None for all. Memory is in proportion to it.

        Raises:
          ValueError: A file is missing or unreadable.
        """
        for turn in self._turns(model):
            if turn.radius != radius or not turn.cells:
                continue
            parts, seconds = [], 0.0
            for path, rows in turn.cells.items():
                part, extra = examples.read_examples(path)
                part = rescore(model.classifier, part) if rescored else part
                parts.append(part if images is None else examples.keep_images(part, int(np.sum(rows < images))))
                seconds += float(extra.get("seconds", 0.0))
            yield CellResult(turn.label, turn.attack, turn.rows, examples.concatenate(parts), seconds)

    def _turns(self, model: Model) -> Iterator[_Turn]:
        """Yields the attacks on a model in turn; of who stands, each turn's files must be there before the next."""
        rows = np.arange(len(self.images.labels))
        for radius in self.radii:
            for label, attack in self.attacks.items():
                cells = {self._path(model, label, radius, chunk): chunk for chunk in self._chunks(label, rows)}
                yield _Turn(label, attack, radius, rows, cells)
                if self.skip_fooled and cells:
                    rows = rows[~np.concatenate([self._fooled_in(path) for path in cells])]

    def _fooled_in(self, path: pathlib.Path) -> np.ndarray:
        """Returns which images of a cell are fooled or misclassified clean; a file is read once."""
        if path not in self._fooled:
            stored, _ = examples.read_examples(path)
            self._fooled[path] = stored.result.success | stored.clean.wrong
        return self._fooled[path]

    def _chunks(self, label: str, rows: np.ndarray) -> list[np.ndarray]:
        size = self.chunk_size * (_BATCHES_WHERE_FOOLED_ARE_SKIPPED if self.attacks[label].skips_fooled else 1)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _attack(self, classifier: Any, from_logits: bool, attack: Attack, radius: float, rows: np.ndarray) -> Examples:
        # The last chunk is filled up with its last image, so that it needs no compilation of its own.
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
        """Returns a hash of some of the images; the same are asked for at every attack and radius."""
        key = rows.tobytes()
        if key not in self._digests:
            images = self.images
            self._digests[key] = _digest(images.index[rows], images.images[rows], images.labels[rows])
        return self._digests[key]


def rescore(classifier: Any, stored: Examples) -> Examples:
    """Asks a classifier about stored examples anew: predictions, success, loss, and what images alone tell.

    What plans told (cost, rows, columns, flow) is kept, for plans are not stored.

    Args:
      classifier: Any classifier.
      stored: The examples.
    """
    from_logits = metrics.is_from_logits(classifier, stored.images)

    def ask(images: np.ndarray) -> Predictions:
        return metrics.predict_unchecked(classifier, images, stored.labels, from_logits=from_logits)

    clean, feasible, raw = ask(stored.images), ask(stored.result.adversarial), ask(stored.result.raw)
    result = stored.result._replace(
        success=feasible.wrong,
        loss=feasible.loss,
        feasibility=_remeasure(stored.result.feasibility, stored.images, stored.result.adversarial),
        raw_success=raw.wrong,
        raw_loss=raw.loss,
        raw_feasibility=_remeasure(stored.result.raw_feasibility, stored.images, stored.result.raw),
    )
    return stored._replace(clean=clean, result=result)


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Returns a hash of a file, or of all files of a folder: two equal ones are the same classifier."""
    root = pretrained.resolve(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]:
        digest.update(str(file.relative_to(root)).encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """Returns a name as files may be called."""
    return "".join(letter if letter.isalnum() or letter in "._-=," else "_" for letter in name)[:100]


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _remeasure(feasibility: Any, images: np.ndarray, target: np.ndarray) -> Any:
    pixels = (1, 2, 3)
    mass = images.sum(axis=pixels, dtype=np.float64)
    change = np.abs((target.astype(np.float64) - images).sum(axis=pixels))
    relative = np.divide(change, mass, out=np.where(change > 0, np.inf, 0.0), where=mass > 0)
    return feasibility._replace(
        min_pixel=target.min(axis=pixels), max_pixel=target.max(axis=pixels), mass_error=relative.astype(np.float32)
    )
