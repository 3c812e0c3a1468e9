import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import time
from contextlib import suppress
from math import nan
from pathlib import Path

import pytest

from tests.tune.console.showing import Shown, ended_before

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
VALUES = {"train.learning_rate": 0.0031, "model.norm": "group"}


# ---- Plain lines ----


def plain(clock, **others):
    settings = {"total": 24, "concurrent": 2, "epochs": 8, "stream": io.StringIO(), "clock": clock}
    board = Shown("one", **{**settings, **others})
    return board, (others.get("stream") or board._view._stream._stream).getvalue


def test_a_line_for_each_trial_that_ends(clock):
    board, text = plain(clock, total=3)
    with board:
        board.begin("000", VALUES)
        board.begin("001", {**VALUES, "model.norm": "batch"})
        clock.now = 10
        board.report("000", 1, dice=0.7, best=0.7, epoch_s=5.0)
        board.report("001", 1, dice=nan, best=0.0, epoch_s=5.0)
        clock.now = 12
        board.end("001", "diverged", nan, seconds=12.0)
        board.begin("002", VALUES)
        clock.now = 45
        board.report("000", 8, dice=0.712, best=0.715, epoch_s=5.0)
        board.end("000", "completed", 0.715, seconds=45.0)
        board.end("002", "failed", None, seconds=33.0, note="\x1b[36mray::fit()\x1b[39m\nOSError: [Errno 28] no room")
    assert text().splitlines() == [
        # 000 has 7 * 5 s - 2 s left; the third takes the 12 s that 001 has taken.
        "trial 001 diverged: Dice nan after 1 epoch, 12 s (learning_rate=0.0031 norm=batch); "
        "1 of 3 ended, best 0.700 (trial 000, running), about 33 s left",
        # The mean is (12 + 45) / 2 s, and 002 has run for 33 s.
        "trial 000 completed: Dice 0.715 after 8 epochs, 45 s (learning_rate=0.0031 norm=group); "
        "2 of 3 ended, best 0.715, about 0 s left",
        "trial 002 failed: no epoch, 33 s (learning_rate=0.0031 norm=group): "
        "ray::fit() OSError: [Errno 28] no room; 3 of 3 ended, best 0.715",
        "study one: 3 of 3 trials ended, best Dice 0.715 (trial 000), 45 s",
    ]


def test_a_line_a_minute_at_most_between_them(clock):
    board, text = plain(clock, total=4, concurrent=1, epochs=100)
    board.begin("000", VALUES)
    for epoch in range(1, 19):
        clock.now += 10
        board.report("000", epoch, dice=0.5, best=0.5, epoch_s=10.0)
    told = "study one: 0 of 4 trials ended, 1 running, best Dice 0.500 (trial 000, running)"
    assert text().splitlines() == [  # (100 - epoch) * 10 s, and 3 trials of 1000 s
        f"{told}, 1 min, about 1 h 06 min left",
        f"{told}, 2 min, about 1 h 05 min left",
        f"{told}, 3 min, about 1 h 04 min left",
    ]


def test_a_budget_and_no_total(clock):
    board, text = plain(clock, total=None, hours_left=0.5)
    board.begin("000", {})
    clock.now = 300
    board.report("000", 1, dice=0.5, best=0.5, epoch_s=10.0)
    board.end("000", "stopped", 0.5, seconds=300)
    assert text().splitlines()[-1] == (
        "trial 000 stopped: Dice 0.500 after 1 epoch, 5 min; 1 ended, best 0.500, about 25 min left"
    )


def test_an_end_that_is_said_again_counts_once_and_the_last_one_stays(clock):
    board, text = plain(clock)
    board.begin("000", {})
    board.end("000", "failed", None, 1.0)
    board.end("000", "failed", None, 1.0)
    board.end("000", "failed", None, 1.0, note="MemoryError")
    assert text().splitlines() == [
        "trial 000 failed: no epoch, 1 s; 1 of 24 ended",
        "trial 000 failed: no epoch, 1 s: MemoryError; 1 of 24 ended",
    ]


def test_a_trial_that_begins_again_runs_again_from_where_it_was(clock):
    board, text = plain(clock)
    board.begin("000", VALUES)
    board.report("000", 3, dice=0.5, best=0.6, epoch_s=1.0)
    board.end("000", "failed", 0.6, 1.0, note="its process died")
    board.say("trial 000 begins again:\nits process died")
    board.begin("000", VALUES)
    with board:
        pass
    assert text().splitlines()[1:] == [
        "trial 000 begins again: its process died",
        "study one: 0 of 24 trials ended, 1 interrupted, best Dice 0.600 (trial 000, interrupted), 0 s",
    ]


def test_trials_of_earlier_processes_count(clock):
    board, text = plain(clock, ended=[ended_before(0, VALUES, dice=0.6, best=0.7)])
    with board:
        pass
    assert text() == "study one: 1 of 24 trials ended, best Dice 0.700 (trial 000), 0 s\n"


