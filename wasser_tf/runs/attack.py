"""Attacks one saved classifier and writes the examples and a report; bin/attack.py runs it."""

import dataclasses
import pathlib

import numpy as np

from wasser_tf import models
from wasser_tf.attacks import Attack
from wasser_tf.attacks.base import batch_shape
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.data.selection import ImageSource
from wasser_tf.data.streaming import checkable
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.evaluation.record import Record, make_record
from wasser_tf.evaluation.stored_examples import STORED
from wasser_tf.evaluation.sweep import Model, Sweep
from wasser_tf.models import ModelOptions
from wasser_tf.models.inputs import check_batch
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import check_one_of, is_whole
from wasser_tf.runtime.output_folder import check_output_dir
from wasser_tf.runtime.progress import show_progress
from wasser_tf.runtime.run_files import EXAMPLES, REPORT, Schema, write_document
from wasser_tf.version import __version__

# The folder of completed batches; it is removed at the end of the run.
PARTS = "parts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRun:
    """The configuration of an attack on one classifier.

    Attributes:
      model: The path of the classifier, see `wasser_tf.models.load_classifier`.
      source: The images.
      attack: The attack; its threat model holds the radius.
      output_dir: The folder of adversarial.npz and report.json.
      overwrite: Whether to replace existing files of these names.
      batch_size: Images attacked at a time.
      verbose: Whether to print a line for each batch.
      options: What is given about the classifier, such as the range of its pixels.
      allow_chance_accuracy: Whether to attack a classifier that is no better than chance.
      stored_examples: The form of the images in adversarial.npz, see `EvaluationRun`.

    Raises:
      ValueError: A field is out of range.
    """

    model: str
    source: ImageSource
    attack: Attack
    output_dir: str
    overwrite: bool = False
    batch_size: int = 128
    verbose: bool = True
    options: ModelOptions = ModelOptions()
    allow_chance_accuracy: bool = False
    stored_examples: str = "float32"

    def __post_init__(self) -> None:
        if not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}.")
        check_one_of("stored_examples", self.stored_examples, STORED)
        check_in_wasserstein_ball(self.attack)


def run_attack(config: AttackRun) -> Record:
    """Attacks a classifier and writes adversarial.npz and report.json.

    Both files are written at the end. Until then, completed batches are stored in a subfolder, and an interrupted run
    resumes after the last of them when called again.

    >>> import tempfile
    >>> from wasser_tf import ThreatModel, attacks, models
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/linear.keras"
    ...     models.build("linear", (8, 8, 1), 10, seed=0).save(path)
    ...     record = run_attack(
    ...         AttackRun(
    ...             model=path,
    ...             source=ImageSource(dataset="digits", num_examples=4),
    ...             attack=attacks.make("random_plan", ThreatModel(epsilon=0.1)),
    ...             output_dir=f"{folder}/attack",
    ...             verbose=False,
    ...         )
    ...     )
    ...     sorted(path.name for path in pathlib.Path(folder, "attack").iterdir())
    ['adversarial.npz', 'report.json']
    >>> record.num_images, record.feasible.feasible_share
    (4, 1.0)

    Args:
      config: The configuration.

    Returns:
      The record, which report.json holds as well.

    Raises:
      ValueError: The model or the images are invalid, the output_dir holds another run, or another process writes into
        it; nothing was written.
      OSError: The output_dir cannot be written to; existing files are unchanged.
      wasser_tf.runtime.interruption.Interrupted: A signal requested the run to stop; the same call resumes it.
    """
    folder = pathlib.Path(config.output_dir).expanduser()
    check_output_dir(folder, (EXAMPLES, REPORT), config.overwrite)
    images = config.source.load()
    classifier = load_checked(config.model, config.options, images, config.allow_chance_accuracy)
    check_batch(classifier, *checkable(images.images, images.labels))
    model = Model(models.model_name(config.model), config.options.mark(fingerprint(config.model)), classifier)
    radius, count = config.attack.threat_model.epsilon, batch_shape(len(images.labels), config.batch_size)
    sweep = Sweep(
        folder / PARTS,
        [model],
        {config.attack.name: config.attack},
        [radius],
        images,
        chunk_size=count,
        batch_size=count,
        stored=config.stored_examples,
    )
    storage.make_folder(folder)
    with storage.locked(folder):
        # Checked again under the lock, because another run may have used the folder in the meantime.
        check_output_dir(folder, (EXAMPLES, REPORT), config.overwrite)
        storage.remove_leftovers(folder)
        sweep.run(show_progress if config.verbose else None)
        (cell,) = sweep.results(model, radius, images=0)
        record = make_record(
            config.attack,
            cell.examples.result,
            cell.examples.clean,
            radius=None,
            model_name=model.name,
            dataset_name=images.name,
            seconds=cell.seconds,
        )
        report = {
            "wasser_tf": __version__,
            "model_path": config.model,
            **config.options.to_json(),
            "source": config.source.to_json(),
            "threat_model_in_words": str(config.attack.threat_model),
            **record.to_json(),
            **({} if cell.rank is None else {"robust_top5_accuracy": float(np.mean(cell.rank < 5))}),
        }
        sweep.concatenate(model, radius, folder / EXAMPLES)
        # Written last: if the report exists, the examples do.
        write_document(folder / REPORT, Schema.ATTACK_REPORT, report)
        storage.remove(folder / PARTS)
    return record
