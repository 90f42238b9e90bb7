"""The flags shared by the commands, and the objects built from them. No other room of the package defines flags.

On import, a command calls the `define_…` functions it needs and then `flags.adopt_module_key_flags(_flags)`, so that
--help shows these flags. Its main() builds the objects with the other functions.
"""

import dataclasses
import types
import typing
from collections.abc import Collection
from typing import Any

import keras
import tensorflow
from absl import flags

from wasser_tf.attacks import ATTACKS, RadiusSchedule
from wasser_tf.commands._objects import import_modules as import_modules
from wasser_tf.commands._objects import make_attack as make_attack
from wasser_tf.commands._objects import make_attacks as make_attacks
from wasser_tf.commands._objects import numbers as numbers
from wasser_tf.commands._objects import threat_model as threat_model
from wasser_tf.commands._run import run as run
from wasser_tf.data.reading import BAD_FILES, CROPS, STREAMING, ReadingOptions
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.stored_examples import STORED
from wasser_tf.models import ModelOptions
from wasser_tf.models.options import DATA_FORMATS, RETURNS
from wasser_tf.runs.leaderboard import Board

FLAGS = flags.FLAGS

# Those whose examples can be evaluated.
WASSERSTEIN_ATTACKS = ", ".join(name for name, attack in ATTACKS.items() if attack.in_wasserstein_ball)


def define_config(config: Any, *, skip: Collection[str] = ()) -> None:
    """Defines a flag for each field of a config: its name, default, description, type and choices.

    Fields whose flags are already defined, such as those of `define_data`, use these.

    Args:
      config: A dataclass whose fields have metadata "help" and "choices".
      skip: Names of fields without a flag.
    """
    annotations = typing.get_type_hints(config)
    define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}
    for field in dataclasses.fields(config):
        if field.name in skip or field.name in FLAGS:
            continue
        kinds = [kind for kind in _union_of(annotations[field.name]) if kind is not types.NoneType]
        description, choices = field.metadata["help"], field.metadata["choices"]
        if choices is not None:
            words = list(map(_word_of, choices))
            flags.DEFINE_enum(field.name, _word_of(field.default), words, description)
        elif typing.get_origin(kinds[0]) is tuple:
            flags.DEFINE_list(field.name, [f"{value:g}" for value in getattr(config, field.name)], description)
        else:
            define[kinds[0]](field.name, field.default, description)


def config_values(config: Any, *, skip: Collection[str] = ()) -> dict[str, Any]:
    """Returns the values of the flags of `define_config`, by field.

    Args:
      config: The dataclass that `define_config` was called with.
      skip: Names of fields without a flag.
    """
    values = {field.name: FLAGS[field.name].value for field in dataclasses.fields(config) if field.name not in skip}
    for field in dataclasses.fields(config):
        if field.name in values and field.metadata["choices"] is not None:
            values[field.name] = {_word_of(choice): choice for choice in field.metadata["choices"]}[values[field.name]]
    return values


