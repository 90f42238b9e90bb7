import io
import sys
import types

import pytest

from wasser_tf.runtime import progress as progress_module
from wasser_tf.runtime.progress import Bar, Progress, duration, show_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """Returns the lines that are left on the screen, and every state of the last line."""
        lines, states = [""], []
        for part in self.getvalue().replace("\x1b[A", "").split("\n"):
            for state in part.split("\r"):
                if state:
                    lines[-1] = state + lines[-1][len(state) :]
                    states.append(state.rstrip())
            lines.append("")
        return [line.rstrip() for line in lines if line.strip()], states


def set_clock(monkeypatch, times):
    """Sets the times at which the clock of the module is read."""
    times = iter(times)
    monkeypatch.setattr(progress_module, "time", types.SimpleNamespace(monotonic=lambda: float(next(times))))


def open_terminal(monkeypatch):
    """Replaces standard output by a terminal, and the clock by one that gains a second with each look."""
    made = Terminal()
    # In the test itself: pytest replaces standard output after fixtures.
    monkeypatch.setattr(sys, "stdout", made)
    set_clock(monkeypatch, range(1000))
    return made


def test_a_terminal_has_one_bar_with_rate_and_time_left_and_it_disappears(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Bar(7, "image", "Attack") as bar:
        assert bar.drawn
        for finished in (2, 4, 7):
            bar.update(finished)
    left, states = terminal.screen()
    assert left == [] and "\n" not in terminal.getvalue()
    states = [state for state in states if state]
    assert states[0].startswith("Attack:   0% |") and states[0].endswith("| 0/7 images")
    assert states[1].endswith("| 2/7 images, time left not known yet")
    # 2 images in the second after the first batch.
    assert states[2].startswith("Attack:  57% |") and states[2].endswith("| 4/7 images, 2 images/s, 2 s left")
    assert states[3].endswith("| 7/7 images, 2.5 images/s, 0 s left") and len(states) == 4


def test_lines_stay_above_the_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Progress(["a", "a", "a"], show_progress, unit="cell") as progress:
        progress.done("a", 3.0, "one")
        progress.done("a", 3.0, "two")
    show_progress("end")
    left, states = terminal.screen()
    assert left == ["one; 3.0 s", "two; 3.0 s", "end"]
    assert [state.partition("| ")[2] for state in states if "2/3" in state] == ["2/3 cells, 1 s/cell, 3 s left"]


def test_an_error_removes_the_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with pytest.raises(KeyError), Bar(7, "image") as bar:
        bar.update(1)
        raise KeyError
    show_progress("end")
    assert terminal.screen()[0] == ["end"]


def test_a_log_has_lines_from_time_to_time(capsys, monkeypatch):
    set_clock(monkeypatch, [0.0, 30.0, 70.0, 90.0, 140.0])
    with Bar(40, "image", "Attack") as bar:
        assert not bar.drawn
        for finished in (10, 20, 30, 40):
            bar.update(finished)
    assert capsys.readouterr().out == (
        "Attack: 20 of 40 images, 4 s/image, 1 min 20 s left\nAttack: 40 of 40 images, 3.67 s/image, 0 s left\n"
    )


def test_a_notebook_has_a_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    with Bar(2, "image") as bar:
        bar.update(1)
    assert "| 1/2 images" in capsys.readouterr().out


def test_quiet_runs_and_other_logs_have_no_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    told = []
    with Bar(2, "image", log=told.append, seconds_between_lines=0) as bar:
        bar.update(1)
    with Bar(2, "image", log=None, seconds_between_lines=0) as bar:
        bar.update(1)
    progress_module.set_quiet(True)
    try:
        with Bar(2, "image", seconds_between_lines=0) as bar:
            bar.update(1)
    finally:
        progress_module.set_quiet(False)
    assert not terminal.getvalue() and told == ["1 of 2 images, time left not known yet"]


def test_parts_of_an_earlier_run_do_not_count_in_the_rate(monkeypatch):
    told = []
    set_clock(monkeypatch, [0, 1, 5])
    with Bar(12, "image", log=told.append, seconds_between_lines=0) as bar:
        bar.update(2)
        bar.skip(4)
        assert bar.finished == 6
        bar.update(8)
    assert told[1] == "8 of 12 images, 2 s/image, 8 s left"


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
