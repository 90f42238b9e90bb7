"""TensorBoard: a callback that writes scores, adversarial examples and the histogram of minimal radii of a training."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.bridges.needed import check_installed
from wasser_tf.evaluation.minimal_radius import minimal_radii


class AdversarialTensorBoard(keras.callbacks.Callback):
    """Writes the logs of each epoch for TensorBoard and, with an attack, what it finds on a few images.

    - Scalars: every number in the logs; with an attack `adversarial/robust_accuracy`.
    - Images `adversarial/examples`: pairs of a clean image and its adversarial example, side by side.
    - Histogram `adversarial/minimal_radius`: upper bounds of the minimal radii; images that were never fooled count as
      `largest`.

    ```python
    attack = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.1), iterations=20)
    watch = AdversarialTensorBoard("runs/board", attack, validation.images[:64], validation.labels[:64])
    model.fit(train, epochs=20, callbacks=[watch])  # then: tensorboard --logdir runs/board
    ```

    Attributes:
      log_dir: The folder of the event files.
      attack: The attack, or None to write the logs alone.
      every: Number of epochs between two attacks.
      num_images: Number of pairs of images.
      largest: The largest radius of the histogram; 0 for no histogram.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        attack: Attack | None = None,
        images: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        every: int = 1,
        num_images: int = 8,
        largest: float = 1.0,
    ) -> None:
        """Creates the callback.

        Args:
          log_dir: The folder of the event files.
          attack: The attack, or None to write the logs alone.
          images: The images that are attacked, [n, H, W, C] in [0, 1].
          labels: Their labels, [n].
          every: Number of epochs between two attacks, at least 1.
          num_images: Number of pairs of images.
          largest: The largest radius of the histogram; 0 for no histogram.

        Raises:
          ImportError: TensorBoard is not installed.
          ValueError: An attack without images and labels, or `every` is below 1.
        """
        super().__init__()
        check_installed("tensorboard", "tensorboard")
        if attack is not None and (images is None or labels is None):
            raise ValueError("An attack needs images and labels, such as the first 64 of the validation split.")
        if every < 1:
            raise ValueError(f"every must be a whole number of epochs, at least 1, got {every!r}.")
        self.log_dir, self.attack, self.every = os.fspath(log_dir), attack, every
        self.num_images, self.largest = num_images, largest
        self._images, self._labels = np.asarray(images), np.asarray(labels)
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the logs of an epoch and, every few epochs, the results of the attack."""
        self._writer = self._writer or tf.summary.create_file_writer(self.log_dir)
        with self._writer.as_default(step=epoch):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value))
            if self.attack is not None and epoch % self.every == 0:
                self._attack(self.attack)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _attack(self, attack: Attack) -> None:
        classifier: Any = getattr(self.model, "classifier", self.model)
        result = attack(classifier, self._images, self._labels)
        tf.summary.scalar("adversarial/robust_accuracy", 1.0 - float(np.mean(result.success)))
        shown = slice(0, self.num_images)
        pairs = np.concatenate([self._images[shown], result.adversarial[shown]], axis=2)
        tf.summary.image("adversarial/examples", pairs, max_outputs=self.num_images)
        if self.largest:
            found = minimal_radii(attack, classifier, self._images, self._labels, largest=self.largest)
            tf.summary.histogram("adversarial/minimal_radius", np.minimum(found.radius, self.largest))
