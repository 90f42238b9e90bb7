"""The threat model, the radii and the attacks that flags of `_flags` describe."""

import importlib
import os
import sys
from collections.abc import Sequence

from absl import flags

from wasser_tf.attacks import Attack, RadiusSchedule, spec
from wasser_tf.threat_model import ThreatModel

FLAGS = flags.FLAGS

# Flags that are settings of those attacks that have them; None leaves an attack's own default.
_SETTINGS = {
    "iterations": "iterations",
    "attack_step": "step_size",
    "attack_loss": "loss",
    "restarts": "restarts",
    "alpha": "alpha",
    "beta": "beta",
    "gamma": "gamma",
    "stop_when_fooled": "stop_when_fooled",
}


def threat_model(epsilon: float) -> ThreatModel:
    """Returns the ball of that radius that the flags describe.

    Raises:
      ValueError: A flag is out of its range.
    """
    return ThreatModel(
        epsilon=epsilon,
        p=FLAGS.p,
        kernel_size=FLAGS.kernel_size or None,
        normalize_mass=FLAGS.normalize_mass,
        capacity=FLAGS.capacity or None,
    )


def numbers(flag: str) -> tuple[float, ...]:
    """Returns the numbers of a list flag, rising.

    Raises:
      ValueError: There are none, or one is no number.
    """
    try:
        values = tuple(sorted(float(item) for item in FLAGS[flag].value))
    except ValueError as error:
        raise ValueError(f"--{flag} must be numbers such as 0.1,0.3,0.5, got {','.join(FLAGS[flag].value)}.") from error
    if not values:
        raise ValueError(f"--{flag} must be numbers such as 0.1,0.3,0.5, got none.")
    return values


def make_attack(description: str, ball: ThreatModel) -> Attack:
    """Makes an attack out of "name" or "name:setting=value:setting=value", and the flags.

    Raises:
      ValueError: There is no such attack, or it lacks a setting that was given.
    """
    return make_attacks([description], ball)[0]


def make_attacks(descriptions: Sequence[str], ball: ThreatModel) -> list[Attack]:
    """Makes several attacks; a flag goes to those that have the setting, and one at least must have it.

    Raises:
      ValueError: There is no such attack, or none of them has a setting that was given.
    """
    given = {setting: FLAGS[flag].value for flag, setting in _SETTINGS.items() if FLAGS[flag].value is not None}
    given["seed"] = FLAGS.seed
    if FLAGS.adaptive_radius:
        given["schedule"] = RadiusSchedule(
            start=FLAGS.epsilon_start,
            factor=FLAGS.epsilon_factor,
            every=FLAGS.epsilon_every,
            minimum=FLAGS.epsilon_min,
            maximum=FLAGS.epsilon_max,
        )
    made, unused = [], set(given) - {"seed"}
    for description in descriptions:
        unused -= set(spec.setting_names(spec.attack_name(description)))
        made.append(spec.make_from_spec(description, ball, given))
    if unused:
        flag_names = [f"--{flag}" for flag, setting in _SETTINGS.items() if setting in unused]
        flag_names += ["--adaptive_radius"] if "schedule" in unused else []
        raise ValueError(f"{', '.join(flag_names)} is no setting of {', '.join(descriptions)}; leave it out.")
    return made


def import_modules() -> None:
    """Imports the modules of --import.

    Raises:
      ValueError: One cannot be imported.
    """
    # As with python -m, modules in the working directory are found.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in FLAGS["import"].value:
        try:
            importlib.import_module(name)
        except Exception as error:  # Whatever a module of the user's raises.
            raise ValueError(
                f"--import={name} cannot be imported ({type(error).__name__}: {error}): give the dotted name of a "
                "module that is in the working directory or on PYTHONPATH."
            ) from error
