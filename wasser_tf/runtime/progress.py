"""How far a long run is, and how long it will go on."""

from collections import Counter
from collections.abc import Callable, Sequence


class Progress:
    """Counts the parts of a run and estimates the time left from how long parts of the same kind took.

    Attributes:
      total: How many parts there are.
      finished: How many of them are done or were done before.
    """

    def __init__(self, kinds: Sequence[str], log: Callable[[str], None] | None):
        """Takes the kind of every part (parts of a kind take about as long), and what to do with a line of text."""
        self.total = len(kinds)
        self.finished = 0
        self._left = Counter(kinds)
        self._seconds: dict[str, list[float]] = {}
        self._log = log

    def skip(self, kind: str) -> None:
        """Counts a part that was done before."""
        self.finished += 1
        self._left[kind] -= 1

    def done(self, kind: str, seconds: float, text: str) -> None:
        """Counts a part that took so many seconds, and tells of it."""
        self.skip(kind)
        self._seconds.setdefault(kind, []).append(seconds)
        if self._log:
            left = self.seconds_left()
            words = "time left not known yet" if left is None else f"{duration(left)} left"
            self._log(f"[{self.finished}/{self.total}] {text}; {seconds:.1f} s, {words}")

    def seconds_left(self) -> float | None:
        """Returns the estimate; kinds of which nothing is known yet count as the mean of the others.

        The first part of a kind tells nothing while others of it are left, for compiling took most of its time.
        """
        means = {
            kind: sum(seconds[1:] or seconds) / len(seconds[1:] or seconds)
            for kind, seconds in self._seconds.items()
            if len(seconds) > 1 or not self._left[kind]
        }
        if not means and any(self._left.values()):
            return None
        other = sum(means.values()) / len(means) if means else 0.0
        return sum(count * means.get(kind, other) for kind, count in self._left.items())


def duration(seconds: float) -> str:
    """Returns a duration in words, such as "3 min 20 s"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
