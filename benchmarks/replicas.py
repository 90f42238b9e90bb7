"""Times a training step on one, two and four logical devices of one CPU, each case in its own process.

The devices share the same cores: the result is the overhead of the distribution, not the gain from more hardware.
"""

import json
import statistics
import subprocess
import sys
from typing import Any

_BATCH = 256


def replicas(quick: bool) -> dict[str, Any]:
    """Times steps of WasserTrain on the LeNet: ten attack iterations, a global batch of 256 digits of 28×28."""
    rows = []
    for count in (1, 2) if quick else (1, 2, 4):
        command = [sys.executable, "-m", "benchmarks.replicas", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RuntimeError(f"{count} replicas failed: {done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    for row in rows:
        row["step / one replica"] = row["step_ms"] / rows[0]["step_ms"]
    return {"rows": rows}


def _measure(count: int) -> None:
    import time

    import keras
    import tensorflow as tf

    from benchmarks import material
    from wasser_tf import MirrorAscent, ThreatModel, WasserTrain
    from wasser_tf.training.distribution import Distribution

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * count
    )
    distribution = Distribution("none" if count == 1 else "mirrored")
    images, labels = material.images_like((28, 28, 1), _BATCH)
    attack = MirrorAscent(ThreatModel(epsilon=0.5), iterations=10)
    with distribution.scope():
        model = WasserTrain(material.build("lenet", (28, 28, 1)), attack)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    times = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            times.append(time.perf_counter() - self.started)

    batches = tf.data.Dataset.from_tensors((images, labels)).repeat(8)
    distribution.fit(model, batches, epochs=1, callbacks=[Clock()])
    print(json.dumps({"replicas": count, "step_ms": 1e3 * statistics.median(times[2:]), "first_step_s": times[0]}))


if __name__ == "__main__":
    _measure(int(sys.argv[1]))