def _union_of(annotation: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the type itself."""
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _word_of(choice: Any) -> str:
    """Returns the word for a choice on the command line, such as "true" for True."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def define_data(dataset: str = "digits") -> None:
    """Defines the flags that say which images there are."""
    flags.DEFINE_string(
        "dataset",
        dataset,
        "The dataset: digits; a folder of images (train/, validation/ and test/ with a folder for each class, or a "
        "folder for each class); an .npz file (x_train, y_train, x_test, y_test); or a name of tensorflow-datasets, "
        "such as mnist, fashion_mnist or cifar10.",
    )
    flags.DEFINE_string(
        "data_dir", None, "The folder of prepared datasets, such as the parent of mnist/ (default: that of TFDS)."
    )
    flags.DEFINE_bool("download", False, "Whether to download a missing dataset.")
    define_reading()


def define_reading() -> None:
    """Defines the flags that specify how images are read (docs/how_to/datasets.md)."""
    flags.DEFINE_list("image_size", None, "Height and width to resize images to, such as 224,224 (default: their own).")
    flags.DEFINE_enum(
        "crop",
        "none",
        CROPS,
        "How images of another aspect ratio get that size: none changes the ratio; center and random crop, random only "
        "training images.",
    )
    flags.DEFINE_enum("channels", None, ["1", "3"], "1 for greyscale, 3 for colour (default: that of the dataset).")
    flags.DEFINE_list(
        "class_names", None, "Names of the classes, in the order of the labels (default: those of the dataset)."
    )
    flags.DEFINE_enum(
        "bad_files", "refuse", BAD_FILES, "Whether to refuse or skip unreadable and other files in a folder of images."
    )
    flags.DEFINE_enum(
        "streaming",
        "auto",
        STREAMING,
        "Whether images are read from files as they are needed: always, never, or auto: if the set would take more "
        "than half of the available memory.",
    )


def reading_values() -> dict[str, Any]:
    """Returns the values of the flags of `define_reading`, by field of `ReadingOptions`.

    Raises:
      ValueError: --image_size is not two whole numbers.
    """
    size = FLAGS.image_size
    if size is not None:
        try:
            size = tuple(int(side) for side in size)
        except ValueError as error:
            raise ValueError(
                f"--image_size must be height and width, such as 224,224, got {','.join(size)}."
            ) from error
    return {
        "image_size": size,
        "crop": FLAGS.crop,
        "channels": None if FLAGS.channels is None else int(FLAGS.channels),
        "class_names": None if FLAGS.class_names is None else tuple(FLAGS.class_names),
        "bad_files": FLAGS.bad_files,
        "streaming": FLAGS.streaming,
    }


def define_classifier() -> None:
    """Defines the flags that specify what saved classifiers take and return, where that cannot be found out."""
    flags.DEFINE_string("signature", None, "Of a SavedModel: the signature to call.")
    flags.DEFINE_string("output", None, "The name or place of the output with the classes, of a model with several.")
    flags.DEFINE_list("input_range", None, "The values of a black and a white pixel, such as 0,255.")
    flags.DEFINE_enum("data_format", None, DATA_FORMATS, "The order of the axes of the images the model takes.")
    flags.DEFINE_enum(
        "returns", None, RETURNS, "What the model returns; sigmoid: one unit, the probability of class 1."
    )
    define_import()


def define_import() -> None:
    """Defines the flag that imports modules of the user's own layers."""
    flags.DEFINE_list(
        "import", [], "Modules to import first, such as those that register layers of a .keras file: my.module."
    )


def define_chance_accuracy() -> None:
    """Defines the flag that lets a classifier pass that is no better than chance."""
    flags.DEFINE_bool(
        "allow_chance_accuracy",
        False,
        "Whether to go on with a classifier whose accuracy on the first images is no better than chance.",
    )


def model_options() -> ModelOptions:
    """Imports the user's modules, and returns what the flags of `define_classifier` give.

    Raises:
      ValueError: A flag is out of its range, or a module cannot be imported.
    """
    import_modules()
    output = FLAGS.output
    given = FLAGS.input_range
    if given is not None:
        try:
            given = tuple(float(value) for value in given)
        except ValueError as error:
            raise ValueError(f"--input_range must be two numbers such as 0,255, got {','.join(given)}.") from error
    return ModelOptions(
        signature=FLAGS.signature,
        output=int(output) if output is not None and output.isdecimal() else output,
        input_range=given,
        data_format=FLAGS.data_format,
        returns=FLAGS.returns,
    )


def define_selection() -> None:
    """Defines the flags that say which of the images are attacked."""
    flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "The split whose images are attacked.")
    flags.DEFINE_integer(
        "num_examples", None, "Number of images, counted from the first (default: all).", lower_bound=1
    )
    flags.DEFINE_string(
        "indices", None, "File (.npy or text) with the positions in the split of the images to attack, in order."
    )
    flags.DEFINE_string(
        "original_index",
        None,
        "File (.npy or text) with the number of each image in another order, such as that of MNIST's files. Images are "
        "then attacked in that order: --num_examples=100 selects the first 100 of it.",
    )


def define_threat_model() -> None:
    """Defines the flags of the ball; its radius is --epsilon."""
    flags.DEFINE_float("p", 1.0, "Exponent p of the ground cost, the Euclidean distance in pixels to the power p.")
    flags.DEFINE_integer(
        "kernel_size", 5, "Side of the square window within which mass moves, in pixels (odd); 0: no limit."
    )
    flags.DEFINE_bool(
        "normalize_mass", True, "Whether the transport budget is ε × the mass of the image; otherwise it is ε."
    )
    flags.DEFINE_float("capacity", 1.0, "Upper bound of a pixel's value; 0: none.")


