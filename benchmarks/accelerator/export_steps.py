"""Exports the programs that `time_steps` times: `python -m benchmarks.accelerator.export_steps OUT`.

They are the classifier's forward and backward pass, attacks with two numbers of iterations, and a step of plain
training and of WasserTrain.
"""

import pathlib
import sys
from typing import Any

import keras
import tensorflow as tf

from benchmarks import material, timing
from benchmarks.accelerator import program
from wasser_tf import ThreatModel, WasserTrain, attacks
from wasser_tf.models.logits import as_logits_fn

_BALL = ThreatModel(epsilon=0.5)
_CASES = {"lenet": ((28, 28, 1), (128, 1024)), "resnet_small": ((32, 32, 3), (128,)), "resnet18": ((32, 32, 3), (128,))}
# The models whose weights and CPU results are exported, for comparison.
_SMALL = ("lenet", "resnet_small")
# Two numbers of iterations, to separate the cost of an iteration from the fixed cost of an attack.
_LENGTHS = {"mirror_ascent": (5, 25), "wasser_attack": (5, 25)}


def main(out: pathlib.Path) -> None:
    """Writes all programs."""
    program.project_all_at_once()
    for model, (shape, batches) in _CASES.items():
        for batch in batches:
            print(f"{model}, {batch} images", flush=True)
            given = tuple(tf.constant(array) for array in material.images_like(shape, batch))
            _attacks(out, f"{model}.{batch}", model, shape, given)
            if batch == batches[0]:
                _trainings(out, f"{model}.{batch}", model, shape, given)


def _exported(model: str) -> dict[str, bool]:
    """Returns whether weights and results are exported; for large models, computing them takes minutes on a CPU."""
    return {"expected": model in _SMALL, "values": model in _SMALL}


def _attacks(
    out: pathlib.Path, name: str, model: str, shape: tuple[int, int, int], given: tuple[tf.Tensor, ...]
) -> None:
    classifier = material.build(model, shape)
    logits_fn, gradient = as_logits_fn(classifier, True), timing.gradient_in_images(classifier)
    program.export(
        out / f"{name}.classifier", lambda *batch: {"gradient": gradient(*batch)}, given, [], **_exported(model)
    )
    for attack, lengths in _LENGTHS.items():
        for iterations in lengths:
            made = attacks.make(attack, _BALL, iterations=iterations)

            def run(images: tf.Tensor, labels: tf.Tensor, made: attacks.Attack = made) -> dict[str, tf.Tensor]:
                found = made.run(logits_fn, images, labels)
                return {"adversarial": found.adversarial}

            program.export(out / f"{name}.{attack}.{iterations}", run, given, [], **_exported(model))


def _trainings(
    out: pathlib.Path, name: str, model: str, shape: tuple[int, int, int], given: tuple[tf.Tensor, ...]
) -> None:
    plain = material.build(model, shape)
    robust = WasserTrain(material.build(model, shape), attacks.make("mirror_ascent", _BALL, iterations=10))
    for kind, trained in (("plain", plain), ("wasser_train", robust)):
        trained.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

        def step(images: tf.Tensor, labels: tf.Tensor, trained: Any = trained) -> dict[str, tf.Tensor]:
            return trained.train_step((images, labels))

        trained.optimizer.build(trained.trainable_variables)
        tf.function(step, autograph=False).get_concrete_function(*given)
        known: dict[int, Any] = {}
        for variable in (*trained.variables, *trained.optimizer.variables, *trained.metrics_variables):
            known.setdefault(id(variable), variable)
        program.export(out / f"{name}.{kind}", step, given, list(known.values()), **_exported(model))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
