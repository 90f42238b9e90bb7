r"""Times the attacks and the training step, relative to the classifier and to each other, in one run on one machine.

  python benchmarks/run.py                          all sections, about a quarter of an hour on two cores
  python benchmarks/run.py --quick                  smaller versions, a few minutes
  python benchmarks/run.py --sections=steps,memory --output_dir=runs/bench
  python benchmarks/run.py --checkpoint=hu_constrained_sinkhorn.npz --dataset=mnist --data_dir=… \
    --original_index=mnist_test_original_index.npy

Without --checkpoint, the sections strength, test_set and art attack a LeNet that is trained on the embedded digits.
The results are written to benchmark.json, benchmark.md and plots in the output_dir. Sections that are not run keep
their previous results.
"""

import datetime
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

# benchmarks/ is not part of the installed package.
_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
# For the sections that start other processes.
os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])

# As in the program: the C library's settings before TensorFlow.
_argv, sys.argv = sys.argv, ["wasser-tf"]
from wasser_tf.starter import quiet  # noqa: E402, F401, I001

sys.argv = _argv
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402

from benchmarks import material, memory, replicas, report, scaling, steps, strength  # noqa: E402
from wasser_tf.commands import _flags  # noqa: E402
from wasser_tf.data.selection import ImageSource  # noqa: E402
from wasser_tf.runtime import storage  # noqa: E402

FLAGS = flags.FLAGS
SECTIONS = ("steps", "training", "scaling", "strength", "test_set", "memory", "replicas", "art")

flags.DEFINE_list("sections", list(SECTIONS), f"Some of {', '.join(SECTIONS)}.")
flags.DEFINE_bool("quick", False, "Whether to skip the slow cases.")
flags.DEFINE_string("output_dir", str(_ROOT / "docs" / "results"), "Folder for the results.")
flags.DEFINE_string("checkpoint", None, "Classifier of the sections strength, test_set and art.")
flags.DEFINE_integer("num_examples", 100, "Number of images in the section strength.", lower_bound=1)
flags.DEFINE_string("original_index", None, "See bin/attack.py.")
_flags.define_data("mnist")
flags.adopt_module_key_flags(_flags)


def main() -> None:
    """Runs the sections and saves the results after each."""
    if unknown := set(FLAGS.sections) - set(SECTIONS):
        raise ValueError(f"--sections must be some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}.")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    quick = FLAGS.quick
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "steps": lambda: steps.attack_steps(quick),
        "training": lambda: steps.training_steps(quick),
        "scaling": lambda: scaling.scaling(quick),
        "strength": lambda: strength.equal_strength(_victim(FLAGS.num_examples), quick),
        "test_set": lambda: strength.whole_test_set(_victim(500 if quick else None)),
        "memory": lambda: memory.memory(quick),
        "replicas": lambda: replicas.replicas(quick),
        "art": lambda: strength.by_art(_victim(4)),
    }
    folder = pathlib.Path(FLAGS.output_dir).expanduser()
    there = folder / "benchmark.json"
    results = storage.read_json(there)["results"] if there.exists() else {}
    for section in FLAGS.sections:
        started, load = time.perf_counter(), os.getloadavg()[0]
        results[section] = measure[section]()
        results[section] |= {
            "seconds of this section": time.perf_counter() - started,
            "load of the machine before and after": f"{load:.1f}, {os.getloadavg()[0]:.1f}",
            "quick": quick,
        }
        ordered = {name: results[name] for name in SECTIONS if name in results}
        paths = report.save(folder, _metadata(), ordered)
        print(report.markdown({}, {section: results[section]}, []).partition("\n\n")[2], flush=True)
    print("\n".join(f"Written: {path}" for path in paths))


def _victim(count: int | None) -> strength.Victim:
    source = ImageSource(
        dataset=FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        download=FLAGS.download,
        num_examples=count,
        original_index=FLAGS.original_index,
    )
    return strength.victim(FLAGS.checkpoint, source, count or 400)


def _metadata() -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "device": material.device(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


if __name__ == "__main__":
    _flags.run(main)
