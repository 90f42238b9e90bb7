"""What the paper (WasserTrain, ICASSP 2022) prints, and the same lines out of our outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wasser_tf.runtime.formatting import percent

WASSER, PGD = "wasser_attack", "projected_sinkhorn"
ROLES = ("standard", "pgd", "wasser_train")


class Paper(NamedTuple):
    """The paper's numbers on a dataset.

    Attributes:
      natural: Table 1, by role.
      full_success: Fig. 4: by attack, the ε from which it succeeds on every image of the standard model.
      success: Fig. 5: success by (attack, ε, role).
    """

    natural: Mapping[str, float]
    full_success: Mapping[str, float]
    success: Mapping[tuple[str, float, str], float]


PAPERS = {
    "mnist": Paper(
        natural={"standard": 0.9890, "pgd": 0.9705, "wasser_train": 0.9823},
        full_success={WASSER: 0.9, PGD: 1.4},
        success={
            (WASSER, 0.5, "pgd"): 0.91,
            (WASSER, 0.5, "wasser_train"): 0.69,
            (PGD, 2.0, "pgd"): 0.22,
            (PGD, 2.0, "wasser_train"): 0.14,
        },
    ),
    "cifar10": Paper(
        natural={"standard": 0.9470, "pgd": 0.8069, "wasser_train": 0.8637},
        full_success={},
        success={
            (WASSER, 0.05, "pgd"): 0.85,
            (WASSER, 0.05, "wasser_train"): 0.53,
            (PGD, 0.5, "pgd"): 0.43,
            (PGD, 0.5, "wasser_train"): 0.20,
        },
    ),
}
# Both datasets: WasserAttack's cross-entropy and precision error over those of PGD.
CROSS_ENTROPY_RATIO, PRECISION_RATIO = "about 3", "about 1/100"


class Line(NamedTuple):
    """One number: what it is of, the paper's, ours as the paper scores it (raw), and ours feasible."""

    what: str
    paper: str
    raw: str
    feasible: str


def lines(dataset: str, outputs: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Returns the paper's lines beside ours, as far as there are outputs of them.

    Args:
      dataset: A key of `PAPERS`.
      outputs: What the JSON files of "table1", "fig4" and "fig5" hold, by name.
    """
    paper = PAPERS[dataset]
    found: list[Line] = []
    if "table1" in outputs:
        ours = {row["classifier"]: row["natural_accuracy"] for row in outputs["table1"]["rows"]}
        for role, accuracy in paper.natural.items():
            if role in ours:
                found.append(Line(f"Table 1, natural accuracy, {role}", percent(accuracy), percent(ours[role]), ""))
    if "fig4" in outputs:
        found += _standard(paper, outputs["fig4"]["rows"])
    if "fig5" in outputs:
        cells = {(row["attack"], row["epsilon"], row["classifier"]): row for row in outputs["fig5"]["rows"]}
        for (attack, epsilon, role), success in paper.success.items():
            if row := cells.get((attack, epsilon, role)):
                what = f"Fig. 5, success of {attack} on {role} at ε = {epsilon:g}"
                found.append(Line(what, percent(success), percent(row["raw_success"]), percent(row["success"])))
    return found


def _standard(paper: Paper, rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    found = []
    for attack, epsilon in paper.full_success.items():
        what = f"Fig. 4, 100 % success of {attack} on standard, from ε ="
        found.append(Line(what, f"{epsilon:g}", _first(rows, attack, "raw_success"), _first(rows, attack, "success")))
    for what, said, key in (
        ("cross-entropy", CROSS_ENTROPY_RATIO, "cross_entropy"),
        ("precision error", PRECISION_RATIO, "precision_error"),
    ):
        # The feasible have no precision error but rounding.
        feasible = _ratio(rows, key) if key == "cross_entropy" else ""
        found.append(Line(f"Fig. 4, {what}, {WASSER} / {PGD}", said, _ratio(rows, f"raw_{key}"), feasible))
    return found


def _first(rows: Sequence[Mapping[str, Any]], attack: str, key: str) -> str:
    """Returns the smallest ε from which an attack succeeds on every image, of those that were tried."""
    tried = sorted((row["epsilon"], row[key]) for row in rows if row["attack"] == attack)
    reached = None
    for epsilon, success in reversed(tried):
        if success < 1:
            break
        reached = epsilon
    if reached is not None:
        return f"{reached:g}"
    return f"not by {tried[-1][0]:g} ({percent(tried[-1][1])})" if tried else "–"


def _ratio(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Returns the range over ε of WasserAttack's number over PGD's."""
    ours, theirs = ({row["epsilon"]: row[key] for row in rows if row["attack"] == attack} for attack in (WASSER, PGD))
    ratios = [ours[epsilon] / theirs[epsilon] for epsilon in ours if theirs.get(epsilon)]
    return f"{min(ratios):.2g} … {max(ratios):.2g}" if ratios else "–"
