r"""Trains a classifier, makes it robust with WasserTrain, and compares the two under attack.

  python bin/train.py --dataset=digits --output_dir=runs/digits
  python bin/train.py --dataset=mnist --data_dir=… --epochs=5 --epsilon=0.3 --output_dir=runs/mnist
  python bin/train.py --flagfile=my.flags --output_dir=runs/digits --resume
  python bin/train.py --dataset=mnist --distribute=mirrored --batch_size=1024 --output_dir=runs/mnist

The output_dir gets:
  best.keras, best_saved_model/  the WasserTrain classifier, of the epoch that was best on the validation split (--keep)
  standard.keras                 the classifier it started from
  report.md, report.json         both under attack on the test split, at each of --radii
  examples_*.png, success.png    clean images, perturbations and adversarial images; success against ε
  history.csv, config.json       each epoch's losses and accuracies; the flags, the threat model and the versions
  checkpoints/                   what --resume goes on from, to the weights the run would have had without the break
"""

import _flags
from absl import flags

from wasser_tf import models
from wasser_tf.attacks import ATTACKS, Attack, spec
from wasser_tf.data.augmentation import AUGMENTATIONS
from wasser_tf.reporting import comparison
from wasser_tf.runs import train
from wasser_tf.training.config import KEPT, PRECISIONS, TrainConfig
from wasser_tf.training.distribution import STRATEGIES

FLAGS = flags.FLAGS

flags.DEFINE_string("model", TrainConfig.model, f"The classifier, one of {', '.join(models.MODELS)}.")
flags.DEFINE_string(
    "initial", None, "A saved classifier to start from (with --standard_epochs=0), in place of --model."
)
flags.DEFINE_float("width", TrainConfig.width, "Multiplies the channels and units of its hidden layers.")
flags.DEFINE_integer(
    "blur", TrainConfig.blur, "How many means over 3×3 pixels go before the classifier, also --initial."
)
flags.DEFINE_string(
    "attack", "mirror_ascent", f"What WasserTrain trains on: name or name:setting=value:…; one of {', '.join(ATTACKS)}."
)
flags.DEFINE_float(
    "epsilon", 0.1, "The radius of the ball in training, unless --adaptive_radius; of linf_pgd the ℓ∞ bound."
)
flags.DEFINE_bool("random_radius", TrainConfig.random_radius, "Whether each image gets a radius from 0 to --epsilon.")
flags.DEFINE_float(
    "warm_start",
    TrainConfig.warm_start,
    "What is kept from epoch to epoch of where the attack on an image ended, to go on from there, such as 0.75; 0: "
    "nothing, it starts anew.",
)
flags.DEFINE_float("omega", TrainConfig.omega, "ω, the weight of the adversarial loss.")
flags.DEFINE_float(
    "trades_beta", TrainConfig.trades_beta, "β of TRADES, whose loss takes the place of Eq. 10's; 0: Eq. 10."
)
flags.DEFINE_float(
    "label_smoothing", TrainConfig.label_smoothing, "What labels give away, shared evenly by all classes, such as 0.1."
)
flags.DEFINE_integer(
    "validation_size", None, "How many images are held out of train for validation; by default a twelfth, 5000 at most."
)
flags.DEFINE_integer("standard_epochs", TrainConfig.standard_epochs, "Epochs of standard training.")
flags.DEFINE_integer("epochs", TrainConfig.epochs, "Epochs of WasserTrain.")
flags.DEFINE_string("optimizer", TrainConfig.optimizer, "A Keras optimiser: adam, adamw, sgd, ….")
flags.DEFINE_float(
    "learning_rate", TrainConfig.learning_rate, "The highest learning rate; it falls to 0 along a cosine."
)
flags.DEFINE_float(
    "warmup", TrainConfig.warmup, "The part of each training in which the learning rate first rises from 0."
)
flags.DEFINE_float("momentum", TrainConfig.momentum, "Nesterov momentum of sgd.")
flags.DEFINE_float("weight_decay", TrainConfig.weight_decay, "What weights lose a step, times the learning rate.")
flags.DEFINE_float(
    "ema_momentum",
    TrainConfig.ema_momentum,
    "The momentum of a moving average of the weights, which is then kept in their place; 0: none.",
)
flags.DEFINE_enum(
    "augment", TrainConfig.augment, list(AUGMENTATIONS), "What changes training images: shifts; or crops and mirroring."
)
flags.DEFINE_enum("precision", TrainConfig.precision, PRECISIONS, "Precision of the classifier.")
flags.DEFINE_enum(
    "jit_compile",
    "auto",
    ["auto", "true", "false"],
    "Whether XLA compiles the step (auto: on a GPU, but for max pooling with --deterministic).",
)
flags.DEFINE_enum(
    "keep", TrainConfig.keep, KEPT, "Of which epoch the weights are kept; the best by the validation split."
)
flags.DEFINE_string(
    "validation_attack",
    None,
    "What attacks validation images after each epoch, at the middle one of --radii: name or name:setting=value:…; "
    "mirror_ascent:iterations=20 by default. One with restarts is not as easily misled.",
)
flags.DEFINE_list("radii", [f"{radius:g}" for radius in TrainConfig.radii], "The ε of the report, rising.")
flags.DEFINE_integer(
    "report_iterations", TrainConfig.report_iterations, "Iterations of the report's attack, each restart."
)
flags.DEFINE_integer("num_attack_examples", TrainConfig.num_attack_examples, "How many test images the report attacks.")
flags.DEFINE_enum("distribute", TrainConfig.distribute, STRATEGIES, "Over what to spread (docs/how_to/distribute.md).")
flags.DEFINE_integer("attack_chunk", None, "Images of a step attacked at a time, to bound memory. All by default.")
flags.DEFINE_bool("resume", False, "Whether to go on with the run in the output_dir, if there is one.")
_flags.define_import()
_flags.define_data()
_flags.define_threat_model()
_flags.define_attack_settings()
_flags.define_deterministic()
_flags.define_output(batch_size=TrainConfig.batch_size)
flags.adopt_module_key_flags(_flags)
FLAGS.set_default("iterations", 10)


def main() -> None:
    """Turns the flags into a config, runs it and prints the table."""
    _flags.import_modules()
    same = """dataset data_dir download validation_size model width blur initial omega trades_beta label_smoothing
        standard_epochs epochs batch_size augment optimizer learning_rate warmup momentum weight_decay ema_momentum seed
        precision report_iterations num_attack_examples distribute attack_chunk random_radius warm_start keep
        deterministic output_dir resume overwrite"""
    config = TrainConfig(
        **{name: FLAGS[name].value for name in same.split()},
        validation_attack=_validation_attack(),
        attack=_flags.make_attack(FLAGS.attack, _flags.threat_model(FLAGS.epsilon)),
        jit_compile={"true": True, "false": False}.get(FLAGS.jit_compile, "auto"),
        radii=tuple(FLAGS.radii),
    )
    finished = train.run_training(config, train.prepare_process(config))
    if finished is None:  # A worker that is not the chief.
        return
    print(f"\n{comparison.comparison_table(finished.compared)}\nPictures:")
    print("\n".join(f"  {path}" for path in finished.figures))


def _validation_attack() -> Attack | None:
    if FLAGS.validation_attack is None:
        return None
    ball = _flags.threat_model(FLAGS.epsilon)
    return spec.make_from_spec(FLAGS.validation_attack, ball, {"seed": FLAGS.seed})


if __name__ == "__main__":
    _flags.run(main, "the same command with --resume goes on after the last whole batch")
