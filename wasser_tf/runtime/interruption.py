"""Graceful interruption: on a signal, a run finishes and saves the current batch before it ends."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked: signal.Signals | None = None


class Interrupted(KeyboardInterrupt):
    """The run was interrupted by a signal after its work was saved.

    Subclasses KeyboardInterrupt so that `except Exception` does not swallow it.

    Attributes:
      signal: The signal.
    """

    def __init__(self, asked: signal.Signals):
        super().__init__(f"stopped by {asked.name}")
        self.signal = asked

    @property
    def exit_code(self) -> int:
        """The shell's exit code, 128 plus the number of the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM in the block into a request to stop; a second one ends the process.

    Only the main thread receives signals; in another thread this does nothing.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked = None
    before = {number: signal.signal(number, _ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = None


def is_requested() -> bool:
    """Returns whether a signal has requested the run to stop."""
    return _asked is not None


def raise_if_requested() -> None:
    """Ends the run if a stop was requested. Call it where all work so far is saved.

    Raises:
      Interrupted: A signal has requested the run to stop.
    """
    if _asked is not None:
        raise Interrupted(_asked)


def _ask(number: int, frame: FrameType | None) -> None:
    global _asked
    del frame
    _asked = signal.Signals(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print(
        "\nStopping as soon as the batch at work is saved; a second signal stops at once.", file=sys.stderr, flush=True
    )
