"""The numbers published in the paper (WasserTrain, ICASSP 2022), and their comparison with our outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wasser_tf.runtime.formatting import percent

WASSER, PGD = "wasser_attack", "projected_sinkhorn"
ROLES = ("standard", "pgd", "wasser_train")


class Paper(NamedTuple):
    """The paper's numbers on a dataset.

    Attributes:
      natural: Table 1: natural accuracy, 0 to 1, by role.
      full_success: Fig. 4: the smallest ε at which an attack succeeds on every image of the standard model, by attack.
      success: Fig. 5: success rate, 0 to 1, by (attack, ε, role).
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
# On both datasets: the ratios of WasserAttack's cross-entropy and precision error to those of PGD.
CROSS_ENTROPY_RATIO, PRECISION_RATIO = "about 3", "about 1/100"


class Line(NamedTuple):
    """One row of the comparison, as text.

    Attributes:
      what: The quantity.
      paper: The paper's number.
      raw: Our number with raw examples, as the paper scores.
      feasible: Our number with feasible examples.
    """

    what: str
    paper: str
    raw: str
    feasible: str


def lines(dataset: str, outputs: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Compares the paper's numbers with ours, as far as outputs exist.

    Args:
      dataset: A key of `PAPERS`.
      outputs: The contents of the JSON files of "table1", "fig4" and "fig5" by name; each may be missing.

    Returns:
      A line for each number of the paper that has a counterpart.

    Example:
    >>> rows = [{"classifier": "standard", "natural_accuracy": 0.9912}]
    >>> tuple(lines("mnist", {"table1": {"rows": rows}})[0])
    ('Table 1, natural accuracy, standard', '98.90 %', '99.12 %', '')
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
    for what, published, key in (
        ("cross-entropy", CROSS_ENTROPY_RATIO, "cross_entropy"),
        ("precision error", PRECISION_RATIO, "precision_error"),
    ):
        # The precision error of feasible examples is rounding error only.
        feasible = _ratio(rows, key) if key == "cross_entropy" else ""
        found.append(Line(f"Fig. 4, {what}, {WASSER} / {PGD}", published, _ratio(rows, f"raw_{key}"), feasible))
    return found


def _first(rows: Sequence[Mapping[str, Any]], attack: str, key: str) -> str:
    """Returns the smallest evaluated ε from which on an attack succeeds on every image."""
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
    """Returns the range, over ε, of the ratio of WasserAttack's number to PGD's."""
    ours, theirs = ({row["epsilon"]: row[key] for row in rows if row["attack"] == attack} for attack in (WASSER, PGD))
    ratios = [ours[epsilon] / theirs[epsilon] for epsilon in ours if theirs.get(epsilon)]
    return f"{min(ratios):.2g} … {max(ratios):.2g}" if ratios else "–"
