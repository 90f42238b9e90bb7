"""The bracket of every classifier: certified accuracy, and robust accuracy under attack, against ε."""

from typing import Any

import numpy as np

from wasser_tf import pretrained
from wasser_tf.certification.prover import SMOOTHING
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.paper.context import ExperimentContext
from wasser_tf.paper.experiment_output import ExperimentOutput
from wasser_tf.paper.published_numbers import WASSER
from wasser_tf.reporting import bracket
from wasser_tf.reporting.bracket import Bracket
from wasser_tf.reporting.tables import threat_model_caption

# The attacks of the upper bound, besides those that a reproduction adds.
_ATTACKS = ("mirror_ascent", WASSER)
_SMOOTHED = "standard, smoothed"


def certified(context: ExperimentContext) -> ExperimentOutput:
    """Certifies and attacks the classifiers of the run and the packaged ones of its dataset.

    The paper has no such table. Each classifier is certified by intervals. The standard classifier is also certified by
    randomised smoothing: each of those certificates holds with probability 0.95 and is about the smoothed classifier,
    which is not attacked.
    """
    config = context.config
    names = [*config.roles, *config.others]
    shown = {context.path(name) for name in names}
    names += [name for name in _packaged(config.dataset) if context.path(name) not in shown]
    brackets: dict[str, Bracket] = {}
    for name in names:
        fooled = np.asarray(context.evaluation(name, _ATTACKS).minimal_radii, np.float64)
        brackets[name] = Bracket(context.certified_radii(name, "ibp"), fooled)
    brackets[_SMOOTHED] = Bracket(context.certified_radii("standard", SMOOTHING))
    ball = context.attack(WASSER).threat_model
    radii = config.preset.radii
    bracket.save_bracket(
        context.folder / "certified.png",
        brackets,
        threat_model=ball,
        title=f"Certified and not fooled on {config.dataset}",
        max_radius=max(radii),
    )
    shares = bracket.bracket_shares(brackets, (0.0, *radii))
    rows: list[dict[str, Any]] = [{"classifier": name, **row} for name, rows in shares.items() for row in rows]
    return ExperimentOutput(
        name="certified",
        title="Beyond the paper: certified accuracy, and accuracy under attack",
        rows=rows,
        table=bracket.bracket_table(brackets, radii) + bracket.contradiction_note(brackets),
        num_images=len(brackets[_SMOOTHED].certified),
        threat_model=threat_model_caption(ball.rules.get_config()),
        settings={
            "attacks": list(_ATTACKS),
            "methods": {name: SMOOTHING if name == _SMOOTHED else "ibp" for name in brackets},
            "classifiers": {name: fingerprint(context.path(name)) for name in names},
        },
        pictures=["certified.png"],
    )


def _packaged(dataset: str) -> list[str]:
    """Returns the names of the packaged classifiers of a dataset."""
    return [name for name in pretrained.names() if pretrained.card(name)["training"]["config"]["dataset"] == dataset]
