"""Jobs in processes of their own, several at the same time, and what each of them is doing.

A job is a module that is run (``python -m``) and a line of text that it reads from its standard input, whose end
means: leave. It tells what is going on in lines of JSON on its standard output. Nothing else is shared with the parent,
so scripts without a main guard and notebooks can start jobs as well, and none outlives who started it.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from stereopsis.errors import StereopsisError
from stereopsis.progress import EVERY, Phase, PhaseConsole, shows_bars
from stereopsis.reading import parse_json, read_bytes

PAUSE = 0.5
"""Seconds between two reports of a phase."""
GRACE = 2.0
"""Seconds that a process has to leave when it is told to."""
_LAST_LINES = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a process shall do.

    Attributes:
        name: for people.
        module: what is run; it calls `work_for_parent`.
        text: what the module is to do, in one line.
    """

    name: str
    module: str
    text: str


def run_side_by_side(jobs: Sequence[Job], logs: Path, *, at_once: int, console: Console | None = None) -> None:
    """Run jobs, so many at the same time; none outlives this process.

    Args:
        jobs: in the order in which they start.
        logs: folder for what the processes write to their error output.
        at_once: how many run at the same time.
        console: where to show what each is doing; None = nowhere.

    Raises:
        StereopsisError: a job failed; with its own words, or the end of its log. The others are stopped.
    """
    waiting = list(jobs)
    running: list[_Running] = []
    logs.mkdir(parents=True, exist_ok=True)
    with _display(console) as display:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(_Running(waiting.pop(0), logs, display))
                for each in [each for each in running if each.over()]:
                    running.remove(each)
                    each.check()
                display.tick()
                time.sleep(0.1)
        finally:
            for each in running:
                each.stop()


def work_for_parent(work: Callable[[str, Console], None]) -> NoReturn:
    """Do what the parent says, tell it how that goes, and leave; the main function of a job's module.

    Args:
        work: gets the job's text, and a console whose lines and phases the parent shows.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it as well, and ends this process
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to the log
    reporter = _Reporter(output)
    text = sys.stdin.readline().rstrip("\n")

    def leave_with_parent() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    code = 1
    try:
        work(text, reporter)
        code = 0
    except StereopsisError as error:
        reporter.report(error=str(error))
    except Exception:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)  # a thread still waits for the end of the input


class _Running:
    """A job's process: it hears that it shall leave by the end of its input, and says what it does in JSON lines."""

    def __init__(self, job: Job, logs: Path, display: "_Display") -> None:
        self.job, self.error = job, ""
        self.log = logs / (re.sub(r"[^\w]+", "-", job.name).strip("-") + ".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", job.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        assert self.process.stdin is not None
        self.process.stdin.write(job.text + "\n")
        self.process.stdin.flush()
        self.thread = threading.Thread(target=self._listen, args=(display,), daemon=True)
        self.thread.start()

    def _listen(self, display: "_Display") -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                event: dict[str, Any] = parse_json(line)
                self.error = event.get("error", self.error)
                display.tell(self.job.name, event)

    def over(self) -> bool:
        """Whether the process has ended and everything that it said was heard."""
        return self.process.poll() is not None and not self.thread.is_alive()

    def check(self) -> None:
        """Refuse a failed job."""
        self._close()
        if self.process.returncode == 0:
            return
        if self.error:
            raise StereopsisError(f"{self.job.name}: {self.error}")
        said = read_bytes(self.log).decode("utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        raise StereopsisError(
            f"the process for '{self.job.name}' ended with code {self.process.returncode} (out of memory, or a fault "
            f"in a library); its log is {self.log}" + "".join(f"\n  {line}" for line in said)
        )

    def stop(self) -> None:
        """Let the process go, gently first."""
        self._close()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.thread.join()

    def _close(self) -> None:
        """End its input, which tells it to leave."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class _Display:
    """Shows nothing; the others below show lines or bars."""

    def tell(self, name: str, event: dict[str, Any]) -> None:
        """A process said something."""

    def tick(self) -> None:
        """Time goes by."""


class _Lines(_Display):
    """A line when something begins or ends, and one a process every `EVERY` seconds."""

    def __init__(self, console: Console) -> None:
        self.console, self.lock = console, threading.Lock()
        self.current: dict[str, str] = {}
        self.told_at = time.monotonic()

    def tell(self, name: str, event: dict[str, Any]) -> None:
        with self.lock:
            if "line" in event:
                self._print(f"[{name}] {event['line']}")
                self.current.pop(name, None)
            elif "phase" in event:
                self.current[name] = f"  [{name}] {event['phase']}: {event['status']}"

    def tick(self) -> None:
        with self.lock:
            if time.monotonic() - self.told_at >= EVERY:
                for line in self.current.values():
                    self._print(line)
                self.told_at = time.monotonic()

    def _print(self, line: str) -> None:
        self.told_at = max(self.told_at, time.monotonic() - EVERY / 2)
        self.console.print(escape(line), highlight=False, soft_wrap=True)


class _Bars(_Display):
    """A bar a process; what has ended leaves a line."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console, self.progress, self.lock = console, progress, threading.Lock()
        self.tasks: dict[str, TaskID] = {}

    def tell(self, name: str, event: dict[str, Any]) -> None:
        with self.lock:
            if "line" in event and not event.get("begins"):
                self.console.print(escape(f"[{name}] {event['line']}"), highlight=False, soft_wrap=True)
            if ("line" in event or "error" in event) and name in self.tasks:
                self.progress.remove_task(self.tasks.pop(name))
            if "phase" in event:
                if name not in self.tasks:
                    self.tasks[name] = self.progress.add_task(escape(f"[{name}] {event['phase']}"), line="")
                self.progress.update(
                    self.tasks[name],
                    description=escape(f"[{name}] {event['phase']}"),
                    total=event["total"],
                    completed=event["done"],
                    line=escape(event["status"]),
                )


@contextlib.contextmanager
def _display(console: Console | None) -> Iterator[_Display]:
    if console is None:
        yield _Display()
    elif not shows_bars(console):
        yield _Lines(console)
    else:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[line]}"))
        with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
            yield _Bars(console, progress)


class _Reporter(PhaseConsole):
    """A console whose lines and phases go to the other side."""

    def __init__(self, output: io.TextIOBase) -> None:
        super().__init__(file=io.StringIO(), width=200)
        self.output, self.lock = output, threading.Lock()

    def report(self, **event: Any) -> None:
        """Say something to the other side."""
        with self.lock:
            self.output.write(json.dumps(event) + "\n")
            self.output.flush()

    def print(self, *objects: Any, **options: Any) -> None:
        """Lines as they would stand in a log."""
        plain = Console(file=io.StringIO(), width=200)
        plain.print(*objects, **options)
        for line in plain.file.getvalue().splitlines():  # type: ignore[attr-defined]
            self.report(line=line)

    @contextlib.contextmanager
    def shown(self, current: Phase, expected: float | int | None) -> Iterator[None]:
        """Report a phase every `PAUSE` seconds."""
        over = threading.Event()

        def tell() -> None:
            while not over.wait(PAUSE):
                self.report(phase=current.what, done=current.done, total=current.total, status=current.line())

        thread = threading.Thread(target=tell, name="progress", daemon=True)
        self.report(line=current.start_line(expected), begins=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.report(line=current.end_line())
