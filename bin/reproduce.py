r"""Makes the tables and figures of the paper (WasserTrain, ICASSP 2022), and what it lacks.

  python bin/reproduce.py --experiment=all --dataset=digits --quick --output_dir=runs/paper_digits
  python bin/reproduce.py --experiment=fig4,fig5 --dataset=mnist --standard=wong_standard.npz \
    --pgd=wong_pgd_sinkhorn.npz --wasser_train=pretrained:mnist_wassertrain --output_dir=runs/paper_mnist

table1 natural accuracy; fig1 examples in the ℓ∞ and in the Wasserstein ball; fig3 natural accuracy against epochs by ω;
fig4 attacks on the standard model; fig5 the paper's attacks on both trained ones; beyond all classifiers under all
attacks, feasible. A classifier that is not given is trained. Interrupted, the same command goes on where it was.

The output_dir gets outputs/ (of each experiment NAME.md, .csv, .json and .png), training/ and evaluations/.
--publish_dir=docs/results copies outputs there and renders docs/results/DATASET.md, the paper's numbers beside ours.
"""

import dataclasses
from typing import Any

import _flags
from absl import flags

from wasser_tf.evaluation.config import parse_models
from wasser_tf.paper import presets
from wasser_tf.paper.classifiers import RECIPES
from wasser_tf.paper.experiments import EXPERIMENTS
from wasser_tf.paper.published_numbers import ROLES
from wasser_tf.paper.reproduce import Reproduction, reproduce

FLAGS = flags.FLAGS

flags.DEFINE_list("experiment", "all", f"Some of {', '.join(EXPERIMENTS)}; or all.")
flags.DEFINE_enum("dataset", "digits", list(presets.FULL), "The dataset.")
flags.DEFINE_string("data_dir", None, "Folder of the prepared sets (the parent of mnist/). TFDS's own by default.")
flags.DEFINE_bool("download", False, "Whether to fetch a set that is not there.")
flags.DEFINE_string("original_index", None, "File with each test image's number in another order, see bin/evaluate.py.")
flags.DEFINE_bool("quick", False, "Whether to make it small: minutes on a laptop.")
flags.DEFINE_string("standard", None, "The standard classifier: a file, or pretrained:NAME. Trained if not given.")
flags.DEFINE_string("pgd", None, "The classifier of PGD-based training. Trained if not given.")
flags.DEFINE_string("wasser_train", None, "The classifier of WasserTrain. Trained if not given.")
flags.DEFINE_list("others", None, "More classifiers for table1 and beyond, as path or name=path.")
flags.DEFINE_list("leave_out", [], "Of pgd and wasser_train, what is neither trained nor attacked.")
flags.DEFINE_enum("recipe", "ours", RECIPES, "How WasserTrain trains: on mirror ascent, or as the paper does.")
flags.DEFINE_list(
    "attacks", list(Reproduction.attacks), f"Attacks beside the paper's two, of {_flags.WASSERSTEIN_ATTACKS}."
)
flags.DEFINE_string("model", None, "Size: the classifier to train.")
flags.DEFINE_integer("standard_epochs", None, "Size: epochs of standard training.")
flags.DEFINE_integer("epochs", None, "Size: epochs of adversarial training.")
flags.DEFINE_integer("omega_epochs", None, "Size: epochs of each training of fig3.")
flags.DEFINE_list("omegas", None, "Size: ω of fig3.")
flags.DEFINE_float("epsilon", None, "Size: the radius of training.")
flags.DEFINE_integer("iterations", None, "Size: mirror steps of training.")
flags.DEFINE_list("radii", None, "Size: ε of fig4, fig5 and beyond.")
flags.DEFINE_integer("num_examples", None, "Size: test images under attack.")
flags.DEFINE_integer("attack_iterations", None, "Size: iterations of attacks (with --quick, WasserAttack keeps 200).")
flags.DEFINE_integer("seed", 0, "Seed of all that is random.", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_integer("batch_size", 128, "Images under attack at a time.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "Folder for everything.", required=True)
flags.DEFINE_string("publish_dir", None, "Folder to publish to, such as docs/results.")

_SIZES = "model standard_epochs epochs omega_epochs epsilon iterations num_examples attack_iterations"


def main() -> None:
    """Turns the flags into a config, runs it and says where the outputs are."""
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
    )
    written = reproduce(config, log=lambda line: print(line, flush=True))
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
