r"""Evaluates saved classifiers: models × attacks × radii to tables, curves and pictures.

  python bin/evaluate.py --models=standard=a.keras,robust=b.keras --attacks=mirror_ascent,random_plan \
    --radii=0.1,0.3,0.5 --dataset=digits --num_examples=100 --output_dir=runs/evaluation

The output_dir gets report.md, report.json, results.csv, figures/ and cells/, the examples. Interrupted, the same
command goes on where it was. An evaluation that is there is scored anew by

  python bin/evaluate.py --output_dir=runs/evaluation --rescore --verify_exact

without attacking; what is evaluated is then read from the output_dir.
"""

import _flags
from absl import flags

from wasser_tf.evaluation.config import EvaluationRun, parse_models
from wasser_tf.reporting.report import overview
from wasser_tf.runs.evaluate import run_evaluation

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "models", None, "Classifiers as path or name=path: .keras, SavedModels' folders, .npz, pretrained:NAME."
)
flags.DEFINE_list(
    "attacks",
    "mirror_ascent,wasser_attack,random_plan",
    f"Attacks as name or name:setting=value:setting=value; there are {_flags.WASSERSTEIN_ATTACKS}.",
)
flags.DEFINE_list("radii", "0.1,0.3,0.5,1.0", "Radii ε.")
flags.DEFINE_bool("resume", False, "Whether to go on in an output_dir of other settings; results that fit are used.")
flags.DEFINE_bool("rescore", False, "Whether to score the stored examples anew, without attacking.")
flags.DEFINE_bool("verify_exact", False, "Whether to verify feasible examples by exact transport (float64).")
flags.DEFINE_integer(
    "verify_examples", 100, "How many of each model, attack and radius --verify_exact takes; 0: all.", lower_bound=0
)
flags.DEFINE_bool("sanity", True, "Whether to make the sanity checks of Carlini et al. 2019.")
flags.DEFINE_bool(
    "skip_fooled",
    False,
    "Whether an attack gets only the images that none before it and no smaller radius has fooled: the robust accuracy "
    "of all attacks together for less work, without scores of each.",
)
flags.DEFINE_bool("minimal_radius", False, "Whether to bisect the smallest radius that fools each image.")
flags.DEFINE_string(
    "main_attack",
    "",
    "The attack of --sanity and --minimal_radius: one of --attacks, mirror_ascent or else the first by default.",
)
flags.DEFINE_integer("sanity_examples", 100, "On how many images the sanity checks are made.", lower_bound=1)
_flags.define_classifier()
_flags.define_chance_accuracy()
_flags.define_data()
_flags.define_selection()
_flags.define_threat_model()
_flags.define_attack_settings()
_flags.define_deterministic()
_flags.define_output()
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Turns the flags into a config, runs it and says where the report is."""
    _flags.apply_deterministic()
    _flags.import_modules()
    reports = run_evaluation(
        _config() if FLAGS.models else EvaluationRun.stored(FLAGS.output_dir),
        resume=FLAGS.resume,
        overwrite=FLAGS.overwrite,
        rescore_only=FLAGS.rescore,
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
        verify_exact=FLAGS.verify_examples if FLAGS.verify_exact else None,
        log=lambda line: print(line, flush=True),
    )
    for report in reports:
        print(f"\n{report.name}\n{overview(report)}")
    print(f"Written: {FLAGS.output_dir}/report.md")


def _config() -> EvaluationRun:
    radii = _flags.numbers("radii")
    made = _flags.make_attacks(FLAGS.attacks, _flags.threat_model(radii[-1]))
    return EvaluationRun(
        models=parse_models(FLAGS.models),
        source=_flags.image_source(),
        attacks=dict(zip(FLAGS.attacks, made, strict=True)),
        radii=radii,
        output_dir=FLAGS.output_dir,
        sanity=FLAGS.sanity,
        minimal_radius=FLAGS.minimal_radius,
        main_attack=FLAGS.main_attack,
        sanity_examples=FLAGS.sanity_examples,
        batch_size=FLAGS.batch_size,
        skip_fooled=FLAGS.skip_fooled,
        options=_flags.model_options(),
    )


if __name__ == "__main__":
    _flags.run(main, "the same command goes on after the last whole batch")
