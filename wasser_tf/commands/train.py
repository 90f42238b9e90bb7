r"""Trains a standard classifier, then a robust one with WasserTrain, and compares both under attack.

  wasser-tf train --dataset=digits --output_dir=runs/digits
  wasser-tf train --dataset=mnist --data_dir=… --epochs=5 --epsilon=0.3 --output_dir=runs/mnist
  wasser-tf train --dataset=digits --certified --epsilon=0.1 --epochs=0 --output_dir=runs/digits_certified
  wasser-tf train --dataset=photos/ --image_size=64,64 --crop=center --epsilon=0.02 --output_dir=runs/photos
  wasser-tf train --flagfile=my.flags --output_dir=runs/digits --resume
  wasser-tf train --dataset=mnist --distribute=mirrored --batch_size=1024 --output_dir=runs/mnist

The output_dir gets:
  best.keras, best_saved_model/  the WasserTrain classifier of the epoch that was best on the validation split (--keep)
  certified.keras, bracket.png   with --certified: the CertifiedTrain classifier (best.keras too, with --epochs=0)
  standard.keras                 the classifier from which WasserTrain started
  report.md, report.json         both classifiers under attack on the test split, at each of --radii
  examples_*.png, success.png    clean images, perturbations and adversarial images; success against ε
  history.csv, config.json       losses and accuracies of each epoch; the flags, the threat model and the versions
  checkpoints/                   the state from which --resume continues; results equal those of an uninterrupted run
"""

from absl import flags

from wasser_tf.attacks import ATTACKS, Attack, spec
from wasser_tf.commands import _flags
from wasser_tf.reporting import comparison
from wasser_tf.runs import train
from wasser_tf.training import image_fields
from wasser_tf.training.config import TrainConfig

FLAGS = flags.FLAGS

# Fields whose flags are defined here, because they are given as name:setting=value:….
_ATTACKS = ("attack", "validation_attack")
# Fields whose flags are those of _flags.define_data.
_READING = image_fields.READING
_HELP = {field.name: field.metadata["help"] for field in TrainConfig.__dataclass_fields__.values()}

flags.DEFINE_string(
    "attack", "mirror_ascent", f"{_HELP['attack']} Given as name or name:setting=value:…; one of {', '.join(ATTACKS)}."
)
flags.DEFINE_float(
    "epsilon", 0.1, "Radius of the ball in training, unless --adaptive_radius is set; for linf_pgd, the ℓ∞ bound."
)
flags.DEFINE_string("validation_attack", None, f"{_HELP['validation_attack']} Given as name or name:setting=value:….")
_flags.define_import()
_flags.define_data()
_flags.define_threat_model()
_flags.define_attack_settings()
_flags.define_deterministic()
_flags.define_output(batch_size=TrainConfig.batch_size)
_flags.define_config(TrainConfig, skip=_ATTACKS)
flags.adopt_module_key_flags(_flags)
FLAGS.set_default("iterations", 10)


def main() -> None:
    """Runs the training that the flags describe and prints the table of the report."""
    _flags.import_modules()
    config = TrainConfig(
        **{**_flags.config_values(TrainConfig, skip=(*_ATTACKS, *_READING)), **_flags.reading_values()},
        attack=_flags.make_attack(FLAGS.attack, _flags.threat_model(FLAGS.epsilon)),
        validation_attack=_validation_attack(),
    )
    finished = train.run_training(config, train.prepare_process(config))
    if finished is None:  # A worker that is not the chief.
        return
    print(f"\n{comparison.comparison_table(finished.compared)}")
    if finished.bracket:
        print(f"\n{finished.bracket}", end="")
    print("Pictures:")
    print("\n".join(f"  {path}" for path in finished.figures))


def _validation_attack() -> Attack | None:
    if FLAGS.validation_attack is None:
        return None
    ball = _flags.threat_model(FLAGS.epsilon)
    return spec.make_from_spec(FLAGS.validation_attack, ball, {"seed": FLAGS.seed})


if __name__ == "__main__":
    _flags.run(main, "the same command with --resume continues after the last complete batch")
