"""One attack on one saved classifier, with its examples and a report as files: what bin/attack.py does."""

import dataclasses
import pathlib

import wasser_tf
from wasser_tf import models, pretrained, storage
from wasser_tf._checks import is_whole
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_transports
from wasser_tf.evaluation import examples
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.record import Record, evaluate_attack
from wasser_tf.evaluation.selection import ImageSource

EXAMPLES = "adversarial.npz"
REPORT = "report.json"


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
      verbose: Whether to show a progress bar.

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

    def __post_init__(self) -> None:
        if not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}.")
        check_transports(self.attack)


def run_attack(config: AttackRun) -> Record:
    """Attacks, and writes both files once all is done.

    Raises:
      ValueError: The model, the images or the output_dir are not what is needed; nothing was written.
    """
    folder = pathlib.Path(config.output_dir).expanduser()
    check_output_dir(folder, (EXAMPLES, REPORT), config.overwrite)
    classifier = models.load_classifier(config.model)
    images = config.source.load()
    evaluation = evaluate_attack(
        classifier,
        config.attack,
        images.images,
        images.labels,
        model_name=model_name(config.model),
        dataset_name=images.name,
        index=images.index,
        batch_size=config.batch_size,
        verbose=config.verbose,
    )
    report = {
        "wasser_tf": wasser_tf.__version__,
        "model_path": config.model,
        "source": dataclasses.asdict(config.source),
        "threat_model_in_words": str(config.attack.threat_model),
        **evaluation.record.to_json(),
    }
    examples.save(
        folder / EXAMPLES,
        Examples(images.index, images.images, images.labels, evaluation.clean, evaluation.result),
    )
    # Last: where there is a report there are examples.
    storage.write_json(folder / REPORT, report)
    return evaluation.record


def check_output_dir(folder: pathlib.Path, files: tuple[str, ...], overwrite: bool) -> None:
    """Refuses an output_dir that holds another run.

    Args:
      folder: The output_dir.
      files: The files by which a run is known.
      overwrite: Whether they may be replaced.

    Raises:
      ValueError: It is a file, or holds one of the files and overwrite is off.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, got the file {folder}: give another --output_dir.")
    there = [name for name in files if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"output_dir {folder} holds another run ({', '.join(there)}): give another --output_dir, or --overwrite."
        )


def model_name(path: str) -> str:
    """Returns what a classifier's file is called without its ending: the last part of the path."""
    return pathlib.Path(path.removeprefix(pretrained.PREFIX)).stem
