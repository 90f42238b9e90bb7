import signal
import threading

import pytest

from wasser_tf.runtime import interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_ends_the_process(number, capsys):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with interruption.watched():
        interruption.raise_if_requested()
        assert not interruption.is_requested()
        signal.raise_signal(number)
        assert interruption.is_requested() and "Stopping as soon as" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(interruption.Interrupted, match=f"stopped by {number.name}") as stopped:
            interruption.raise_if_requested()
        assert stopped.value.signal == number and stopped.value.exit_code == 128 + number
        assert isinstance(stopped.value, KeyboardInterrupt)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    # It is forgotten, and by the next run too.
    interruption.raise_if_requested()
    assert not interruption.is_requested()


def test_signal_handlers_are_restored_after_errors_and_set_in_the_main_thread_only():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), interruption.watched():
        assert signal.getsignal(signal.SIGTERM) is not before
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def watch():
        with interruption.watched():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == [before]
