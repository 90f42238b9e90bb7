"""Attacks written as text, "name:setting=value:setting=value", as flags, file names and model cards have them."""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.registry import attack_class, make
from wasser_tf.threat_model import ThreatModel


class AttackSpec(NamedTuple):
    """An attack by name with those of its settings that are given.

    Attributes:
      name: The name of the attack.
      settings: Values by the name of the setting.
    """

    name: str
    settings: dict[str, Any]


def parse_spec(text: str) -> AttackSpec:
    """Reads "name" or "name:setting=value:…". Neither the name nor the settings are looked up.

    Values are Python literals, true or false in any case, or otherwise strings.

    Raises:
      ValueError: A part after the name is not setting=value.

    Example:
    >>> parse_spec("mirror_ascent:restarts=6:loss=dlr")
    AttackSpec(name='mirror_ascent', settings={'restarts': 6, 'loss': 'dlr'})
    """
    rest = text.strip().partition(":")[2]
    settings = {}
    for part in filter(None, rest.split(":")):
        setting, equals, value = part.partition("=")
        if not equals or not setting.strip():
            raise ValueError(f"An attack is given as name or name:setting=value:setting=value, got {text!r}.")
        settings[setting.strip()] = _read_value(value.strip())
    return AttackSpec(attack_name(text), settings)


def attack_name(text: str) -> str:
    """Returns the name that "name" or "name:setting=value:…" begins with."""
    return text.partition(":")[0].strip()


def format_spec(name: str, settings: Mapping[str, Any]) -> str:
    """Writes an attack as `parse_spec` reads it.

    Raises:
      ValueError: A value cannot be written so, as the members of an ensemble.

    Example:
    >>> format_spec("mirror_ascent", {"restarts": 6, "loss": "dlr"})
    'mirror_ascent:restarts=6:loss=dlr'
    """
    text = ":".join([name, *(f"{setting}={value}" for setting, value in settings.items())])
    try:
        same = parse_spec(text) == (name, dict(settings))
    except ValueError:
        same = False
    if not same:
        raise ValueError(f"The settings {dict(settings)!r} of {name} cannot be written as name:setting=value:….")
    return text


def setting_names(name: str) -> tuple[str, ...]:
    """Returns the settings of an attack, without the threat model.

    Raises:
      ValueError: There is no such attack.
    """
    fields = dataclasses.fields(attack_class(name))
    return tuple(field.name for field in fields if field.init and field.name != "threat_model")


def make_from_spec(text: str, threat_model: ThreatModel, usual: Mapping[str, Any] | None = None) -> Attack:
    """Makes an attack from its text.

    Args:
      text: "name" or "name:setting=value:…".
      threat_model: The ball.
      usual: Settings for what the text leaves open; those that the attack does not have are ignored.

    Raises:
      ValueError: There is no such attack, or it has no such setting; the message lists those it has.
    """
    spec = parse_spec(text)
    known = setting_names(spec.name)
    if unknown := sorted(set(spec.settings) - set(known)):
        raise ValueError(f"Attack {spec.name!r} has no setting {', '.join(unknown)}; it has {', '.join(known)}.")
    usual = {setting: value for setting, value in (usual or {}).items() if setting in known}
    return make(spec.name, threat_model, **{**usual, **spec.settings})


def changed_settings(serialized: Mapping[str, Any]) -> AttackSpec:
    """Returns what distinguishes a serialised attack from one by the same name with all defaults.

    Args:
      serialized: {"name", "config"} as `wasser_tf.attacks.serialize` returns it. The threat model is left out.
    """
    name, config = serialized["name"], serialized["config"]
    usual = make(name, ThreatModel.from_config(config["threat_model"])).get_config()
    changed = {key: value for key, value in config.items() if key != "threat_model" and value != usual.get(key)}
    return AttackSpec(name, changed)


def _read_value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
