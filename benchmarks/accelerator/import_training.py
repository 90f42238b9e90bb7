"""Imports a training that `run_training` finished: `python -m benchmarks.accelerator.import_training RUN AFTER`.

Writes a checkpoint in which the phase is complete to the run of bin/train.py, and sets the number of epochs in its
config. `bin/train.py --resume` with that number of epochs then continues after the phase: it writes standard.keras, or
best.keras and the report.
"""

import json
import pathlib
import sys

from benchmarks.accelerator.resumed_run import resumed_run
from wasser_tf.runtime import storage
from wasser_tf.training import run_folder


def main(run: pathlib.Path, after: pathlib.Path) -> None:
    """Writes the checkpoint and the number of epochs.

    Args:
      run: The output_dir of bin/train.py.
      after: The after.npz that `run_training` wrote.
    """
    arrays = storage.read_arrays(after)
    history = json.loads(str(arrays["history"]))
    resumed = resumed_run(run)
    checkpoint, kept = resumed.prepared.checkpoint, resumed.prepared.kept
    kept.set_weights([arrays[name] for name in sorted(arrays) if name.startswith("best_")])
    best_epoch = int(arrays["kept_epoch"])
    checkpoint.finish(history, kept.get_weights(), best_epoch)
    metadata = storage.read_json(run / run_folder.CONFIG)
    metadata["config"]["epochs" if resumed.phase == "wasser_train" else "standard_epochs"] = len(history)
    storage.write_json(run / run_folder.CONFIG, metadata)
    print(f"{run}: {resumed.phase}, {len(history)} epochs, weights of epoch {best_epoch} kept")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
