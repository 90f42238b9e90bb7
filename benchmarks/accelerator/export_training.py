"""Exports an interrupted training for an accelerator: the training step and the state of a run of bin/train.py.

  python -m benchmarks.accelerator.export_training RUN OUT
  python run_training.py OUT                                 # where JAX and the accelerator are
  python -m benchmarks.accelerator.import_training RUN OUT
  python bin/train.py … --output_dir=RUN --resume

RUN is a run of bin/train.py that was stopped in the phase that continues on the accelerator. The exported step consists
of the augmentation, train_step and the averaging of weights; the order of the data and all seeds are those of
bin/train.py. The run's validation attack is exported as a separate program, to validate on the accelerator.
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf

from benchmarks.accelerator import program
from benchmarks.accelerator.resumed_run import ResumedRun, resumed_run
from wasser_tf import data
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.training import loop

# Number of validation images that are attacked on the accelerator, at each radius of the report.
_VALIDATED = 512


def main(run: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the program, its state and the training images."""
    program.project_all_at_once()
    resumed = resumed_run(run)
    config, prepared, trained, train = resumed.config, resumed.prepared, resumed.trained, resumed.dataset.train
    numbered = resumed.phase != "standard" and config.warm_start > 0
    if prepared.average is not None:
        prepared.average.set_model(trained)

    def step(
        images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor, epoch: tf.Tensor, at: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        images = tf.cast(images, tf.float32) / 255.0
        numbers = {"number": number}
        if prepared.augment is not None:
            seed = data.step_seed(config.seed, epoch, at)
            if numbered:
                numbers |= prepared.augment.sources(images, seed)._asdict()
            images = prepared.augment(images, seed)
        logs = trained.train_step(({"image": images, **numbers} if numbered else images, labels))
        if prepared.average is not None:
            prepared.average.move()
        return logs

    as_bytes = _as_bytes(train.images, config.dataset)
    # The schedule consists of variables, so that run_training, which measures the time of an epoch, can choose the
    # number of epochs.
    decay = trained.optimizer._learning_rate
    schedule = [tf.Variable(float(value)) for value in (decay.decay_steps, decay.warmup_steps)]
    decay.decay_steps, decay.warmup_steps = schedule
    count, zero = config.batch_size, tf.constant(0, tf.int64)
    number = tf.range(count, dtype=tf.int32)
    examples = [tf.constant(as_bytes[:count]), tf.constant(train.labels[:count]), number, zero, zero]
    # Metrics create their variables in the first step.
    tf.function(step, autograph=False).get_concrete_function(*examples)
    checkpoint = prepared.checkpoint
    checkpoint.on_epoch_begin(checkpoint.epochs_done)
    known = checkpoint.variables()
    places = {id(variable): number for number, variable in enumerate(known)}
    program.export(
        out,
        step,
        examples,
        # The metrics' variables, which are reset in each epoch, are the last ones.
        [*known, *schedule, *trained.metrics_variables],
        kept=[places[id(variable)] for variable in prepared.kept.weights],
        schedule=len(known),
        metrics=len(known) + len(schedule),
        warmup=config.warmup,
        count=len(train.labels),
        batch_size=count,
        seed=config.seed,
        epochs=resumed.epochs,
        epochs_done=checkpoint.epochs_done,
        steps_done=checkpoint.steps_done,
        dataset=config.dataset,
        keep=config.keep,
        omega=0.0 if resumed.phase == "standard" else config.omega,
        radius=config.middle_radius,
    )
    np.savez_compressed(out.parent / f"{config.dataset}.npz", images=as_bytes, labels=train.labels)
    _export_validation(out / "validation", resumed)


def _export_validation(out: pathlib.Path, resumed: ResumedRun) -> None:
    """Writes the program that computes natural and robust accuracy of the kept weights."""
    attack = loop.validation_attack(resumed.config)
    kept, split = resumed.prepared.kept, resumed.dataset.validation
    logits_fn = as_logits_fn(kept, True)

    def scores(images: tf.Tensor, labels: tf.Tensor, radius: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.cast(images, tf.float32) / 255.0
        natural = tf.argmax(logits_fn(images), axis=1, output_type=labels.dtype) == labels
        robust = ~attack.run(logits_fn, images, labels, radius).success
        return {"natural": tf.cast(natural, tf.float32), "robust": tf.cast(robust, tf.float32)}

    images, labels = _as_bytes(split.images[:_VALIDATED], resumed.config.dataset), split.labels[:_VALIDATED]
    radius = np.full(len(labels), resumed.config.radii[0], np.float32)
    examples = [tf.constant(array) for array in (images, labels, radius)]
    # Without values, because the weights come from the training.
    program.export(out, scores, examples, kept.weights, values=False, radii=resumed.config.radii)
    np.savez_compressed(out / "images.npz", images=images, labels=labels)


def _as_bytes(images: np.ndarray, dataset: str) -> np.ndarray:
    as_bytes = np.round(images * 255).astype(np.uint8)
    if not np.array_equal(as_bytes.astype(np.float32) / np.float32(255), images):
        raise ValueError(f"The images of {dataset} must be multiples of 1/255 to be exported as uint8.")
    return as_bytes


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
