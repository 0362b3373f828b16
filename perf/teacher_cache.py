"""Does host memory stay flat while training reads packs and teachers' answers from disk, and what does a read cost?

Trains stereopsis-tiny's objectives at the visual tokens (alignment, cross-view, bird's-eye view) once through 50 and
once through 300 procedural rooms, packs on disk and packs in memory, each run in a process of its own; prints the
resident memory and what asking, checking and reading cost per scene.

Run: python perf/teacher_cache.py [--scenes 50 300] [--folder DATA] [--output results/perf_teacher_cache.json]
"""

import argparse
import datetime
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
BATCH = 4


def memory() -> dict[str, float]:
    """Resident MB of this process: in total, its own, and pages of mapped files (which the system may drop)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if line.startswith(("VmRSS", "Rss"))}
    return {"total": values["VmRSS"], "own": values["RssAnon"], "mapped": values["RssFile"]}


class Watch(threading.Thread):
    """Samples the memory five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, dict[str, float]]] = []
        self.done = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.done.wait(0.2):
            self.samples.append((time.monotonic(), memory()))

    def during(self, start: float, end: float) -> dict[str, float]:
        """Largest of each kind in a span of time."""
        found = [sample for at, sample in self.samples if start <= at <= end] or [memory()]
        return {key: round(max(sample[key] for sample in found), 1) for key in found[0]}


def child(scenes: int, mode: str, folder: Path, run: Path) -> dict[str, Any]:
    """One training; returns what was measured."""
    import torch

    from stereopsis.packs.dataset import PackDataset
    from stereopsis.training.build import build_model, build_teachers
    from stereopsis.training.recipe_packs import build_packs
    from stereopsis.training.train_run import train

    torch.set_num_threads(1)
    recipe = recipe_of(scenes, folder, cached=mode == "disk")
    model, teachers = build_model(recipe), build_teachers(recipe)
    gc.collect()
    before = memory()
    watch = Watch()
    watch.start()
    start = time.monotonic()
    packs = build_packs(recipe, model, teachers, recipe.data.sources)
    built = time.monotonic()
    reads = []
    for index in range(scenes):
        at = time.perf_counter()
        pack = packs[index]
        sum(float(t.sum()) for t in (pack.images, *pack.view_targets.values()))  # every page is used
        reads.append(time.perf_counter() - at)
    del model, pack
    trained = time.monotonic()
    train(recipe, run, packs=packs, progress=False)
    end = time.monotonic()
    third = (end - trained) / 3
    watch.done.set()
    dataset = PackDataset(packs, conversations=1)
    return {
        "scenes": scenes,
        "packs": mode,
        "items": len(dataset),
        "before_mb": {key: round(value, 1) for key, value in before.items()},
        "while_building_mb": watch.during(start, built),
        "first_third_of_training_mb": watch.during(trained, trained + third),
        "last_third_of_training_mb": watch.during(end - third, end),
        "building_ms_per_scene": round(1000 * (built - start) / scenes, 1),
        "reading_ms_per_scene": round(1000 * statistics.median(reads), 2),
        "training_seconds": round(end - trained, 1),
    }


def recipe_of(scenes: int, folder: Path, *, cached: bool) -> Any:
    from stereopsis.training.recipe import load_recipe

    overrides = [
        f"data.sources=[{{rooms: {scenes}, text: false}}]",
        f"data.cache={folder / 'rooms'}",
        "objectives.text=null",
        "objectives.grounding=null",
        f"training.scenes={BATCH}",
        f"training.steps={-(-scenes // BATCH)}",
        "training.precision=fp32",
        "training.threads=1",
    ]
    if cached:
        overrides += [f"teachers.cache={folder / 'cache'}", "teachers.online=false"]
    return load_recipe("stereopsis-tiny", overrides)


def runs(sizes: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    for mode in ("disk", "memory"):
        for scenes in sizes:
            with tempfile.TemporaryDirectory() as run:
                command = [sys.executable, __file__, "--child", f"{scenes}", mode, "--folder", str(folder)]
                done = subprocess.run([*command, "--run", f"{run}/run"], check=True, stdout=subprocess.PIPE, text=True)
            yield json.loads(done.stdout.splitlines()[-1])


def fill(scenes: int, folder: Path) -> dict[str, Any]:
    """Make rooms and cache; how long the teachers take, and how large the files are."""
    from stereopsis.training.recipe_packs import fill_cache
    from stereopsis.training.sources import folders_of

    recipe = recipe_of(scenes, folder, cached=True)
    folders_of(recipe.data.sources[0], recipe.data.cache_folder)
    start = time.monotonic()
    report = fill_cache(recipe, device="cpu")
    seconds = time.monotonic() - start
    start = time.monotonic()
    fill_cache(recipe, device="cpu")
    return {
        "filling_ms_per_scene": round(1000 * seconds / scenes, 1),
        "filling_again_ms_per_scene": round(1000 * (time.monotonic() - start) / scenes, 1),
        "kb_per_scene": {f.what: round(f.bytes / f.scenes / 1000, 1) for f in report.folders},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--folder", type=Path, help="where rooms and cache go; left out, a temporary folder")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(int(arguments.child[0]), arguments.child[1], arguments.folder, arguments.run)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        facts = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": " ".join(sys.argv),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "load_average": round(os.getloadavg()[0], 1),
            "seed": 0,
            **fill(max(arguments.scenes), folder),
        }
        print(json.dumps(facts, indent=1))
        rows = []
        for row in runs(arguments.scenes, folder):
            rows.append(row)
            print(json.dumps(row))
    if arguments.output:
        arguments.output.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
