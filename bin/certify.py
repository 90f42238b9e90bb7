r"""Certifies saved classifiers: the radius within which no feasible plan changes each image's answer.

  python bin/certify.py --models=robust=a.keras,pretrained:mnist_wassertrain --radii=0.05,0.1,0.2 \
    --dataset=digits --num_examples=100 --output_dir=runs/certificates

The output_dir gets report.md, report.json, results.csv and figures/. Interrupted, the same command resumes. With
--evaluation=FOLDER, the output_dir of bin/evaluate.py on the same images, the report states the bracket: the share
certified and the share not fooled.
"""

import _flags
from absl import flags

from wasser_tf.evaluation.config import parse_models
from wasser_tf.reporting.bracket import bracket_table
from wasser_tf.runs.certify import CertificationRun, run_certification

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "models", None, "Classifiers as path or name=path: .keras, .h5, .npz, pretrained:NAME.", required=True
)
flags.DEFINE_list("radii", "0.05,0.1,0.2,0.3", "Radii ε of the table.")
flags.DEFINE_enum(
    "method",
    "auto",
    ["auto", "ibp", "crown"],
    "How bounds are made: by intervals (ibp), by linear bounds (crown: slower, tighter on networks that were not "
    "trained by intervals), or whichever proves more on the first images.",
)
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
        batch_size=FLAGS.batch_size,
        evaluation=FLAGS.evaluation,
        options=_flags.model_options(),
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
    )
    brackets = run_certification(
        config, resume=FLAGS.resume, overwrite=FLAGS.overwrite, log=lambda line: print(line, flush=True)
    )
    print(f"\n{bracket_table(brackets, radii)}")
    print(f"Written: {FLAGS.output_dir}/report.md")


if __name__ == "__main__":
    _flags.run(main, "the same command resumes after the last whole batch")
