"""How long the command line takes to say something: help, a scene's facts, the first line of a run.

    python perf/startup.py --output results/perf_startup.json

Each command is started in a process of its own, `--repeats` times after one start that warms the disk's cache.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stereopsis.scenes.prepare import PrepareSettings, Room, prepare
from stereopsis.training.train_run import environment

LIMITS = {"--help": 1.0, "train --help": 1.0, "info SCENE": 3.0, "first line of train": 1.0}
"""Seconds."""


def whole(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def first_line(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        took = time.perf_counter() - began
        child.terminate()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = prepare([Room(seed=0)], folder / "rooms", PrepareSettings(), workers=1).folders[0]
        commands = {
            "--help": ["--help"],
            "train --help": ["train", "--help"],
            "info SCENE": ["info", str(scene)],
            "first line of train": ["train", "stereopsis-tiny", "-o", "run", "-s", "data.sources.0.rooms=1"],
        }
        for what, words in commands.items():
            command = [sys.executable, "-m", "stereopsis", *words]
            measure = first_line if what.startswith("first") else whole
            times = [measure(command, folder) for _ in range(args.repeats + 1)][1:]
            found[what] = {"seconds": [round(t, 2) for t in times], "limit": LIMITS[what]}
            print(f"{what}: {min(times):.2f} to {max(times):.2f} s (limit {LIMITS[what]:.0f} s)")
    if args.output is not None:
        args.output.write_text(json.dumps({**environment(), "commands": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
