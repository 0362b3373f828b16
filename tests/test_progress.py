"""Phases: a bar that leaves a line on a terminal, plain lines elsewhere, and nothing that a file could not show."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from stereopsis import progress
from stereopsis.progress import Phase, duration, phase, shows_bars, tracked

SCRIPT = """
import time
from rich.console import Console
from stereopsis.progress import phase
with phase("Baking", 3, "loaves", console=Console()) as shown:
    for _ in range(3):
        time.sleep(0.35)
        shown.advance()
        shown.show({"crumb": 0.25})
print("eaten")
"""


@pytest.fixture
def plain() -> Console:
    return Console(file=io.StringIO(), width=40)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 01 min"),
        (180000, "2 d 2 h"),
    ],
)
def test_seconds_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_a_phase_says_what_how_much_and_how_long_before_it_starts(plain):
    with phase("Making rooms", 200, "rooms", console=plain, expected=95):
        assert lines(plain) == ["Making rooms: 200 rooms, about 1 min 35 s"]
    assert lines(plain)[1:] == ["Making rooms: 200 rooms, done in 0 s"]


def test_lines_come_by_time_and_by_share_with_what_is_left(plain, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.6)
    monkeypatch.setattr(progress, "PAUSE", 0.1)
    with phase("Training", 40, "steps", console=plain) as shown:
        time.sleep(1.0)  # nothing is done, and yet there is a line
        shown.show({"text": 2.3456, "cross_view": 0.5})
        for _ in range(20):
            time.sleep(0.05)
            shown.advance()
    first, *between, last = lines(plain)
    assert first == "Training: 40 steps"
    assert between[0] == "  0 of 40 steps (0 %), 1 s"
    assert last == "Training: 40 steps, done in 2 s; text 2.35, cross_view 0.5"
    assert len(between) >= 4
    told = re.compile(r"  (\d+) of 40 steps \((\d+) %\), \d s(, \d+ s left)?; text 2.35, cross_view 0.5")
    counts = [int(found[1]) for line in between[1:] if (found := told.fullmatch(line))]
    assert len(counts) == len(between) - 1
    assert counts == sorted(counts)


def test_a_long_log_gets_rarer_lines(plain, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.3)
    with phase("Waiting", console=plain) as shown:
        shown.began -= 360 * 60.0  # as if it had gone on for six hours: a line a minute
        time.sleep(1.0)
    assert [line for line in lines(plain) if line.startswith("  ")] == []


def test_what_takes_no_time_leaves_one_line(plain):
    with phase("Loading", console=plain):
        pass
    assert lines(plain) == ["Loading"]


def test_time_left_leaves_the_first_item_out(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = Phase(what="x", total=11, unit="steps", done=0, began=100.0)
    assert shown.left is None
    now = 130.0
    shown.advance()
    assert shown.left == pytest.approx(300)  # all that is known
    now = 132.0
    shown.advance()
    assert shown.left == pytest.approx(9 * 2)


def test_a_resumed_phase_counts_from_where_it_was(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = Phase(what="x", total=100, unit="steps", done=90, began=0.0)
    assert shown.left is None
    now = 10.0
    shown.advance(5)
    assert shown.left == pytest.approx(10)


def test_without_a_console_nothing_is_shown_and_no_thread_runs(capsys):
    before = threading.active_count()
    assert list(tracked([1, 2], "Counting", "numbers", console=None)) == [1, 2]
    with phase("Counting", 3, console=None):
        assert threading.active_count() == before
    assert capsys.readouterr() == ("", "")


def test_after_an_error_no_thread_runs_and_nothing_is_called_done(plain):
    before = threading.active_count()
    with pytest.raises(KeyError), phase("Counting", 3, "numbers", console=plain):
        raise KeyError("x")
    assert threading.active_count() == before
    assert lines(plain) == ["Counting: 3 numbers"]


def test_iterating_counts(plain):
    assert list(tracked(iter("ab"), "Counting", "letters", console=plain, total=2)) == ["a", "b"]
    assert lines(plain) == ["Counting: 2 letters", "Counting: 2 letters, done in 0 s"]
    assert list(tracked([], "Counting", "letters", console=plain)) == []
    assert len(lines(plain)) == 2


def test_words_are_not_markup(plain):
    with phase("[red]x[/red]", 1, "[a]", console=plain):
        pass
    assert lines(plain)[0] == "[red]x[/red]: 1 [a]"


def test_colours_in_a_file_make_no_bar(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console(file=io.StringIO())
    assert console.is_terminal  # rich believes the variable
    assert not shows_bars(console)


def test_a_file_holds_lines_and_no_carriage_returns():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, timeout=60, check=True)
    assert b"\r" not in done.stdout
    assert b"\x1b" not in done.stdout
    assert done.stdout.decode().splitlines() == [
        "Baking: 3 loaves",
        "Baking: 3 loaves, done in 1 s; crumb 0.25",
        "eaten",
    ]
    assert done.stderr == b""


def test_a_terminal_shows_a_bar_that_leaves_a_line():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        said += piece
    assert child.wait(timeout=60) == 0
    os.close(ours)
    text = said.decode()
    assert "━" in text
    assert re.search(r"[12] of 3 loaves \(\d+ %\)", text)
    shown = on_screen(text)
    assert shown == ["Baking: 3 loaves, done in 1 s; crumb 0.25", "eaten"]
    assert text.rstrip().endswith("eaten")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back


def on_screen(text: str) -> list[str]:
    """What a terminal shows in the end: carriage returns, cursor up and erase to the line's end are obeyed."""
    rows, row = [""], 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            if row == len(rows):
                rows.append("")
        elif part.startswith("\x1b"):
            if part.endswith("A"):
                row -= int(part[2:-1] or 1)
            elif part.endswith("K"):
                rows[row] = ""
        elif part != "\r":
            rows[row] += part
    return [each.rstrip() for each in rows if each.strip()]
