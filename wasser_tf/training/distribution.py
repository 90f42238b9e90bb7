"""Training on several devices or hosts with tf.distribute: each replica attacks and learns from its share of a batch.

Gradients are summed over the replicas, and Keras divides losses by their number, so that the step of R replicas with
B / R images each equals that of one replica with B images, batch normalization included.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multi_worker")

# Errors of TensorFlow when a worker is lost while the others wait for its part of a sum.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class Distribution:
    """The distribution of a run over replicas and workers, from the view of this process.

    One worker is the chief. It alone reads and writes the folder of the run, validates and reports. The others receive
    what they need from it (`share`), so the workers need no common file system.

    Attributes:
      name: One of `STRATEGIES`.
      strategy: The tf.distribute strategy, or None for "none".
      num_replicas: The number of replicas of all workers together.
      is_chief: Whether this process is the chief.
    """

    def __init__(self, name: str = "none"):
        """Creates the strategy. Before "multi_worker", the process must not have used TensorFlow's devices.

        Args:
          name: "none"; "mirrored": all GPUs of this host (or all logical CPUs, without a GPU); or "multi_worker": all
            workers in the environment variable TF_CONFIG, which include this process.

        Raises:
          ValueError: The name is unknown, or TF_CONFIG does not list workers.
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
        """Returns the context in which models and optimizers must be created."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def prepare(self, classifier: keras.Model) -> None:
        """Makes batch normalization use the statistics of the whole batch, over all replicas."""
        if self.strategy is not None:
            for layer in classifier.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True

    def share(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Returns the chief's values on every worker. All workers must call it, with equal shapes and types.

        Args:
          values: Numbers, arrays or variables. They are sent as float64, which represents weights, counts and seeds
            exactly.
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
        """Sets the variables of every worker to the chief's values. All workers must call it."""
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
        make_share: Callable[[tuple[int, int, int]], tf.data.Dataset] | None = None,
    ) -> None:
        """Trains as `model.fit(batches, ...)` does, on all replicas.

        `fit` of Keras supports a single host: in version 3.15 it fails with several workers (keras-team/keras#20585).

        Args:
          model: A compiled model.
          batches: Batches of all replicas together, all of one size, a multiple of the number of replicas. Each worker
            uses its share.
          epochs: The number of the last epoch.
          initial_epoch: The number of completed epochs.
          callbacks: Keras callbacks. With a strategy, the logs of a batch are empty.
          make_share: Returns the share of a worker, see `wasser_tf.data.batches`, so that each worker reads its own
            images only. By default every worker passes through all of `batches`.
        """
        if self.strategy is None:
            model.fit(
                batches, shuffle=False, epochs=epochs, initial_epoch=initial_epoch, callbacks=list(callbacks), verbose=0
            )
            return
        callback_list = keras.callbacks.CallbackList(
            list(callbacks), model=model, epochs=epochs, steps=int(batches.cardinality()), verbose=0
        )
        self.make_variables(model, batches)
        if make_share is None:
            shares = self.strategy.experimental_distribute_dataset(batches)
        else:
            shares = self.strategy.distribute_datasets_from_function(
                lambda worker: make_share(parts_of_worker(worker.input_pipeline_id, worker.num_input_pipelines, self))
            )

        @tf.function(autograph=False)
        def step(batch: Any) -> None:
            self.strategy.run(model.train_step, args=(batch,))

        callback_list.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            model.reset_metrics()
            callback_list.on_epoch_begin(epoch)
            for number, batch in enumerate(shares):
                callback_list.on_train_batch_begin(number)
                step(batch)
                callback_list.on_train_batch_end(number, {})
            # On every worker, because reading metrics sums them over the workers.
            logs = {name: float(value) for name, value in model.get_metrics_result().items()}
            callback_list.on_epoch_end(epoch, logs)
        callback_list.on_train_end()

    def fit_from(
        self,
        model: keras.Model,
        make_batches: Callable[..., tf.data.Dataset],
        first_step: int,
        shared: bool,
        *,
        epochs: int,
        done: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Trains from a step of an epoch to the last epoch.

        Args:
          model: A compiled model.
          make_batches: `wasser_tf.data.batches` with all arguments but `first_step` and `share`.
          first_step: The number of completed steps of the first epoch.
          shared: Whether each worker reads its own images only.
          epochs: The number of the last epoch.
          done: The number of completed epochs.
          callbacks: Keras callbacks.
        """
        # The rest of an interrupted epoch, whose metrics continue as well, and then the others.
        parts = [(first_step, done, done + 1)] if first_step else []
        parts += [(0, parts[-1][2] if parts else done, epochs)]
        for step, start, end in parts:
            if start == end:
                continue
            make = functools.partial(make_batches, first_step=step)
            batches = make()
            if step:
                self.make_variables(model, batches)
            make_share = (lambda share, make=make: make(share=share)) if shared else None
            self.fit(model, batches, epochs=end, initial_epoch=start, callbacks=callbacks, make_share=make_share)

    def make_variables(self, model: keras.Model, batches: tf.data.Dataset) -> None:
        """Creates the variables of metrics and optimizer, which the first step would create otherwise.

        TensorFlow cannot run a function on several devices if it creates variables.

        Args:
          model: A compiled model.
          batches: Batches of its inputs and labels, of which only the shapes and types are used.
        """
        with self.scope():
            # Images alone, or with their numbers.
            x, y = tf.nest.map_structure(lambda spec: tf.zeros([1, *spec.shape[1:]], spec.dtype), batches.element_spec)
            outputs = model(x, training=False)
            # Creates the variables and does not update them.
            with keras.StatelessScope():
                model.compute_metrics(x, y, outputs, None)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)

    @contextlib.contextmanager
    def report_lost_workers(self) -> Iterator[None]:
        """Turns the errors of TensorFlow after the loss of another worker into a ConnectionError.

        Raises:
          ConnectionError: A worker was lost.
        """
        try:
            yield
        except _LOST as error:
            if self.name != "multi_worker":
                raise
            raise ConnectionError(
                f"A worker was lost ({type(error).__name__}): start all workers again with --resume; the run "
                "continues after its last epoch."
            ) from error


def parts_of_worker(worker: int, workers: int, distribution: Distribution) -> tuple[int, int, int]:
    """Returns which parts of each batch a worker reads, one for each of its replicas: (first, last, total)."""
    total = distribution.num_replicas
    return worker * total // workers, (worker + 1) * total // workers, total


def _check_tf_config() -> int:
    """Returns the number of this worker, from TF_CONFIG."""
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
