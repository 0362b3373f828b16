"""How every command shows what it is doing: phases that say what, how much and how long.

On a terminal a phase is a bar, and a line stays when it ends. Elsewhere (a file, a pipe, CI, a notebook) it is plain
lines: one at the start, one every `EVERY` seconds or `SHARE` of the work, one at the end. Nothing is shown without a
console, so that library code may always be told of phases.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

EVERY = 10.0
"""Seconds between plain lines, at most."""

SHARE = 0.05
"""A plain line may come earlier where so much of the work was done since the last one, but not within `PAUSE`."""

PAUSE = 2.0
"""Seconds between plain lines, at least."""

GROWTH = 1 / 360
"""After an hour, lines come at this share of the time that has gone by: a week's log stays readable."""

SHORT = 3.0
"""Seconds; a phase without a count that took less leaves no second line."""

Item = TypeVar("Item")


class PhaseConsole(Console):
    """A console that shows phases in a way of its own, for example to another process."""

    def shown(self, current: "Phase", expected: float | int | None) -> contextlib.AbstractContextManager[None]:
        """Show a phase while it goes on."""
        raise NotImplementedError


def duration(seconds: float | int) -> str:
    """Seconds as people say them: "12 s", "3 min 05 s", "2 h 10 min", "3 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def shows_bars(console: Console) -> bool:
    """Whether lines can be drawn over: a real terminal, whatever FORCE_COLOR pretends, and no notebook."""
    isatty = getattr(console.file, "isatty", None)
    return bool(isatty and isatty()) and console.is_interactive and not console.is_dumb_terminal


@dataclasses.dataclass(kw_only=True)
class Phase:
    """One piece of work, and how far it is.

    Attributes:
        what: in words, e.g. "Making rooms".
        total: how much there is; None = not countable.
        unit: what is counted, in the plural.
        done: how much is done.
        note: what else to show, e.g. the losses.
        began: time.monotonic() at the start.
    """

    what: str
    total: int | None = None
    unit: str = ""
    done: int = 0
    note: str = ""
    began: float | int = dataclasses.field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._from, self._first, self._done_then = self.done, 0.0, self.done

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.done += count
        if not self._first:
            self._first, self._done_then = time.monotonic(), self.done

    def show(self, values: Mapping[str, float]) -> None:
        """Values to show beside the count, e.g. ``{"text": 2.31}``."""
        self.note = ", ".join(f"{name} {value:.3g}" for name, value in values.items())

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds that it will still take; None where that cannot be told yet.

        From the second item on the first one does not count: it warms up caches and libraries.
        """
        if self.total is None or self.done <= self._from:
            return None
        if self.done > self._done_then:
            pace = (time.monotonic() - self._first) / (self.done - self._done_then)
        else:
            pace = (self._first - self.began) / (self.done - self._from)
        return max(0.0, pace * (self.total - self.done))

    @property
    def amount(self) -> str:
        """How much there is: "200 rooms", or nothing."""
        unit = self.unit.removesuffix("s") if self.total == 1 else self.unit
        return "" if self.total is None else f"{self.total} {unit}".strip()

    def start_line(self, expected: float | int | None = None) -> str:
        """What a log says first."""
        parts = [part for part in (self.amount, f"about {duration(expected)}" if expected else "") if part]
        return f"{self.what}: {', '.join(parts)}" if parts else self.what

    def line(self) -> str:
        """What a log says in between."""
        if self.total is None:
            return ", ".join(part for part in (f"{duration(self.elapsed)} so far", self.note) if part)
        share = f" ({100 * self.done // max(1, self.total)} %)"
        left = self.left
        parts = [f"{self.done} of {self.amount}{share}", duration(self.elapsed)]
        if left is not None:
            parts.append(f"{duration(left)} left")
        return ", ".join(parts) + (f"; {self.note}" if self.note else "")

    def end_line(self) -> str:
        """What stays when it is over."""
        amount = f"{self.amount}, " if self.total is not None else ""
        return f"{self.what}: {amount}done in {duration(self.elapsed)}" + (f"; {self.note}" if self.note else "")


@contextlib.contextmanager
def phase(
    what: str,
    total: int | None = None,
    unit: str = "",
    *,
    console: Console | None,
    expected: float | int | None = None,
    done: int = 0,
) -> Iterator[Phase]:
    """Show a piece of work while it goes on.

    Args:
        what: in words, e.g. "Making rooms".
        total: how much there is; None = not countable.
        unit: what is counted, in the plural.
        console: where to show it; None = nowhere.
        expected: seconds that it will take, where the caller knows.
        done: how much was done before.
    """
    current = Phase(what=what, total=total, unit=unit, done=done)
    if console is None or total == 0:
        yield current
    elif isinstance(console, PhaseConsole):
        with console.shown(current, expected):
            yield current
    elif shows_bars(console):
        with _Bar(console, current, expected):
            yield current
        _say(console, current.end_line())
    else:
        _say(console, current.start_line(expected))
        with _Lines(console, current):
            yield current
        if total is not None or current.elapsed >= SHORT:
            _say(console, current.end_line())


def tracked(
    items: Iterable[Item],
    what: str,
    unit: str,
    *,
    console: Console | None,
    total: int | None = None,
    expected: float | int | None = None,
) -> Iterator[Item]:
    """Iterate, and show how far that is.

    Args:
        items: the work.
        what: see `phase`.
        unit: see `phase`.
        console: see `phase`.
        total: how many items; None = their length, where they have one.
        expected: see `phase`.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    with phase(what, count, unit, console=console, expected=expected) as current:
        for item in items:
            yield item
            current.advance()


def say(console: Console | None, text: str) -> None:
    """One plain line, unwrapped, without highlighting; nothing without a console."""
    if console is not None:
        _say(console, text)


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)


class _Lines:
    """Plain lines from a thread of its own, so that they come while one item takes minutes."""

    def __init__(self, console: Console, current: Phase) -> None:
        self.console, self.current, self.over = console, current, threading.Event()
        self.thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join()

    def _run(self) -> None:
        current, told, told_at = self.current, self.current.done, time.monotonic()
        while not self.over.wait(0.2):
            waited, limit = time.monotonic() - told_at, max(EVERY, GROWTH * current.elapsed)
            enough = current.total and current.done - told >= max(1, SHARE * current.total) and limit == EVERY
            if waited >= limit or (enough and waited >= PAUSE):
                if current.done == current.total:
                    continue  # the last line is about to come
                _say(self.console, f"  {current.line()}")
                told, told_at = current.done, time.monotonic()


class _Bar:
    """A bar that is redrawn in place, and gone when the phase is over."""

    def __init__(self, console: Console, current: Phase, expected: float | int | None) -> None:
        columns = [BarColumn(bar_width=30)] if current.total is not None else [SpinnerColumn()]
        self.progress = Progress(
            TextColumn("{task.description}"), *columns, TextColumn("{task.fields[line]}"), console=console,
            transient=True, refresh_per_second=4, get_time=time.monotonic,
        )  # fmt: skip
        self.current, self.over = current, threading.Event()
        self.expected = expected
        self.thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self.task: TaskID = self.progress.add_task(
            escape(self.current.what), total=self.current.total, line=self._line(), completed=self.current.done
        )
        self.progress.start()
        self.thread.start()

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join()
        self.progress.stop()

    def _line(self) -> str:
        early = self.expected is not None and self.current.left is None
        return escape(self.current.line() + (f", about {duration(self.expected or 0)} in all" if early else ""))

    def _run(self) -> None:
        while not self.over.wait(0.25):
            self.progress.update(self.task, completed=self.current.done, line=self._line())
