import pytest

from wasser_tf.runtime import progress as progress_module
from wasser_tf.runtime.progress import Progress, duration


def test_the_time_left_is_estimated_by_kind():
    told = []
    progress = Progress(["quick"] * 3 + ["slow"] * 3, told.append)
    progress.done("quick", 9, "compiled")
    assert progress.seconds_left() is None
    progress.done("quick", 1, "second")
    # One quick part of 1 s is left, and three slow ones, thought to be as quick until more is known.
    assert progress.seconds_left() == 4
    progress.skip("slow")
    progress.done("slow", 30, "compiled")
    progress.done("slow", 10, "last")
    assert progress.seconds_left() == 1
    progress.done("quick", 1, "done")
    assert progress.seconds_left() == 0
    assert told[0] == "[1/6] compiled; 9.0 s, time left not known yet"
    assert told[-1] == "[6/6] done; 1.0 s, 0 s left"


def test_the_estimate_is_the_mean_time_without_the_first_part():
    progress = Progress(["a"] * 5 + ["b", "c"], None)
    for seconds in (90, 2, 4):
        progress.done("a", seconds, "")
    # Of the others nothing is known: they count as the mean of what is.
    assert progress.seconds_left() == 2 * 3 + 3 + 3
    progress.done("b", 9, "")
    assert progress.seconds_left() == 2 * 3 + (3 + 9) / 2 and (progress.finished, progress.total) == (4, 7)
    assert Progress([], None).seconds_left() == 0


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (7325, "2 h 2 min"),
        (36_000 + 59 * 60, "10 h 59 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_progress_can_be_turned_off(capsys):
    try:
        progress_module.set_quiet(True)
        progress_module.show_progress("not shown")
        assert progress_module.is_quiet()
    finally:
        progress_module.set_quiet(False)
    progress_module.show_progress("shown", end="")
    assert capsys.readouterr().out == "shown"
