"""Reproduces the paper's tables and figures (bin/reproduce.py).

An experiment is a function from an `ExperimentContext` (classifiers, images, attacks and evaluations) to an
`ExperimentOutput`. Trainings and evaluations are stored in the output_dir and reused: after an interruption, the same
command resumes the run.
"""

import pathlib
import shutil
from collections.abc import Callable

from wasser_tf.evaluation.fingerprint import safe_name
from wasser_tf.models.inputs import check_batch
from wasser_tf.paper import experiment_output, results_page
from wasser_tf.paper.context import ExperimentContext, Reproduction
from wasser_tf.paper.experiment_output import ExperimentOutput
from wasser_tf.paper.experiments import EXPERIMENTS
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import storage


def reproduce(config: Reproduction, log: Callable[[str], None] | None = None) -> list[pathlib.Path]:
    """Runs experiments and writes their outputs. Trainings and evaluations of an earlier run are reused.

    Args:
      config: The settings.
      log: Called with lines of progress; None for none.

    Returns:
      The Markdown files, one for each experiment, and the results page if there is one.

    Raises:
      ValueError: An experiment is unknown, or a dataset, classifier or attack cannot be loaded.
    """
    if unknown := [name for name in config.experiments if name not in EXPERIMENTS]:
        raise ValueError(f"There is no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}.")
    log = log or (lambda line: None)
    context = ExperimentContext(config, log)
    context.trainer.prepare_process()
    # Errors in these are raised before hours of training.
    images = context.source(config.preset.num_examples).load()
    for path in (*config.given.values(), *config.others.values()):
        classifier = load_checked(path, config.options, images, config.allow_chance_accuracy)
        check_batch(classifier, images.images[:1], images.labels[:1])
    for name in config.attacks:
        context.attack(name)
    if config.publish_dir is not None:
        storage.make_folder(pathlib.Path(config.publish_dir).expanduser())
    written = []
    for name in config.experiments:
        log(f"{name}")
        made: ExperimentOutput = EXPERIMENTS[name](context)
        experiment_output.write_output(context.folder, made, dataset=config.dataset, seed=config.seed)
        written.append(context.folder / f"{name}.md")
        if config.publish_dir is not None:
            place = pathlib.Path(config.publish_dir).expanduser() / safe_name(config.dataset)
            for file in (*made.pictures, f"{name}.csv", f"{name}.json"):
                with storage.atomic_path(place / file) as temporary:
                    shutil.copyfile(context.folder / file, temporary)
    if config.publish_dir is not None:
        written.append(
            results_page.write_results_page(pathlib.Path(config.publish_dir).expanduser(), safe_name(config.dataset))
        )
    return written
