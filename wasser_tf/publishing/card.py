"""Cards of packaged classifiers: architecture, training and measured robustness, generated from stored results."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from wasser_tf.attacks import spec
from wasser_tf.publishing.certified import certified_by
from wasser_tf.publishing.leaderboard import attacks_in_words, ball_in_words, short_commit
from wasser_tf.reporting.tables import markdown_table
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percent
from wasser_tf.runtime.run_files import CONFIG
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training.config import TrainConfig

# Fields of the config that bin/train.py sets by flags in another form.
_SPECIAL_FIELDS = ("attack", "validation_attack")


def training_of(run: pathlib.Path) -> dict[str, Any]:
    """Reads the metadata of a training run.

    Args:
      run: The output_dir of bin/train.py.

    Returns:
      "config", "command" (see `training_command`), "threat_model_in_words", "commit" and "versions".

    Raises:
      ValueError: The folder does not contain a training run.
    """
    path = run / CONFIG
    metadata = storage.read_json(path) if path.exists() else {}
    try:
        return {
            "config": metadata["config"],
            "command": training_command(metadata["config"]),
            "threat_model_in_words": metadata["threat_model_in_words"],
            "commit": metadata.get("commit"),
            "versions": metadata["versions"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run} does not contain a training run: pass the --output_dir of bin/train.py.") from error


def training_command(config: Mapping[str, Any]) -> str:
    """Returns the bin/train.py command that repeats a run, with all flags that differ from their defaults.

    Args:
      config: The "config" of the run's config.json.
    """
    attack = config["attack"]
    ball = dict(attack["config"]["threat_model"])
    given: dict[str, Any] = {"dataset": config["dataset"]}
    # A saved classifier to start from replaces a model by name.
    ignored = ("model", "width") if config.get("initial") else ()
    if not ignored:
        given["model"] = config["model"]
    given["attack"] = _described(attack)
    if validation := config.get("validation_attack"):
        given["validation_attack"] = _described(validation)
    given["epsilon"] = ball.pop("epsilon")
    default_ball = ThreatModel().get_config()
    given |= {key: value or 0 for key, value in ball.items() if value != default_ball[key] and key != "normalize_mass"}
    if not ball["normalize_mass"]:
        given["normalize_mass"] = False
    if schedule := attack["config"].get("schedule"):
        names = {"start": "start", "factor": "factor", "every": "every", "minimum": "min", "maximum": "max"}
        given |= {"adaptive_radius": True, **{f"epsilon_{names[key]}": value for key, value in schedule.items()}}
    defaults = {field.name: field.default for field in TrainConfig.__dataclass_fields__.values()}
    given |= {
        key: value
        for key, value in config.items()
        if key not in (*given, *_SPECIAL_FIELDS, *ignored) and value != storage.through_json(_plain(defaults.get(key)))
    }
    return f"python bin/train.py {' '.join(_flag(key, value) for key, value in given.items())} --output_dir=…"


def _described(attack: Mapping[str, Any]) -> str:
    """Returns name:setting=value:… of a serialised attack, without the settings that have flags of their own."""
    name, changed = spec.changed_settings(attack)
    # bin/train.py has default iterations of its own.
    shown = {"iterations", *changed} - {"schedule", "seed"}
    return spec.format_spec(name, {key: value for key, value in attack["config"].items() if key in shown})


def write_card(path: pathlib.Path, classifier: Mapping[str, Any], training: Mapping[str, Any], entry: Mapping) -> None:
    """Writes NAME.json and NAME.md to the folder of NAME.keras.

    Args:
      path: The .keras file.
      classifier: "model" (the model's name), "image_shape" [H, W, C], "num_weights", "num_classes", "bytes" and "file"
        (the name of the file in the run).
      training: The result of `training_of`.
      entry: The classifier's leaderboard entry, measured on this file.
    """
    card = {"name": path.stem, "classifier": dict(classifier), "training": dict(training), "evaluation": dict(entry)}
    storage.write_json(path.with_suffix(".json"), card)
    storage.write_text(path.with_suffix(".md"), card_markdown(card))


def card_markdown(card: Mapping[str, Any]) -> str:
    """Returns the card as Markdown.

    Args:
      card: The content of NAME.json: "name", "classifier", "training" and "evaluation", see `write_card`.
    """
    classifier, training, evaluation = card["classifier"], card["training"], card["evaluation"]
    height, width, channels = classifier["image_shape"]
    # Cards of older versions do not contain the model's name.
    model = classifier.get("model", training["config"]["model"])
    rows: list[Sequence[str]] = [["natural", percent(evaluation["natural_accuracy"])]]
    versions = ", ".join(f"{key} {value}" for key, value in training["versions"].items())
    warnings = "".join(f"\n**{line}**\n" for line in evaluation.get("warnings", ()))
    rows += [[f"robust at ε = {radius}", percent(share)] for radius, share in evaluation["robust_accuracy"].items()]
    certified = evaluation.get("certified", {}).get("accuracy", {})
    rows += [[f"certified at ε = {radius}", percent(share)] for radius, share in certified.items()]
    proof = f"Certified by {certified_by(evaluation)}.\n" if certified else ""
    return f"""# {card["name"]}

{model}, {classifier["num_weights"]:,} weights, from {height}×{width}×{channels} images in [0, 1]
to {classifier["num_classes"]} logits; {classifier["bytes"] / 1e6:.2f} MB, weights rounded to float16.

```python
classifier = wasser_tf.load_pretrained("{card["name"]}")
```

## Robustness

{markdown_table(["accuracy", f"{evaluation['num_images']:,} images of {evaluation['dataset']}"], rows)}{warnings}
{ball_in_words(evaluation)}. Attacked with {attacks_in_words(evaluation["attacks"])}, seed
{evaluation["seed"]}; every adversarial example is checked
({percent(evaluation["least_feasible_share"])} feasible). Measured on this file (fingerprint
`{evaluation["fingerprint"][:16]}…`) at commit {short_commit(evaluation["commit"])}:

```bash
{evaluation["command"]}
```

{proof}Robust accuracies are upper bounds: a stronger attack may lower them. They hold for this threat model only.

## Training

`{classifier["file"]}` of this run, seed {training["config"]["seed"]}, at commit {short_commit(training["commit"])}:

```bash
{training["command"]}
```

{training["threat_model_in_words"]}. Versions: {versions}.
"""


def _plain(value: Any) -> Any:
    return None if not isinstance(value, (str, int, float, bool, list, tuple, dict)) else value


def _flag(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
