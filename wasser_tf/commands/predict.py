r"""Sends images to a served model and prints labels and latencies.

  wasser-tf predict --server=localhost:8500 --model=digits --images=one.png,two.jpg
  wasser-tf predict --server=localhost:8500 --model=digits --dataset=digits --output=labels.csv
  wasser-tf predict --server=localhost:8501 --protocol=rest_rows --model=digits --signature=robustness …

TensorFlow Serving listens for gRPC on port 8500 and for REST on port 8501. Files are PNG or JPEG, which the server
decodes, or .npy with uint8 values or floats in [0, 1].
"""

from absl import flags

from wasser_tf.commands import _flags
from wasser_tf.data import ReadingOptions
from wasser_tf.data.selection import ImageSource
from wasser_tf.runs import predict
from wasser_tf.runs.predict import PredictRun
from wasser_tf.serving.client import PROTOCOLS

FLAGS = flags.FLAGS

flags.DEFINE_string("server", "localhost:8500", "The server, as host:port.")
flags.DEFINE_string("model", None, "The name of the model on the server.", required=True)
flags.DEFINE_enum(
    "protocol", PredictRun.protocol, PROTOCOLS, "The protocol; rest_rows sends `instances`, rest_columns `inputs`."
)
flags.DEFINE_integer("version", None, "The version of the model (default: the latest).", lower_bound=0)
flags.DEFINE_string("signature", None, "The signature (default: chosen by the type of the images).")
flags.DEFINE_list("images", [], "Image files: .png, .jpg or .npy.")
flags.DEFINE_string(
    "dataset",
    None,
    "A dataset to send instead of files: digits, a folder of images, an .npz file, or a name of tensorflow-datasets.",
)
flags.DEFINE_string(
    "data_dir", None, "The folder of prepared datasets, such as the parent of mnist/ (default: that of TFDS)."
)
_flags.define_reading()
flags.adopt_module_key_flags(_flags)
flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "The split of the dataset.")
flags.DEFINE_integer(
    "num_examples", None, "Number of its images, counted from the first (default: all).", lower_bound=1
)
flags.DEFINE_integer("batch_size", PredictRun.batch_size, "Images per request.", lower_bound=1)
flags.DEFINE_float("timeout", PredictRun.timeout, "Timeout of a request in seconds.", lower_bound=0.001)
flags.DEFINE_integer(
    "retries", PredictRun.retries, "How often a request is repeated if the server is unavailable.", lower_bound=0
)
flags.DEFINE_string("output", None, "CSV file for the labels (default: the first 20 are printed).")


def main() -> None:
    """Sends the images that the flags describe, and prints or writes the labels."""
    same = ("server", "model", "protocol", "version", "signature", "images", "batch_size", "timeout", "retries")
    source = None
    if FLAGS.dataset is not None:
        source = ImageSource(
            dataset=FLAGS.dataset,
            data_dir=FLAGS.data_dir,
            split=FLAGS.split,
            num_examples=FLAGS.num_examples,
            reading=ReadingOptions(**_flags.reading_values()),
        )
    predictions = predict.run_predict(PredictRun(**{name: FLAGS[name].value for name in same}, source=source))
    if FLAGS.output is not None:
        predict.save_predictions(predictions, FLAGS.output)
    else:
        heading, rows = predictions.rows()
        for row in [heading, *rows[:20]]:
            print("\t".join(map(str, row)))
        if len(rows) > 20:
            print(f"… and {len(rows) - 20} more; write all of them with --output=labels.csv")
    print(predictions.summary())


if __name__ == "__main__":
    _flags.run(main)