def define_attack_settings() -> None:
    """Defines the flags of the attacks' settings. All default to the attack's own."""
    flags.DEFINE_integer("iterations", None, "Maximum number of iterations per image (default: the attack's).")
    flags.DEFINE_float("attack_step", None, "Step size of the attack (default: the attack's).")
    flags.DEFINE_string(
        "attack_loss", None, "The loss that the attack maximises: margin, cross_entropy or dlr (default: the attack's)."
    )
    flags.DEFINE_integer("restarts", None, "Number of starts, for attacks with random starts (default: the attack's).")
    flags.DEFINE_float("alpha", None, "Weight α of WasserAttack's precision penalty (Eq. 6).")
    flags.DEFINE_float("beta", None, "Weight β of WasserAttack's pixel penalty (Eq. 7).")
    flags.DEFINE_float("gamma", None, "Weight γ of the budget penalty of WasserAttack (Eq. 8) or of distributional.")
    flags.DEFINE_bool("stop_when_fooled", None, "Whether the attack on an image stops as soon as it is misclassified.")
    flags.DEFINE_integer("seed", 0, "The random seed.", lower_bound=0, upper_bound=2**31 - 1)
    flags.DEFINE_bool("adaptive_radius", False, "Whether ε grows during the attack (section 5.1 of the paper).")
    paper = RadiusSchedule()
    flags.DEFINE_float("epsilon_start", paper.start, "Adaptive radius: the first ε.")
    flags.DEFINE_float("epsilon_factor", paper.factor, "Adaptive radius: the factor by which ε grows.")
    flags.DEFINE_integer(
        "epsilon_every", paper.every, "Adaptive radius: the number of iterations between two increases of ε."
    )
    flags.DEFINE_float("epsilon_min", paper.minimum, "Adaptive radius: the smallest ε.")
    flags.DEFINE_float("epsilon_max", paper.maximum, "Adaptive radius: the largest ε.")


def define_deterministic() -> None:
    """Defines the flag that makes equal runs on equal devices end alike."""
    flags.DEFINE_bool(
        "deterministic",
        True,
        "Whether operations use deterministic algorithms, so that the same seed gives the same examples and weights on "
        "the same kind of device. --nodeterministic can be faster on a GPU.",
    )


def apply_deterministic() -> None:
    """Does what the flag says; to be called before TensorFlow is used."""
    # Operations that draw at random then need a seed of the process, for a classifier may hold some.
    keras.utils.set_random_seed(FLAGS.seed)
    if FLAGS.deterministic:
        tensorflow.config.experimental.enable_op_determinism()


def define_output(batch_size: int = 128) -> None:
    """Defines the flags that say where results go and how many images are attacked at a time."""
    flags.DEFINE_string("output_dir", None, "The folder of the results.", required=True)
    flags.DEFINE_bool("overwrite", False, "Whether to replace the results of another run in the output_dir.")
    flags.DEFINE_integer("batch_size", batch_size, "Images per batch.", lower_bound=1)


def define_stored_examples() -> None:
    """Defines the flag that says in which form adversarial images are stored."""
    flags.DEFINE_enum(
        "stored_examples",
        "float32",
        STORED,
        "The form of stored images: float32: clean image, feasible and raw example; int16, int8: the changes from the "
        "clean image only; none: no images.",
    )


def define_board() -> None:
    """Defines the flags that say how a classifier of the leaderboard is evaluated and where results go.

    Those of images, ball and attacks are among them.
    """
    define_data()
    define_selection()
    define_threat_model()
    define_attack_settings()
    define_classifier()
    define_chance_accuracy()
    define_stored_examples()
    flags.DEFINE_list(
        "attacks", "ensemble", f"The attacks, each as name or name:setting=value:…; available: {WASSERSTEIN_ATTACKS}."
    )
    flags.DEFINE_list("radii", None, "The radii ε (default: those of the dataset's leaderboard).")
    flags.DEFINE_string(
        "output_dir", "runs/leaderboard", "The folder of the evaluations, with a subfolder for each classifier."
    )
    flags.DEFINE_string("results_dir", "docs/results", "The folder of the page and of the entries.")
    flags.DEFINE_string(
        "certification", "", "The output_dir of bin/certify.py on the same images, for certified accuracies."
    )
    flags.DEFINE_integer("batch_size", 128, "Images attacked at a time.", lower_bound=1)


def board() -> Board:
    """Returns how classifiers are evaluated, out of the flags of `define_board`.

    Raises:
      ValueError: A flag is out of its range.
    """
    made = make_attacks(FLAGS.attacks, threat_model(0.0))
    return Board(
        source=image_source(),
        attacks=dict(zip(FLAGS.attacks, made, strict=True)),
        output_dir=FLAGS.output_dir,
        results_dir=FLAGS.results_dir,
        radii=numbers("radii") if FLAGS.radii else (),
        batch_size=FLAGS.batch_size,
        options=model_options(),
        allow_chance_accuracy=FLAGS.allow_chance_accuracy,
        certification=FLAGS.certification,
        stored_examples=FLAGS.stored_examples,
    )


def image_source() -> ImageSource:
    """Returns where the images come from, out of the flags of `define_data` and `define_selection`.

    Raises:
      ValueError: A flag is out of its range.
    """
    return ImageSource(
        dataset=FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        download=FLAGS.download,
        split=FLAGS.split,
        num_examples=FLAGS.num_examples,
        indices=FLAGS.indices,
        original_index=FLAGS.original_index,
        reading=ReadingOptions(**reading_values()),
    )
