"""The configuration of an evaluation, stored by bin/evaluate.py as config.json."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from wasser_tf import attacks
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.record import WORST_CASE
from wasser_tf.evaluation.stored_examples import STORED
from wasser_tf.models import ModelOptions, model_name
from wasser_tf.runtime.arguments import check_one_of, is_whole
from wasser_tf.runtime.run_files import CONFIG, Schema, read_document
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """The configuration of an evaluation: models × attacks × radii on one set of images.

    Attributes:
      models: Paths of the classifiers, by name.
      source: The images.
      attacks: The attacks by the names used in reports. Their threat models may differ in epsilon only.
      radii: The radii.
      output_dir: The folder of all results.
      minimal_radius: Whether to bisect each image's minimal radius with the main attack, up to the largest radius.
        Otherwise the minimal radius is the least cost among the examples found at the radii.
      sanity: Whether to make the sanity checks, with the main attack on `sanity_examples` images.
      main_attack: The attack used for bisection and sanity checks; by default mirror ascent, or the first attack if
        mirror ascent is not among them.
      sanity_examples: Number of images for the sanity checks, counted from the first.
      batch_size: Images attacked at a time, and images in a file of results.
      skip_fooled: Whether an attack skips images that are misclassified clean, or that an earlier attack or a smaller
        radius fooled. The robust accuracy of all attacks together then takes less work (although an example that an
        attack on a larger ball would find within a smaller ball may be missed), but attacks have no scores of their
        own.
      stored_examples: The form of the images in the stored results, "float32" (exact), "int16" or "int8" (changes from
        the clean images) or "none". It does not change the report; exact images are needed to verify or to score again.
      options: What is given about the classifiers, such as the range of their pixels.

    Raises:
      ValueError: A field is out of range.
    """

    models: Mapping[str, str]
    source: ImageSource
    attacks: Mapping[str, Attack]
    radii: tuple[float, ...]
    output_dir: str
    minimal_radius: bool = False
    sanity: bool = True
    main_attack: str = ""
    sanity_examples: int = 100
    batch_size: int = 128
    skip_fooled: bool = False
    stored_examples: str = "float32"
    options: ModelOptions = ModelOptions()

    def __post_init__(self) -> None:
        for name, kind in (("models", Mapping), ("attacks", Mapping), ("radii", (tuple, list))):
            if not isinstance(value := getattr(self, name), kind):
                raise ValueError(f"{name} must be a {'list' if name == 'radii' else 'dict'}, got {value!r}.")
            if not value:
                raise ValueError(f"{name} must name at least one, got none.")
        for label, attack in self.attacks.items():
            if not isinstance(attack, Attack):
                raise ValueError(f"The attack {label!r} must be a wasser_tf.attacks.Attack, got {attack!r}.")
        for name in ("sanity_examples", "batch_size"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}.")
        check_one_of("stored_examples", self.stored_examples, STORED)
        if WORST_CASE in self.attacks:
            raise ValueError(f"{WORST_CASE!r} is the name of the row over all attacks: give the attack another name.")
        for attack in self.attacks.values():
            check_in_wasserstein_ball(attack)
        if len({attack.threat_model.with_epsilon(0) for attack in self.attacks.values()}) > 1:
            raise ValueError("All attacks of an evaluation must have the same threat model, except for epsilon.")
        if any(attack.schedule is not None for attack in self.attacks.values()):
            raise ValueError("An evaluation uses fixed radii: leave out the adaptive radius.")
        if not self.main_attack:
            usual = [label for label, attack in self.attacks.items() if attack.preferred_for_checks]
            object.__setattr__(self, "main_attack", (usual or list(self.attacks))[0])
        if self.main_attack not in self.attacks:
            raise ValueError(f"main_attack must be one of {', '.join(self.attacks)}, got {self.main_attack!r}.")
        for radius in self.radii:
            self.threat_model.with_epsilon(radius)

    @property
    def threat_model(self) -> ThreatModel:
        """The threat model of all attacks; its epsilon is ignored."""
        return next(iter(self.attacks.values())).threat_model

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain Python values, without the output_dir, so that the folder can be moved."""
        return {
            "wasser_tf": __version__,
            "models": dict(self.models),
            "source": self.source.to_json(),
            "attacks": {label: attacks.serialize(attack) for label, attack in self.attacks.items()},
            "radii": list(self.radii),
            "sanity": self.sanity,
            "main_attack": self.main_attack,
            "minimal_radius": self.minimal_radius,
            "sanity_examples": self.sanity_examples,
            "batch_size": self.batch_size,
            "skip_fooled": self.skip_fooled,
            **self.options.to_json(),
        }

    @classmethod
    def load(cls, output_dir: str) -> "EvaluationRun":
        """Reads the configuration of the evaluation in an output_dir.

        Args:
          output_dir: The folder of an evaluation.

        Returns:
          The configuration, with this output_dir.

        Raises:
          ValueError: The folder holds no evaluation.
        """
        path = pathlib.Path(output_dir).expanduser() / CONFIG
        if not path.exists():
            raise ValueError(
                f"{output_dir} holds no evaluation ({CONFIG} is missing): give the classifiers to evaluate, --models."
            )
        values = read_document(path, Schema.EVALUATION_CONFIG)
        try:
            values.pop("wasser_tf")
            values["source"] = ImageSource.from_json(values["source"])
            values["attacks"] = {label: attacks.deserialize(config) for label, config in values["attacks"].items()}
            values["radii"] = tuple(values["radii"])
            values["options"] = ModelOptions(**values.pop("options", {}))
            return cls(**values, output_dir=output_dir)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not an evaluation's configuration ({error}): give another --output_dir, or --overwrite."
            ) from error


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """Parses classifiers given as "path" or "name=path".

    >>> parse_models(["robust=runs/a/best.keras", "plain.keras"])
    {'robust': 'runs/a/best.keras', 'plain': 'plain.keras'}

    Args:
      given: The items.

    Returns:
      Paths by name.

    Raises:
      ValueError: Two classifiers have the same name.
    """
    named: dict[str, str] = {}
    for item in given:
        name, equals, path = item.partition("=")
        name, path = (name, path) if equals else (model_name(item), item)
        if name in named:
            raise ValueError(
                f"Two models are called {name!r}: give them different names, as in --models={name}_2={path}."
            )
        named[name] = path
    return named
