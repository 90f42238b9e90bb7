import pytest

from wasser_tf.runtime.progress import Progress, duration


def test_the_time_left_is_told_by_kind():
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


@pytest.mark.parametrize("seconds, words", [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7325, "2 h 2 min")])
def test_durations(seconds, words):
    assert duration(seconds) == words
