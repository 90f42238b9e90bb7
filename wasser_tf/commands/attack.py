r"""Attacks a saved classifier and writes feasible adversarial examples and a report.

  wasser-tf attack --model=best.keras --dataset=digits --epsilon=0.5 --attack=mirror_ascent --output_dir=runs/attack

--model is a .keras file, the folder of a SavedModel, a published .npz checkpoint, or pretrained:NAME for a packaged
classifier. The output_dir gets:
  adversarial.npz  arrays with one entry per image: index (position in the split as loaded), image, label, adversarial
                   (feasible, float32), success, loss, radius, cost and the other fields of the feasibility record; and
                   raw, raw_success, … for the examples before rounding to feasible ones
  report.json      the threat model, the attack and its settings, and the scores of feasible and raw examples
"""

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.reporting import tables
from wasser_tf.runs.attack import AttackRun, run_attack

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "model", None, "The classifier: a .keras file, a SavedModel's folder, a .npz or pretrained:NAME.", required=True
)
flags.DEFINE_string("attack", "wasser_attack", f"name or name:setting=value:…; one of {_flags.WASSERSTEIN_ATTACKS}.")
flags.DEFINE_float("epsilon", 0.5, "The radius of the ball.")
_flags.define_classifier()
_flags.define_chance_accuracy()
_flags.define_data()
_flags.define_selection()
_flags.define_threat_model()
_flags.define_attack_settings()
_flags.define_deterministic()
_flags.define_stored_examples()
_flags.define_output()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Runs the attack that the flags describe and prints the scores."""
    _flags.apply_deterministic()
    config = AttackRun(
        model=FLAGS.model,
        source=_flags.image_source(),
        attack=_flags.make_attack(FLAGS.attack, _flags.threat_model(FLAGS.epsilon)),
        output_dir=FLAGS.output_dir,
        overwrite=FLAGS.overwrite,
        batch_size=FLAGS.batch_size,
        options=_flags.model_options(),
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
        stored_examples=FLAGS.stored_examples,
    )
    record = run_attack(config)
    print(f"\n{tables.summary(record)}\nWritten: {FLAGS.output_dir}")


if __name__ == "__main__":
    _flags.run(main, "the same command resumes after the last complete batch")
