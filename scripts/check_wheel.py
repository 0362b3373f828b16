"""The wheel as people install it: built, put into a fresh environment without extras, then with them.

python scripts/check_wheel.py [--folder build/wheel]        (make wheel-test)

Without extras ``stereopsis demo`` must name what is missing, and the command that brings it, before any work; that
very command must then be enough for the demo to run to its report. Nothing of the checkout can be imported meanwhile:
work is done in an empty folder.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT = [
    *("-s", "training.steps=5", "-s", "data.sources.0.rooms=4"),
    *("-s", "evaluation.sources=[{rooms: 2, split: test}]"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "wheel", help="made anew")
    folder = parser.parse_args().folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    empty = folder / "empty"
    empty.mkdir(parents=True)
    wheel = build(folder)
    python = folder / "venv" / "bin" / "python"
    step("a fresh environment", [sys.executable, "-m", "venv", str(folder / "venv")])
    step("the wheel without extras", pip(python, str(wheel)))
    stereopsis = [str(python.with_name("stereopsis"))]
    step("the package is the wheel's", [str(python), "-c", FROM_THE_WHEEL], cwd=empty)
    step("shipped recipes are in it", [*stereopsis, "info", "stereopsis-tiny"], cwd=empty)
    refused = step("the demo without extras", [*stereopsis, "demo"], cwd=empty, fails=True)
    named = re.search(r"pip install '?\"?stereopsis\[([a-z0-9,]+)\]", refused)
    if named is None or "Making rooms" in refused or any(empty.iterdir()):
        sys.exit(
            f"'stereopsis demo' without extras must name them, with the command, before any work; it said:\n{refused}"
        )
    print(f"  it names: {named[1]}", flush=True)
    step("these extras", pip(python, f"{wheel}[{named[1]}]"))
    said = step("the demo", [*stereopsis, "demo", *SHORT], cwd=empty)
    if not (empty / "demo" / "report.html").is_file():
        sys.exit(f"the demo made no report; it said:\n{said}")
    print("the wheel works")


FROM_THE_WHEEL = """
import pathlib, sys, stereopsis
assert pathlib.Path(stereopsis.__file__).is_relative_to(sys.prefix), stereopsis.__file__
"""


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    step("building the wheel", command)
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(python: Path, what: str) -> list[str]:
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    return [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *constraints, what]


def step(name: str, command: list[str], *, cwd: Path | None = None, fails: bool = False) -> str:
    """Run a command and give what it said; ends the program where it does not end as it should."""
    start = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if (done.returncode != 0) != fails:
        sys.exit(f"{name}: {shlex.join(command)} ended with {done.returncode}:\n{said}")
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return said


if __name__ == "__main__":
    main()
