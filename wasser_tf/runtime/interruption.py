"""Stopping by a signal: the batch at work is finished and saved, and only then does the run end."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked: signal.Signals | None = None


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and what it had done is saved. No `except Exception` on its way shall catch it.

    Attributes:
      signal: What asked.
    """

    def __init__(self, asked: signal.Signals):
        super().__init__(f"stopped by {asked.name}")
        self.signal = asked

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Makes the first SIGINT or SIGTERM in the block a request, which `check` answers; a second one ends the process.

    Signals are the main thread's: in another one nothing is watched.
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
    """Whether a signal has asked the run to stop."""
    return _asked is not None


def raise_if_requested() -> None:
    """Ends the run if it was asked to stop. To be called where everything that was done is saved.

    Raises:
      Interrupted: It was.
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
