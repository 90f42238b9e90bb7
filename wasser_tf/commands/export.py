r"""Exports a classifier for TensorFlow Serving, to <base_dir>/<name>/<version>/.

  wasser-tf export --model=runs/digits/best.keras --name=digits --base_dir=served --robustness

For a classifier of a wasser-tf train run, the model card includes its dataset, threat model and measured robustness.
The base_dir also gets models.config, batching_parameters.txt, docker-compose.yaml and kubernetes.yaml; start the server
with docker compose --file=served/docker-compose.yaml up. See docs/how_to/serve.md.
"""

import pathlib

from absl import flags

from wasser_tf import data, models
from wasser_tf.commands import _flags
from wasser_tf.models.classifier import Classifier
from wasser_tf.serving import model_card
from wasser_tf.serving.certified import CertifiedProbe
from wasser_tf.serving.export import export_classifier
from wasser_tf.serving.robustness import RobustnessProbe
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training import image_fields

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "model", None, "The classifier: a .keras file, a SavedModel folder, a .npz file or pretrained:NAME.", required=True
)
flags.DEFINE_string("base_dir", None, "The folder of all served models.", required=True)
flags.DEFINE_string("name", None, "The name of the model on the server.", required=True)
flags.DEFINE_integer("version", None, "The version, a whole number (default: the next free one).")
flags.DEFINE_list("class_names", None, "Names of the classes (default: those of the dataset).")
flags.DEFINE_string("dataset", None, "The dataset whose class names are used (default: that of the training run).")
flags.DEFINE_string(
    "data_dir", None, "The folder of prepared datasets, such as the parent of mnist/ (default: that of TFDS)."
)
flags.DEFINE_list("image_shape", None, "Height, width and channels, if the classifier does not define them.")
flags.DEFINE_bool("robustness", False, "Whether to add the signature that estimates the minimal radius of an image.")
flags.DEFINE_float(
    "robustness_largest", RobustnessProbe.largest, "The largest radius that the robustness signature tries."
)
flags.DEFINE_integer(
    "robustness_rounds", RobustnessProbe.rounds, "Number of radii that the robustness signature tries."
)
flags.DEFINE_integer(
    "robustness_iterations", RobustnessProbe.iterations, "Mirror steps of the robustness signature at each radius."
)
flags.DEFINE_bool("certify", False, "Whether to add the signature that returns the class and its certified radius.")
flags.DEFINE_enum("certify_method", "ibp", ["ibp", "crown"], "How --certify bounds: intervals, or linear bounds.")
flags.DEFINE_float("certify_largest", CertifiedProbe.largest, "The largest radius that --certify tries.")
flags.DEFINE_integer("certify_rounds", CertifiedProbe.rounds, "How often --certify halves the radius.")
_flags.define_classifier()
_flags.define_threat_model()
flags.adopt_module_key_flags(_flags)

_BALL = ("p", "kernel_size", "normalize_mass", "capacity")


def main() -> None:
    """Exports the classifier and prints the paths of the result."""
    path = pathlib.Path(FLAGS.model)
    card = model_card.of_run(path)
    options = _flags.model_options()
    loaded = models.load_classifier(FLAGS.model, **options.of_file)
    if isinstance(loaded, Classifier):
        raise ValueError(f"{path} is not a model of Keras or TensorFlow, and cannot be exported.")
    given = options.around(loaded)
    classifier = models.Classifier(loaded, **given) if given else loaded
    exported = export_classifier(
        classifier,
        FLAGS.base_dir,
        FLAGS.name,
        version=FLAGS.version,
        image_shape=_image_shape(),
        class_names=_class_names(card),
        robustness=_probe(card) if FLAGS.robustness else None,
        certified=_certified(card) if FLAGS.certify else None,
        card={**card, "source": str(path)},
    )
    print(f"{exported.path}: {', '.join(exported.signatures)}")
    print("\n".join(str(file) for file in exported.deployment))


def _class_names(card: dict) -> tuple[str, ...] | None:
    if FLAGS.class_names is not None:
        return tuple(FLAGS.class_names)
    name = FLAGS.dataset or card.get("dataset")
    if name is None:
        return None
    # The options with which the training run read its images.
    trained = {} if FLAGS.dataset else card.get("training", {})
    reading = {field: trained[field] for field in image_fields.READING if trained.get(field) is not None}
    try:
        folder = FLAGS.data_dir or card.get("data_dir")
        return data.load(name, data_dir=folder, splits=("test",), **reading).class_names
    except ValueError as error:
        raise ValueError(
            f"The dataset with the class names is missing; give it, or the names in --class_names. {error}"
        ) from error


def _ball(card: dict) -> ThreatModel:
    """The rules are those the classifier was trained for, unless flags give others."""
    given = any(FLAGS[name].present for name in _BALL)
    trained = card.get("threat_model")
    return ThreatModel.from_config(trained) if trained and not given else _flags.threat_model(0.0)


def _certified(card: dict) -> CertifiedProbe:
    return CertifiedProbe(
        threat_model=_ball(card),
        method=FLAGS.certify_method,
        largest=FLAGS.certify_largest,
        rounds=FLAGS.certify_rounds,
    )


def _probe(card: dict) -> RobustnessProbe:
    return RobustnessProbe(
        threat_model=_ball(card),
        largest=FLAGS.robustness_largest,
        rounds=FLAGS.robustness_rounds,
        iterations=FLAGS.robustness_iterations,
    )


def _image_shape() -> tuple[int, ...] | None:
    if FLAGS.image_shape is None:
        return None
    try:
        return tuple(int(side) for side in FLAGS.image_shape)
    except ValueError as error:
        raise ValueError(f"--image_shape must be like 28,28,1, got {','.join(FLAGS.image_shape)}.") from error


if __name__ == "__main__":
    _flags.run(main)
