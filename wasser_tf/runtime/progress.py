"""Progress of long operations: one bar with rate and time left in terminals and notebooks, lines in logs."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

_quiet = False
_drawn_bars = 0


def set_quiet(quiet: bool) -> None:
    """Turns the progress of runs off or on for this process; results and warnings are still printed.

    Args:
      quiet: Whether `show_progress` prints nothing and no bar is drawn.
    """
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Returns whether the progress of runs is turned off."""
    return _quiet


def show_progress(line: str, end: str = "\n") -> None:
    """Prints a line of progress at once, also into a file or a pipe, unless progress is turned off.

    A bar that is drawn stays below the line.

    Args:
      line: The line.
      end: What follows it.

    Example:
    >>> show_progress("3 of 4 attacks")
    3 of 4 attacks
    """
    if _quiet:
        return
    if _drawn_bars:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stdout, end=end)
    else:
        print(line, end=end, flush=True)


def draws_bars() -> bool:
    """Returns whether progress is shown as a bar: standard output is a terminal or a notebook, and not quiet."""
    return not _quiet and ((sys.stdout.isatty() and _has_width()) or "ipykernel" in sys.modules)


def _has_width() -> bool:
    """Returns whether the terminal can show a bar: some, such as that of a recording, have a width of 0."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns > 0
    except (OSError, ValueError):
        return True


class Bar:
    """One bar with the rate and the time left of an operation whose parts take about the same time.

    It is drawn in terminals and notebooks; elsewhere it writes a line from time to time. It disappears at the end.

    Example:
    >>> with Bar(3, "image", "Attack", seconds_between_lines=0) as bar:
    ...     bar.update(1)
    ...     bar.update(3)
    Attack: 1 of 3 images, time left not known yet
    Attack: 3 of 3 images, ...

    Attributes:
      total: The number of parts; it may be changed.
      finished: The number of parts done.
      drawn: Whether the bar is drawn.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        title: str = "",
        *,
        log: Callable[[str], None] | None = show_progress,
        seconds_between_lines: float = 60.0,
    ):
        """Draws the empty bar.

        Args:
          total: The number of parts.
          unit: What a part is, such as "image".
          title: What is done.
          log: Takes the lines; None for neither lines nor bar. The bar is drawn only if this is `show_progress`.
          seconds_between_lines: Time between two lines at least; inf for a bar and no lines.
        """
        global _drawn_bars
        self.total, self.finished = total, 0
        self.drawn = log is show_progress and draws_bars()
        self._unit, self._title, self._log, self._between = unit, title, log, seconds_between_lines
        self._first: tuple[float, int] | None = None
        self._last = self._last_line = time.monotonic()
        self._bar: Any = None
        if self.drawn:
            from tqdm import tqdm

            _drawn_bars += 1
            form = "{desc}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {unit}{postfix}"
            self._bar = tqdm(
                total=total,
                desc=f"{title}: " if title else None,
                unit=f"{unit}s",
                file=sys.stdout,
                leave=False,
                dynamic_ncols=True,
                bar_format=form,
                mininterval=0.0,
            )

    def update(self, finished: int, *, seconds_left: float | None = None) -> None:
        """Shows how much is done.

        Args:
          finished: The number of parts done in all.
          seconds_left: The time left; estimated from the rate by default.
        """
        now, self.finished = time.monotonic(), finished
        state = self._state(now, seconds_left)
        if self._first is None:
            # The first part includes compilation, so that the rate is that of the parts after it.
            self._first = now, finished
        self._last = now
        if self._bar is not None:
            self._bar.n, self._bar.total = finished, self.total
            self._bar.set_postfix_str(state, refresh=True)
        elif self._log and now - self._last_line >= self._between:
            self._last_line = now
            title = f"{self._title}: " if self._title else ""
            self._log(f"{title}{finished} of {self.total} {self._unit}s, {state}")

    def skip(self, count: int) -> None:
        """Counts parts that took no time, because an earlier run completed them."""
        self.finished += count
        if self._first is not None:
            self._first = self._first[0], self._first[1] + count

    def close(self) -> None:
        """Removes the bar."""
        global _drawn_bars
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            _drawn_bars -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _state(self, now: float, seconds_left: float | None) -> str:
        words = []
        if self._first is not None and self.finished > self._first[1] and now > self._first[0]:
            rate = (self.finished - self._first[1]) / (now - self._first[0])
            words.append(f"{rate:.3g} {self._unit}s/s" if rate > 1 else f"{1 / rate:.3g} s/{self._unit}")
            if seconds_left is None:
                seconds_left = max(self.total - self.finished, 0) / rate
        words.append("time left not known yet" if seconds_left is None else f"{duration(seconds_left)} left")
        return ", ".join(words)


class Progress:
    """Counts the parts of a run and estimates the time left from the durations of parts of the same kind.

    Each part gives a line; in terminals and notebooks, one bar is drawn below the lines.

    Example:
    >>> with Progress(["attack", "attack", "proof"], show_progress) as progress:
    ...     progress.skip("attack")
    ...     progress.done("attack", 2.0, "28 of 128 fooled")
    [2/3] 28 of 128 fooled; 2.0 s, 2 s left

    Attributes:
      total: The number of parts.
      finished: The number of parts done, in this run or before it.
    """

    def __init__(self, kinds: Sequence[str], log: Callable[[str], None] | None, *, unit: str = "part"):
        """Initialises the counter.

        Args:
          kinds: The kind of every part; parts of a kind take about the same time.
          log: Takes each line of progress, or None.
          unit: What a part is.
        """
        self.total = len(kinds)
        self.finished = 0
        self._left = Counter(kinds)
        self._seconds: dict[str, list[float]] = {}
        self._log = log
        self._bar = Bar(self.total, unit, log=log, seconds_between_lines=float("inf"))

    def skip(self, kind: str) -> None:
        """Counts a part that an earlier run completed."""
        self._count(kind)
        self._bar.skip(1)

    def done(self, kind: str, seconds: float, text: str) -> None:
        """Counts a part that took `seconds` and logs a line."""
        self._count(kind)
        self._seconds.setdefault(kind, []).append(seconds)
        left = self.seconds_left()
        if self._log:
            words = "time left not known yet" if left is None else f"{duration(left)} left"
            # The bar shows the rest.
            line = f"{text}; {seconds:.1f} s"
            self._log(line if self._bar.drawn else f"[{self.finished}/{self.total}] {line}, {words}")
        self._bar.update(self.finished, seconds_left=left)

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, kind: str) -> None:
        self.finished += 1
        self._left[kind] -= 1

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
    """Returns a duration in words, such as "3 min 20 s".

    Example:
    >>> duration(200.3)
    '3 min 20 s'
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
