"""The outcome of a sanity check, and the check of a table of results."""

import dataclasses
from collections.abc import Sequence

from wasser_tf.evaluation.record import WORST_CASE, Record
from wasser_tf.runtime.formatting import percent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """The outcome of one sanity check.

    Attributes:
      name: The property that was checked.
      passed: Whether the check passed; None if it could not be made.
      measured: The measurement, in words and numbers.
      needed: The condition for passing.
      masking: Whether a failure is a sign of gradient masking, rather than of a weak attack.
    """

    name: str
    passed: bool | None
    measured: str
    needed: str
    masking: bool = False


def gradient_masking(checks: Sequence[Check]) -> list[str]:
    """Returns the names of the failed checks that are signs of gradient masking; an empty list is the good outcome."""
    return [check.name for check in checks if check.masking and check.passed is False]


def worst_case_is_per_example(records: Sequence[Record]) -> Check:
    """Checks a table of results: at no radius may an attack be stronger than the worst case over all attacks.

    Args:
      records: The records of one classifier, including those of the worst case if there are several attacks.

    Returns:
      The check; `passed` is None if there is only one attack, or no attack has a record of its own.
    """
    name, needed = "the worst case is per example", "at each ε at least the best attack alone"
    worst = {record.epsilon: record.feasible.success_rate for record in records if record.attack == WORST_CASE}
    if not worst or len(worst) == len(records):
        measured = "no attack has scores of its own" if worst else "there is one attack only"
        return Check(name=name, passed=None, measured=measured, needed=needed)
    best = {
        radius: max(
            record.feasible.success_rate
            for record in records
            if record.attack != WORST_CASE and record.epsilon == radius
        )
        for radius in worst
    }
    return Check(
        name=name,
        passed=all(worst[radius] >= best[radius] for radius in worst),
        measured=", ".join(f"{percent(worst[at], 1)} over {percent(best[at], 1)} at {at:g}" for at in worst),
        needed=needed,
    )
