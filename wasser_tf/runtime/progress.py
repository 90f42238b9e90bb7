"""Progress of long runs: parts done and time left."""

from collections import Counter
from collections.abc import Callable, Sequence

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Turns the progress of runs off or on for this process; results and warnings are still printed.

    Args:
      quiet: Whether `show_progress` prints nothing.
    """
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Returns whether the progress of runs is turned off."""
    return _quiet


def show_progress(line: str, end: str = "\n") -> None:
    """Prints a line of progress at once, also into a file or a pipe, unless progress is turned off.

    Args:
      line: The line.
      end: What follows it.

    Example:
    >>> show_progress("3 of 4 attacks")
    3 of 4 attacks
    """
    if not _quiet:
        print(line, end=end, flush=True)


class Progress:
    """Counts the parts of a run and estimates the time left from the durations of parts of the same kind.

    Attributes:
      total: The number of parts.
      finished: The number of parts done, in this run or before it.
    """

    def __init__(self, kinds: Sequence[str], log: Callable[[str], None] | None):
        """Initialises the counter.

        Args:
          kinds: The kind of every part; parts of a kind take about the same time.
          log: Takes each line of progress, or None.
        """
        self.total = len(kinds)
        self.finished = 0
        self._left = Counter(kinds)
        self._seconds: dict[str, list[float]] = {}
        self._log = log

    def skip(self, kind: str) -> None:
        """Counts a part that an earlier run completed."""
        self.finished += 1
        self._left[kind] -= 1

    def done(self, kind: str, seconds: float, text: str) -> None:
        """Counts a part that took `seconds` and logs a line."""
        self.skip(kind)
        self._seconds.setdefault(kind, []).append(seconds)
        if self._log:
            left = self.seconds_left()
            words = "time left not known yet" if left is None else f"{duration(left)} left"
            self._log(f"[{self.finished}/{self.total}] {text}; {seconds:.1f} s, {words}")

    def seconds_left(self) -> float | None:
        """Returns the estimated time left; kinds without a known duration count as the mean of the others.

        The first part of a kind is ignored while others of its kind are left, because compiling dominated it.
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
