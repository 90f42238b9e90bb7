r"""Certifies saved classifiers: the radius within which no feasible plan changes each image's answer.

  wasser-tf certify --models=robust=a.keras,pretrained:mnist_wassertrain --radii=0.05,0.1,0.2 \
    --dataset=digits --num_examples=100 --output_dir=runs/certificates

The output_dir gets report.md, report.json, results.csv (shares by radius), radii.csv (radii by image) and figures/.
Interrupted, the same command resumes. With --evaluation=FOLDER, the output_dir of wasser-tf evaluate on the same
images, the report states the bracket: the share certified and the share not fooled. Any classifier is certified by
randomised smoothing with

  wasser-tf certify --models=model.keras --method=smoothing --noise=laplace --scale=0.01 --num_samples=10000 \
    --output_dir=runs/smoothed

and a wasser_tf.Smoothed model with its own noise.
"""

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.evaluation.config import parse_models
from wasser_tf.reporting.bracket import bracket_table
from wasser_tf.runs.certifiers import SmoothingSettings
from wasser_tf.runs.certify import CertificationRun, run_certification
from wasser_tf.runtime.progress import show_progress

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "models", None, "Classifiers as path or name=path: .keras, .h5, .npz, pretrained:NAME.", required=True
)
flags.DEFINE_list("radii", "0.05,0.1,0.2,0.3", "Radii ε of the table.")
flags.DEFINE_enum(
    "method",
    "auto",
    ["auto", "ibp", "crown", "smoothing"],
    "How to certify: by intervals (ibp), by linear bounds (crown: slower, tighter on networks that were not trained by "
    "intervals), by whichever of these proves more on the first images (auto), or by votes on noisy images (smoothing: "
    "any classifier, with a probability of 1 - alpha). auto takes smoothing for a wasser_tf.Smoothed model.",
)
_OWN = "that of a wasser_tf.Smoothed model, or"
flags.DEFINE_enum("noise", None, ["laplace", "uniform"], f"Of smoothing: the noise (default: {_OWN} laplace).")
flags.DEFINE_float(
    "scale",
    None,
    "Of smoothing: the standard deviation of Laplace noise or the half-width of uniform noise on each flow, in units "
    f"of the image's mass (default: {_OWN} 0.01).",
)
flags.DEFINE_integer(
    "num_samples", None, f"Of smoothing: N, the votes that bound a probability (default: {_OWN} 10000)."
)
flags.DEFINE_integer("num_votes", None, f"Of smoothing: the votes that choose the class (default: {_OWN} 100).")
flags.DEFINE_float("alpha", None, f"Of smoothing: each certificate is wrong with at most this chance ({_OWN} 0.05).")
flags.DEFINE_integer("seed", None, f"Of smoothing: the seed of the noise (default: {_OWN} 0).")
flags.DEFINE_float("resolution", None, "How far a radius may be below the largest provable one; max(radii) / 200.")
flags.DEFINE_string("evaluation", "", "Output_dir of bin/evaluate.py on the same images, for the bracket.")
flags.DEFINE_bool("resume", False, "Whether to continue in an output_dir of other settings; results that fit are used.")
_flags.define_classifier()
_flags.define_chance_accuracy()
_flags.define_data()
_flags.define_selection()
_flags.define_threat_model()
_flags.define_output(256)
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Turns the flags into a config, runs it and prints where the report is."""
    radii = _flags.numbers("radii")
    config = CertificationRun(
        models=parse_models(FLAGS.models),
        source=_flags.image_source(),
        threat_model=_flags.threat_model(0.0),
        radii=radii,
        output_dir=FLAGS.output_dir,
        method=FLAGS.method,
        resolution=FLAGS.resolution,
        smoothing=SmoothingSettings(
            noise=FLAGS.noise,
            scale=FLAGS.scale,
            num_samples=FLAGS.num_samples,
            num_votes=FLAGS.num_votes,
            alpha=FLAGS.alpha,
            seed=FLAGS.seed,
        ),
        batch_size=FLAGS.batch_size,
        evaluation=FLAGS.evaluation,
        options=_flags.model_options(),
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
    )
    brackets = run_certification(config, resume=FLAGS.resume, overwrite=FLAGS.overwrite, log=show_progress)
    print(f"\n{bracket_table(brackets, radii)}")
    print(f"Written: {FLAGS.output_dir}/report.md")


if __name__ == "__main__":
    _flags.run(main, "the same command resumes after the last whole batch")
