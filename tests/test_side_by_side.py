"""Jobs in processes of their own: shown by name, stopped together, and none left behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from stereopsis.errors import StereopsisError
from stereopsis.side_by_side import Job, run_side_by_side

WORKER = """
import sys, time
from stereopsis.errors import StereopsisError
from stereopsis.progress import phase, say
from stereopsis.side_by_side import work_for_parent

def work(text, console):
    print("noise of a library")
    if text == "mistake":
        raise StereopsisError("no such thing")
    if text == "fault":
        raise KeyError("inside")
    if text == "sleep":
        time.sleep(600)
    if text == "die":
        import os
        os._exit(9)
    with phase("Counting", 3, "steps", console=console) as current:
        for _ in range(3):
            time.sleep(float(text))
            current.show({"text": 0.5})
            current.advance()
    say(console, "[b]counted[/b]")

work_for_parent(work)
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    (tmp_path / "some_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return "some_worker"


@pytest.fixture
def run(module, tmp_path):
    def go(*texts, at_once=2):
        out = io.StringIO()
        jobs = [Job(name=f"{i} {text}", module=module, text=text) for i, text in enumerate(texts)]
        try:
            run_side_by_side(jobs, tmp_path / "logs", at_once=at_once, console=Console(file=out, width=200))
        finally:
            go.shown = out.getvalue().splitlines()
        return go.shown

    return go


def test_every_line_says_whose_it_is(run):
    shown = run("0.01", "0.02")
    for name in ("0 0.01", "1 0.02"):
        mine = [line for line in shown if line.startswith(f"[{name}] ")]
        assert mine[0] == f"[{name}] Counting: 3 steps"
        assert mine[1].startswith(f"[{name}] Counting: 3 steps, done in")
        assert mine[1].endswith("text 0.5")
        assert mine[2] == f"[{name}] [b]counted[/b]"
    assert not any("noise" in line for line in shown)


def test_while_it_lasts_each_says_how_far_it_is(run, monkeypatch):
    monkeypatch.setattr("stereopsis.side_by_side.EVERY", 0.5)
    between = [line for line in run("1", at_once=1) if line.startswith("  [0 1] Counting: ")]
    assert between
    assert "of 3 steps" in between[0]


def test_noise_of_libraries_goes_to_the_log(run, tmp_path):
    run("0")
    assert (tmp_path / "logs" / "0-0.log").read_text() == "noise of a library\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mistake", r"^1 mistake: no such thing$"),
        ("fault", r"(?s)process for '1 fault' ended with code 1.*KeyError: 'inside'"),
        ("die", r"process for '1 die' ended with code 9"),
    ],
)
def test_a_failed_job_says_why_and_stops_the_others(run, text, said):
    others = set(_children())  # of the test runner
    with pytest.raises(StereopsisError, match=said):
        run("sleep", text)
    assert not set(_children()) - others


def test_jobs_start_in_their_order_as_many_as_may(run):
    shown = run("0", "0", "0", at_once=1)
    starts = [line[1] for line in shown if line.endswith("Counting: 3 steps")]
    assert starts == ["0", "1", "2"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes under /proc")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_no_job_outlives_its_parent(module, tmp_path, by):
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a runner may ignore it
        "from pathlib import Path; from rich.console import Console\n"
        "from stereopsis.side_by_side import Job, run_side_by_side\n"
        f"job = Job(name='long', module={module!r}, text='sleep')\n"
        f"run_side_by_side([job], Path({str(tmp_path)!r}), at_once=1, console=Console())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 60
        while not (children := _children(parent.pid)) or not (tmp_path / "long.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(by)
        parent.wait(60)
        while any(map(_alive, children)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_protocol_is_json_lines(module, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", module], input="0\n", capture_output=True, text=True, env=os.environ.copy(), check=False
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    # the input ends with the job: the process may be told to leave before it has finished
    assert all(event.keys() & {"line", "phase", "error"} for event in events)


def _children(of: int | None = None) -> list[int]:
    """Processes whose parent is this one, zombies apart."""
    parent, found = of or os.getpid(), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(path.parent.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
