r"""Evaluates saved classifiers under attacks at several radii and writes tables, curves and figures.

  wasser-tf evaluate --models=standard=a.keras,robust=b.keras --attacks=mirror_ascent,random_plan \
    --radii=0.1,0.3,0.5 --dataset=digits --num_examples=100 --output_dir=runs/evaluation

The output_dir gets report.md, report.json, results.csv, figures/, and the examples in cells/. After an interruption,
the same command resumes the evaluation. To score a stored evaluation again without attacking, use

  wasser-tf evaluate --output_dir=runs/evaluation --rescore --verify_exact

which reads the configuration from the output_dir.
"""

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.evaluation.config import EvaluationRun, parse_models
from wasser_tf.reporting.report import overview
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime.progress import show_progress

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "models", None, "The classifiers, each as path or name=path: .keras, SavedModel folder, .npz or pretrained:NAME."
)
flags.DEFINE_list(
    "attacks",
    "mirror_ascent,wasser_attack,random_plan",
    f"The attacks, each as name or name:setting=value:…; available: {_flags.WASSERSTEIN_ATTACKS}.",
)
flags.DEFINE_list("radii", "0.1,0.3,0.5,1.0", "The radii ε.")
flags.DEFINE_bool(
    "resume", False, "Whether to continue in an output_dir with other settings; matching results are reused."
)
flags.DEFINE_bool("rescore", False, "Whether to score the stored examples again, without attacking.")
flags.DEFINE_bool("verify_exact", False, "Whether to verify feasible examples by exact optimal transport (float64).")
flags.DEFINE_integer(
    "verify_examples",
    100,
    "Examples of each model, attack and radius that --verify_exact verifies; 0: all.",
    lower_bound=0,
)
flags.DEFINE_bool("sanity", True, "Whether to make the sanity checks of Carlini et al. 2019.")
flags.DEFINE_bool(
    "skip_fooled",
    False,
    "Whether an attack skips images that an earlier attack or a smaller radius has fooled. The robust accuracy of all "
    "attacks together takes less work, but attacks have no scores of their own.",
)
flags.DEFINE_bool("minimal_radius", False, "Whether to find the minimal radius of each image by bisection.")
flags.DEFINE_string(
    "main_attack",
    "",
    "The attack for --sanity and --minimal_radius, one of --attacks (default: mirror_ascent if given, or the first).",
)
flags.DEFINE_integer("sanity_examples", 100, "Number of images for the sanity checks.", lower_bound=1)
flags.DEFINE_string(
    "certification", "", "The output_dir of bin/certify.py on the same images; the report then states the bracket."
)
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
    """Runs the evaluation that the flags describe and prints its accuracies and the path of the report."""
    _flags.apply_deterministic()
    _flags.import_modules()
    reports = run_evaluation(
        _config() if FLAGS.models else EvaluationRun.load(FLAGS.output_dir),
        resume=FLAGS.resume,
        overwrite=FLAGS.overwrite,
        rescore_only=FLAGS.rescore,
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
        verify_exact=FLAGS.verify_examples if FLAGS.verify_exact else None,
        certification=FLAGS.certification,
        log=show_progress,
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
        stored_examples=FLAGS.stored_examples,
        options=_flags.model_options(),
    )


if __name__ == "__main__":
    _flags.run(main, "the same command resumes after the last complete batch")
