"""What an evaluation evaluates: the fields of bin/evaluate.py's config.json."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from wasser_tf import attacks
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.record import WORST_CASE
from wasser_tf.models import ModelOptions, model_name
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """What to evaluate.

    Attributes:
      models: Names and paths of the classifiers.
      source: The images.
      attacks: Attacks by what reports call them, all with the same threat model but for epsilon.
      radii: The radii.
      output_dir: Where everything goes.
      minimal_radius: Whether to bisect each image's minimal radius with the main attack, up to the largest radius.
        Otherwise it is told from the examples at the radii alone.
      sanity: Whether to make the sanity checks, with the main attack on `sanity_examples` images.
      main_attack: Which of the attacks that is; mirror ascent by default if it is there, else the first.
      sanity_examples: On how many images, the first ones.
      batch_size: Images at a time; a file of results holds as many.
      skip_fooled: Whether an attack gets only the images that stand: none before it and no smaller radius has fooled
        them, nor are they misclassified clean. Robust accuracy is the same for less work (an example that a larger
        ball's attack finds within a smaller one may go unseen), but no attack has scores of its own.
      options: What is given about the classifiers.

    Raises:
      ValueError: A field is out of its range.
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
        if WORST_CASE in self.attacks:
            raise ValueError(f"{WORST_CASE!r} is the name of the row over all attacks: give the attack another.")
        for attack in self.attacks.values():
            check_in_wasserstein_ball(attack)
        if len({attack.threat_model.with_epsilon(0) for attack in self.attacks.values()}) > 1:
            raise ValueError("All attacks of an evaluation must have the same threat model, but for epsilon.")
        if any(attack.schedule is not None for attack in self.attacks.values()):
            raise ValueError("An evaluation is at fixed radii: leave out the adaptive radius.")
        if not self.main_attack:
            usual = [label for label, attack in self.attacks.items() if attack.preferred_for_checks]
            object.__setattr__(self, "main_attack", (usual or list(self.attacks))[0])
        if self.main_attack not in self.attacks:
            raise ValueError(f"main_attack must be one of {', '.join(self.attacks)}, got {self.main_attack!r}.")
        for radius in self.radii:
            self.threat_model.with_epsilon(radius)

    @property
    def threat_model(self) -> ThreatModel:
        """The threat model of all attacks; its epsilon is not used."""
        return next(iter(self.attacks.values())).threat_model

    def to_json(self) -> dict[str, Any]:
        """Returns plain Python values, without the output_dir, so that a folder may be moved."""
        return {
            "wasser_tf": __version__,
            "models": dict(self.models),
            "source": dataclasses.asdict(self.source),
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
    def stored(cls, output_dir: str) -> "EvaluationRun":
        """Makes the config of the run that an output_dir holds.

        Raises:
          ValueError: It holds none.
        """
        path = pathlib.Path(output_dir).expanduser() / CONFIG
        if not path.exists():
            raise ValueError(
                f"{output_dir} holds no evaluation ({CONFIG} is not there): say what to evaluate, --models."
            )
        values = storage.read_json(path)
        try:
            values.pop("wasser_tf")
            values["source"] = ImageSource(**values["source"])
            values["attacks"] = {label: attacks.deserialize(config) for label, config in values["attacks"].items()}
            values["radii"] = tuple(values["radii"])
            values["options"] = ModelOptions(**values.pop("options", {}))
            return cls(**values, output_dir=output_dir)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no evaluation's ({error}): give another --output_dir, or --overwrite."
            ) from error


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """Returns names and paths out of "path" or "name=path" each.

    Raises:
      ValueError: Two have the same name.
    """
    named: dict[str, str] = {}
    for item in given:
        name, equals, path = item.partition("=")
        name, path = (name, path) if equals else (model_name(item), item)
        if name in named:
            raise ValueError(f"Two models are called {name!r}: name them apart, as in --models={name}_2={path}.")
        named[name] = path
    return named