def test_an_exception_goes_through(clock):
    board, text = plain(clock)
    board.begin("000", {})
    with pytest.raises(ZeroDivisionError), board:
        1 / 0  # noqa: B018  # it is to be raised
    assert text() == "study one: 0 of 24 trials ended, 1 interrupted, 0 s\n"


def test_no_codes_where_there_is_no_terminal(clock, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    board, text = plain(clock)
    with board:
        board.begin("000", {"a": "\x1b[31mred"})
        board.end("000", "failed", None, 1.0, note="\x1b[31mred\x1b[0m")
        board.say("\x1b[1mbold")
    assert "\x1b" not in text()
    assert "(a=red): red;" in text()


def test_a_reader_that_has_gone_does_not_end_the_search(clock):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as stream:  # noqa: PTH123  # it is no path
        with Shown("one", total=1, concurrent=1, epochs=1, stream=stream, clock=clock) as board:
            board.begin("000", {})
            board.end("000", "completed", 0.5, 1.0)
        with suppress(BrokenPipeError):
            stream.close()


# ---- On a terminal ----


def screen(output, columns):
    """Return the lines that a terminal shows, those that were scrolled off it included."""
    lines, row, column = [[]], 0, 0
    for code, final, char in re.findall(r"\x1b\[([?0-9;]*)([A-Za-z])|([^\x1b])", output):
        if char == "\n":
            row += 1
            lines += [[]] * (row == len(lines))
        elif char == "\r":
            column = 0
        elif char:
            lines[row] += " " * (column - len(lines[row]))
            lines[row][column : column + 1] = char
            column += 1
            assert column <= columns
        elif final == "A":
            row -= int(code)
            assert row >= 0
        elif final == "K":
            assert code == "2"
            lines[row] = []
        else:
            assert final in "mhl"
    return ["".join(line).rstrip() for line in lines]


def start(script, columns, rows, **pipes):
    """Run a script on a new pseudo-terminal; returns the process and the terminal's other side."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    hidden = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(script)],
        cwd=ROOT,
        env={**environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
        stderr=theirs,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes},
    )
    os.close(theirs)
    return process, ours


PREAMBLE = """
import os, sys, time
from math import nan
from tests.tune.console.showing import Shown, ended_before

def board(**others):
    return Shown("one", **{"total": 24, "concurrent": 2, "epochs": 8, "clock": lambda: 720.0, **others})

def values(number):
    return {"train.learning_rate": 0.0031 * (1 + number), "model.norm": "[b]group[/b]", "train.augment.flip": True}

def leave_it_on_the_screen():
    time.sleep(0.8)  # the thread draws twice a second
    os._exit(0)
"""


def run(script, *, columns=80, rows=24):
    """Return what a script writes to a terminal, and its exit code."""
    process, ours = start(script, columns, rows)
    output, deadline = b"", time.monotonic() + 30
    with suppress(OSError):  # Linux: EIO once the other side is closed
        while time.monotonic() < deadline and (part := os.read(ours, 65536)):
            output += part
    os.close(ours)
    return output.decode(), process.wait(30)


RUNNING = """
with board() as shown:
    for number, state in enumerate(("completed", "stopped", "diverged", "failed")):
        name = f"00{number}"
        shown.begin(name, values(number))
        if state != "failed":
            shown.report(name, 8 - number, nan if state == "diverged" else 0.5 + number / 10, 0.1, 30.0)
        note = "OSError: [/no] such file" if state == "failed" else ""
        best = {"diverged": nan, "failed": None}.get(state, 0.5 + number / 10)
        shown.end(name, state, best, 240.0, note)
    shown.begin("004", values(4))
    shown.begin("005", values(5))
    shown.report("004", 4, 0.7125, 0.731, 30.0)
    shown.say("trial 004 [begins] again")
    leave_it_on_the_screen()
"""


SAID = "trial 003 failed: no epoch, 4 min (learning_rate=0.0124 norm=[b]group[/b] flip=True): OSError: [/no] such file"
# 004 ends after 4 * 30 s; 005 and the 18 to begin take 240 s each, the mean of three: 120 + 9 * 240 s, 10 * 240 s.
HEADLINE = "study one: 4 of 24 trials ended, 2 running, best Dice 0.731 (trial 004, running), 0 s, about 40 min left"
ROWS = [
    "trial  state      epoch   Dice   best  values",
    "─" * 87,
    "004    running      4/8  0.713  0.731  learning_rate=0.0155 norm=[b]group[/b] flip=True",
    "005    running      0/8      -      -  learning_rate=0.0186 norm=[b]group[/b] flip=True",
    "001    stopped      7/8  0.600  0.600  learning_rate=0.0062 norm=[b]group[/b] flip=True",
    "000    completed    8/8  0.500  0.500  learning_rate=0.0031 norm=[b]group[/b] flip=True",
    "002    diverged     6/8    nan    nan  learning_rate=0.0093 norm=[b]group[/b] flip=True",
    "003    failed       0/8      -      -  learning_rate=0.0124 norm=[b]group[/b] flip=True",
]


def test_what_stands_on_a_terminal_of_200_columns():
    output, _ = run(RUNNING, columns=200)
    assert screen(output, 200) == [SAID, "trial 004 [begins] again", HEADLINE, *ROWS]


def test_what_stands_on_a_terminal_of_80_columns():
    lines = screen(run(RUNNING, columns=80)[0], 80)
    assert " ".join(lines[:2]) == SAID
    assert " ".join(lines[3:5]) == HEADLINE
    assert lines[5:] == [row if len(row) <= 80 else "─" * 80 if row[0] == "─" else f"{row[:79]}…" for row in ROWS]


def test_no_more_rows_than_fit_and_the_running_ones_first():
    script = """
    with board(total=100, concurrent=9, ended=[ended_before(0, {}, dice=0.5, best=0.5)]) as shown:
        for number in range(1, 10):
            shown.begin(f"00{number}", {})
        leave_it_on_the_screen()
    """
    lines = screen(run(script, rows=10)[0], 80)
    assert len(lines) == 9
    assert [line[:3] for line in lines[3:]] == [f"00{number}" for number in range(1, 7)]
    lines = screen(run(script, rows=40)[0], 80)
    assert [line[:3] for line in lines[3:]] == [f"00{number}" for number in (*range(1, 10), 0)]


def test_the_last_table_has_the_best_and_stays():
    script = """
    with board(total=20) as shown:
        for number in range(20):
            shown.begin(f"{number:03d}", {"a.one": "x" * 30, "a.two": "y" * 30})
            shown.report(f"{number:03d}", 8, number / 100, number / 100, 1.0)
            shown.end(f"{number:03d}", "completed", number / 100, 8.0)
    print("and then", file=sys.stderr)
    """
    output, code = run(script, rows=12)
    assert code == 0
    lines = screen(output, 80)
    assert lines[0] == "study one: 20 of 20 trials ended, best Dice 0.190 (trial 019), 0 s"
    assert [line[:3] for line in lines[3:-2:2]] == [f"{number:03d}" for number in range(19, 4, -1)]
    assert lines[4].strip() == "two=" + "y" * 30  # nothing is cut now
    assert lines[-2:] == ["and then", ""]
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_an_exception_leaves_the_terminal_as_it_was_and_its_traceback_last():
    script = """
    with board() as shown:
        shown.begin("000", {})
        raise RuntimeError("it [broke]")
    """
    output, code = run(script)
    assert code == 1
    lines = screen(output, 80)
    assert lines[0] == "study one: 0 of 24 trials ended, 1 interrupted, 0 s"
    assert lines[3].split() == ["000", "interrupted", "0/8", "-", "-"]
    assert lines[4] == "Traceback (most recent call last):"
    assert lines[-2:] == ["RuntimeError: it [broke]", ""]
    assert output.rindex("\x1b[?25h") < output.index("Traceback")


def test_what_others_print_stands_above_the_table():
    script = """
    with board() as shown:
        shown.begin("000", {})
        print("[a] warning", file=sys.stderr)
        print("[/b] half", end="", file=sys.stderr, flush=True)
        print("for a file")
    """
    process, ours = start(script, 80, 24, stdout=subprocess.PIPE)
    assert process.communicate(timeout=30)[0] == b"for a file\n"
    lines = screen(os.read(ours, 65536).decode(), 80)
    os.close(ours)
    assert lines[:2] == ["[a] warning", "[/b] half"]
    assert lines[2].startswith("study one: ")
    assert len(lines) == 7


def test_a_terminal_without_codes_gets_lines(clock, monkeypatch):
    class Dumb(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "dumb")
    board, text = plain(clock, stream=Dumb())
    with board:
        board.begin("000", {})
        board.end("000", "failed", None, 1.0)
    assert text().splitlines() == [
        "trial 000 failed: no epoch, 1 s; 1 of 24 ended",
        "study one: 1 of 24 trials ended, 0 s",
    ]


def test_a_terminal_that_has_gone_does_not_end_the_search():
    script = """
    with board() as shown:
        shown.say("ready")
        sys.stdin.readline()
        shown.begin("000", {})
        time.sleep(1.2)
        shown.say("nobody reads this")
        shown.end("000", "failed", None, 1.0, "nor this")
    print("done")
    """
    process, ours = start(script, 80, 24, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output = ""
    while "ready" not in output:
        output += os.read(ours, 65536).decode()
    os.close(ours)
    assert process.communicate(b"\n", timeout=30)[0] == b"done\n"
    assert process.returncode == 0


def test_many_calls_beside_a_thread_that_draws_without_a_pause():
    script = """
    import sys, threading
    sys.setswitchinterval(1e-5)
    shown = board(total=50)
    shown._view._live.refresh_per_second = 1e4
    died = []
    threading.excepthook = died.append
    with shown:
        for number in range(600):
            name = f"{number % 50:03d}"
            shown.begin(name, {f"a.{number}": 1.0})
            shown.report(name, 1, 0.5, 0.5, 1.0)
            if number % 20 == 0:
                shown.say("a line")
            shown.end(name, "completed", 0.5, 1.0)
    assert not died, died
    """
    output, code = run(script)
    assert code == 0
    assert output.count("a line") == 30
    assert output.count("study one") > 30
