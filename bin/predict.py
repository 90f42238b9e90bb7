r"""Asks a served model: images in, labels and latencies out.

  python bin/predict.py --server=localhost:8500 --model=digits --images=one.png,two.jpg
  python bin/predict.py --server=localhost:8500 --model=digits --dataset=digits --output=labels.csv
  python bin/predict.py --server=localhost:8501 --protocol=rest_rows --model=digits --signature=robustness …

gRPC is TensorFlow Serving's port 8500, REST its port 8501. Files are PNG, JPEG (decoded by the server) or .npy, of
uint8 or of floats in [0, 1].
"""

import _flags
from absl import flags

from wasser_tf.data.selection import ImageSource
from wasser_tf.runs import predict
from wasser_tf.runs.predict import PredictRun
from wasser_tf.serving.client import PROTOCOLS

FLAGS = flags.FLAGS

flags.DEFINE_string("server", "localhost:8500", "host:port.")
flags.DEFINE_string("model", None, "What the server calls the model.", required=True)
flags.DEFINE_enum("protocol", PredictRun.protocol, PROTOCOLS, "rest_rows sends `instances`, rest_columns `inputs`.")
flags.DEFINE_integer("version", None, "The model's version; the latest by default.", lower_bound=0)
flags.DEFINE_string("signature", None, "The signature; by default the one that takes what is given.")
flags.DEFINE_list("images", [], "Files: .png, .jpg, or .npy.")
flags.DEFINE_string("dataset", None, "A dataset's images instead: digits, or a set of tensorflow-datasets.")
flags.DEFINE_string("data_dir", None, "Folder of the prepared sets (the parent of mnist/). TFDS's own by default.")
flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "The split of the dataset.")
flags.DEFINE_integer("num_examples", None, "How many of its images: the first ones. All by default.", lower_bound=1)
flags.DEFINE_integer("batch_size", PredictRun.batch_size, "Images a request.", lower_bound=1)
flags.DEFINE_float("timeout", PredictRun.timeout, "Seconds to wait for an answer.", lower_bound=0.001)
flags.DEFINE_integer("retries", PredictRun.retries, "How often to ask again a server that is away.", lower_bound=0)
flags.DEFINE_string("output", None, "File for the labels, as CSV. Else they are printed, the first 20 of them.")


def main() -> None:
    """Turns the flags into a config, asks, and prints or writes the labels."""
    same = ("server", "model", "protocol", "version", "signature", "images", "batch_size", "timeout", "retries")
    source = None
    if FLAGS.dataset is not None:
        source = ImageSource(
            dataset=FLAGS.dataset, data_dir=FLAGS.data_dir, split=FLAGS.split, num_examples=FLAGS.num_examples
        )
    predictions = predict.run_predict(PredictRun(**{name: FLAGS[name].value for name in same}, source=source))
    if FLAGS.output is not None:
        predict.save_predictions(predictions, FLAGS.output)
    else:
        heading, rows = predictions.rows()
        for row in [heading, *rows[:20]]:
            print("\t".join(map(str, row)))
        if len(rows) > 20:
            print(f"… and {len(rows) - 20} more: --output=labels.csv writes them all")
    print(predictions.summary())


if __name__ == "__main__":
    _flags.run(main)
