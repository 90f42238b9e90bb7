"""One attack on one saved classifier, with its examples and a report as files: what bin/attack.py does."""

import dataclasses
import pathlib

from wasser_tf import models
from wasser_tf.attacks import Attack
from wasser_tf.attacks.base import batch_shape
from wasser_tf.attacks.inputs import check_batch, check_in_wasserstein_ball
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation import examples
from wasser_tf.evaluation.record import Record, make_record
from wasser_tf.evaluation.sweep import Model, Sweep, fingerprint
from wasser_tf.models import ModelOptions
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.runtime.output_folder import check_output_dir
from wasser_tf.version import __version__

EXAMPLES = "adversarial.npz"
REPORT = "report.json"
# What is done so far, while a run lasts.
PARTS = "parts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRun:
    """What to attack with what.

    Attributes:
      model: Path of the classifier, see `wasser_tf.models.load_classifier`.
      source: The images.
      attack: The attack; its threat model holds the radius.
      output_dir: Where adversarial.npz and report.json go.
      overwrite: Whether to replace such files that are there.
      batch_size: Images at a time.
      verbose: Whether to log each batch.
      options: What is given about the classifier.
      allow_chance_accuracy: Whether to attack a classifier that is no better than chance.

    Raises:
      ValueError: A field is out of its range.
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

    def __post_init__(self) -> None:
        if not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}.")
        check_in_wasserstein_ball(self.attack)


def run_attack(config: AttackRun) -> Record:
    """Attacks, and writes both files once all is done; a run that was stopped goes on after its last whole batch.

    Raises:
      ValueError: The model, the images or the output_dir are not what is needed, or another run writes there; nothing
        was written.
      OSError: The output_dir cannot be written to; what was there before is whole.
      wasser_tf.runtime.interruption.Interrupted: The run was asked to stop; the same call goes on.
    """
    folder = pathlib.Path(config.output_dir).expanduser()
    check_output_dir(folder, (EXAMPLES, REPORT), config.overwrite)
    images = config.source.load()
    classifier = load_checked(config.model, config.options, images, config.allow_chance_accuracy)
    check_batch(classifier, images.images, images.labels)
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
    )
    storage.make_folder(folder)
    with storage.locked(folder):
        # Once more, for a run may have begun and ended here since.
        check_output_dir(folder, (EXAMPLES, REPORT), config.overwrite)
        storage.remove_leftovers(folder)
        sweep.run((lambda line: print(line, flush=True)) if config.verbose else None)
        (cell,) = sweep.results(model, radius)
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
            "source": dataclasses.asdict(config.source),
            "threat_model_in_words": str(config.attack.threat_model),
            **record.to_json(),
        }
        examples.write_examples(folder / EXAMPLES, cell.examples)
        # After them: where there is a report there are examples.
        storage.write_json(folder / REPORT, report)
        storage.remove(folder / PARTS)
    return record
