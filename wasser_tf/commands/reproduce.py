r"""Reproduces the tables and figures of the paper (WasserTrain, ICASSP 2022), with further experiments.

  wasser-tf reproduce --experiment=all --dataset=digits --quick --output_dir=runs/paper_digits
  wasser-tf reproduce --experiment=fig4,fig5 --dataset=mnist --standard=wong_standard.npz \
    --pgd=wong_pgd_sinkhorn.npz --wasser_train=pretrained:mnist_wassertrain --output_dir=runs/paper_mnist

The experiments:
  table1     natural accuracy
  fig1       examples in the ℓ∞ ball and in the Wasserstein ball
  fig3       natural accuracy by epoch, for several ω
  fig4       attacks on the standard classifier
  fig5       the paper's attacks on both adversarially trained classifiers
  beyond     all classifiers under all attacks, with feasible examples
  certified  certified accuracy and accuracy under attack of all classifiers, the packaged ones too

A classifier that is not given is trained. --input_range, --data_format, --output, --returns and --signature describe
those that are given. After an interruption, the same command resumes.

The output_dir gets outputs/ (NAME.md, .csv, .json and .png for each experiment), training/ and evaluations/. With
--publish_dir=docs/results, the outputs are copied there and docs/results/DATASET.md compares them with the paper.
"""

import dataclasses
from typing import Any

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.evaluation.config import parse_models
from wasser_tf.paper import presets
from wasser_tf.paper.classifiers import RECIPES
from wasser_tf.paper.experiments import EXPERIMENTS
from wasser_tf.paper.published_numbers import ROLES
from wasser_tf.paper.reproduce import Reproduction, reproduce
from wasser_tf.runtime.progress import show_progress

FLAGS = flags.FLAGS

flags.DEFINE_list("experiment", "all", f"The experiments, from {', '.join(EXPERIMENTS)}; or all.")
flags.DEFINE_enum("dataset", "digits", list(presets.FULL), "The dataset.")
flags.DEFINE_string(
    "data_dir", None, "The folder of prepared datasets, such as the parent of mnist/ (default: that of TFDS)."
)
flags.DEFINE_bool("download", False, "Whether to download a missing dataset.")
flags.DEFINE_string(
    "original_index", None, "File with the number of each test image in another order, see bin/evaluate.py."
)
flags.DEFINE_bool("quick", False, "Whether to use small sizes, which take minutes on a laptop.")
flags.DEFINE_string("standard", None, "The standard classifier: a file or pretrained:NAME (default: trained).")
flags.DEFINE_string("pgd", None, "The classifier of PGD-based training (default: trained).")
flags.DEFINE_string("wasser_train", None, "The classifier of WasserTrain (default: trained).")
flags.DEFINE_list("others", None, "More classifiers for table1 and beyond, each as path or name=path.")
flags.DEFINE_list("leave_out", [], "Classifiers to leave out, from pgd and wasser_train.")
flags.DEFINE_enum("recipe", "ours", RECIPES, "The training of WasserTrain: with mirror ascent, or as in the paper.")
flags.DEFINE_list(
    "attacks", list(Reproduction.attacks), f"Attacks in addition to the paper's two, from {_flags.WASSERSTEIN_ATTACKS}."
)
flags.DEFINE_string("model", None, "Size: the classifier to train.")
flags.DEFINE_integer("standard_epochs", None, "Size: epochs of standard training.")
flags.DEFINE_integer("epochs", None, "Size: epochs of adversarial training.")
flags.DEFINE_integer("omega_epochs", None, "Size: epochs of each training of fig3.")
flags.DEFINE_list("omegas", None, "Size: ω of fig3.")
flags.DEFINE_float("epsilon", None, "Size: the radius of training.")
flags.DEFINE_integer("iterations", None, "Size: mirror steps of training.")
flags.DEFINE_list("radii", None, "Size: ε of fig4, fig5 and beyond.")
flags.DEFINE_integer("num_examples", None, "Size: number of attacked test images.")
flags.DEFINE_integer("attack_iterations", None, "Size: iterations of attacks (with --quick, WasserAttack keeps 200).")
flags.DEFINE_integer("seed", 0, "The random seed.", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_integer("batch_size", 128, "Images attacked at a time.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "The folder of all results.", required=True)
flags.DEFINE_string("publish_dir", None, "The folder in which results are published, such as docs/results.")

_flags.define_classifier()
_flags.define_chance_accuracy()
flags.adopt_module_key_flags(_flags)

_SIZES = "model standard_epochs epochs omega_epochs epsilon iterations num_examples attack_iterations"


def main() -> None:
    """Runs the experiments that the flags describe and prints the paths of the outputs."""
    given = {role: FLAGS[role].value for role in ROLES if FLAGS[role].value is not None}
    same = "dataset data_dir download original_index recipe seed batch_size output_dir publish_dir"
    config = Reproduction(
        **{name: FLAGS[name].value for name in same.split()},
        experiments=list(EXPERIMENTS) if FLAGS.experiment == ["all"] else FLAGS.experiment,
        preset=_preset(),
        given=given,
        others=parse_models(FLAGS.others or []),
        leave_out=tuple(FLAGS.leave_out),
        attacks=tuple(FLAGS.attacks),
        options=_flags.model_options(),
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
    )
    written = reproduce(config, log=show_progress)
    print("Written:\n" + "\n".join(f"  {path}" for path in written))


def _preset() -> presets.Preset:
    usual = (presets.QUICK if FLAGS.quick else presets.FULL)[FLAGS.dataset]
    sizes = {name: FLAGS[name].value for name in _SIZES.split() if FLAGS[name].value is not None}
    lists: dict[str, Any] = {
        name: _flags.numbers(name) for name in ("omegas", "radii") if FLAGS[name].value is not None
    }
    return dataclasses.replace(usual, **sizes, **lists)


if __name__ == "__main__":
    _flags.run(main)
