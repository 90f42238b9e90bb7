"""Training on several devices or hosts, by tf.distribute: each replica attacks and learns from its share of a batch.

Gradients are summed over the replicas, and Keras divides losses by their number, so that R replicas with B / R images
each make the step of one replica with B, batch normalisation included.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multi_worker")

# What TensorFlow raises when a worker goes while the others wait for its part of a sum.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class Distribution:
    """How a run is spread, and the worker that this process is.

    One worker is the chief: it alone reads and writes the run's folder, validates and reports. The others get from it
    what they need (`share`), so that no file system need be common to them.

    Attributes:
      name: One of `STRATEGIES`.
      strategy: The tf.distribute strategy, or None for "none".
      num_replicas: The replicas of all workers together.
      is_chief: Whether this process is the chief.
    """

    def __init__(self, name: str = "none"):
        """Makes the strategy. For "multi_worker" nothing in the process may have used TensorFlow's devices before.

        Args:
          name: "none"; "mirrored": all GPUs of this host (or all logical CPUs, without a GPU); or "multi_worker": all
            workers that the environment variable TF_CONFIG names, of which this process is one.

        Raises:
          ValueError: There is no such strategy, or TF_CONFIG does not name workers.
        """
        if name not in STRATEGIES:
            raise ValueError(f"distribute must be one of {', '.join(STRATEGIES)}, got {name!r}.")
        self.name = name
        self.strategy: Any = None
        self.is_chief = True
        if name == "mirrored":
            self.strategy = tf.distribute.MirroredStrategy()
        elif name == "multi_worker":
            self.is_chief = _check_tf_config() == 0
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self.num_replicas = 1 if self.strategy is None else self.strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which models and optimisers are made."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def prepare(self, classifier: keras.Model) -> None:
        """Makes batch normalisation take its statistics over all replicas, as one replica with the whole batch does."""
        if self.strategy is not None:
            for layer in classifier.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True

    def share(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Returns the chief's values on every worker; all workers must call it, with equal shapes and types.

        Args:
          values: Numbers, arrays or variables. They travel as float64, which holds weights, counts and seeds exactly.
        """
        arrays = [np.asarray(value) for value in values]
        if self.name != "multi_worker":
            return arrays

        @tf.function(autograph=False)
        def chiefs(sent: list[tf.Tensor]) -> Any:
            def own(*own: tf.Tensor) -> list[tf.Tensor]:
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group == 0
                return context.all_reduce("SUM", [tf.where(first, value, tf.zeros_like(value)) for value in own])

            return self.strategy.run(own, args=tuple(sent))

        summed = chiefs([tf.constant(array, tf.float64) for array in arrays])
        received = [self.strategy.experimental_local_results(value)[0].numpy() for value in summed]
        return [value.astype(array.dtype) for value, array in zip(received, arrays, strict=True)]

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Gives the variables of every worker the chief's values; all workers must call it."""
        if self.name == "multi_worker":
            for variable, value in zip(variables, self.share(variables), strict=True):
                variable.assign(value)

    def fit(
        self,
        model: keras.Model,
        batches: tf.data.Dataset,
        *,
        epochs: int,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Trains as `model.fit(batches, ...)` does, on all replicas.

        Keras' own `fit` serves one host only: in 3.15 it fails with several workers (keras-team/keras#20585).

        Args:
          model: A compiled model.
          batches: Batches of the whole (each worker takes its share), all of one size that the replicas divide.
          epochs: The number of the last epoch.
          initial_epoch: How many are done.
          callbacks: Keras callbacks, told of each epoch and its logs; a batch's logs are empty.
        """
        if self.strategy is None:
            model.fit(
                batches, shuffle=False, epochs=epochs, initial_epoch=initial_epoch, callbacks=list(callbacks), verbose=0
            )
            return
        told = keras.callbacks.CallbackList(
            list(callbacks), model=model, epochs=epochs, steps=int(batches.cardinality()), verbose=0
        )
        self.make_variables(model, batches)
        shares = self.strategy.experimental_distribute_dataset(batches)

        @tf.function(autograph=False)
        def step(batch: Any) -> None:
            self.strategy.run(model.train_step, args=(batch,))

        told.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            model.reset_metrics()
            told.on_epoch_begin(epoch)
            for number, batch in enumerate(shares):
                told.on_train_batch_begin(number)
                step(batch)
                told.on_train_batch_end(number, {})
            # Every worker asks, for metrics are summed over them when they are read.
            logs = {name: float(value) for name, value in model.get_metrics_result().items()}
            told.on_epoch_end(epoch, logs)
        told.on_train_end()

    def make_variables(self, model: keras.Model, batches: tf.data.Dataset) -> None:
        """Makes those variables of metrics and optimiser that would come with the first step.

        A function that makes variables is traced by TensorFlow in a way that does not run on several devices.
        """
        with self.scope():
            # Images alone, or with their numbers.
            x, y = tf.nest.map_structure(lambda spec: tf.zeros([1, *spec.shape[1:]], spec.dtype), batches.element_spec)
            outputs = model(x, training=False)
            # Makes them, and changes none.
            with keras.StatelessScope():
                model.compute_metrics(x, y, outputs, None)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)

    @contextlib.contextmanager
    def report_lost_workers(self) -> Iterator[None]:
        """Makes a sentence of what TensorFlow raises when another worker is lost.

        Raises:
          ConnectionError: A worker was lost.
        """
        try:
            yield
        except _LOST as error:
            if self.name != "multi_worker":
                raise
            raise ConnectionError(
                f"A worker was lost ({type(error).__name__}): start all workers again with --resume, and the run goes "
                "on from its last epoch."
            ) from error


def _check_tf_config() -> int:
    """Returns this worker's number, out of TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        if task["type"] == "worker" and list(config["cluster"]) == ["worker"] and workers[task["index"]]:
            return int(task["index"])
    except (ValueError, KeyError, IndexError, TypeError):
        pass
    raise ValueError(
        "--distribute=multi_worker needs TF_CONFIG in the environment of each worker, such as "
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}} with an index '
        f"of its own, got {text!r}."
    )
