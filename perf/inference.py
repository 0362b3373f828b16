"""Do reconstruction and alignment cost anything at inference? Two models, trained with everything and with nothing.

Both take a training step of rate zero from the same base, so that they answer alike (other answers would be shorter or
longer), are saved, and are opened again as every user opens them. Then the same questions are asked of both, in turns,
so that a busy machine slows both alike.
Writes results/perf_inference.json.

Run: python perf/inference.py [--repeats 9] [--views 8] [--questions 24]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch

from stereopsis.files import write_atomic
from stereopsis.models.inference import EnteredScene
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model
from stereopsis.packs.build import build_pack
from stereopsis.scenes.stored import write_scene
from stereopsis.training.recipe import load_recipe
from stereopsis.training.sources import open_folder
from stereopsis.training.train_run import MODEL_FOLDER, environment, train

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {"with all objectives": "stereopsis-tiny", "with none of them": "baseline-tiny"}


def make_rooms(folder: Path, count: int) -> None:
    """A few rooms, made in this process."""
    from stereopsis.scenes.prepare.sources import prepared_room

    for seed in range(count):
        room = prepared_room(seed)
        write_scene(room, folder / room.id)


def parameters(model: SpatialModel) -> dict[str, Any]:
    """How many numbers a model holds, and how many modules of which kind."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "buffers": sum(b.numel() for b in model.buffers()),
        "modules": sum(1 for _ in model.modules()),
        "bytes": sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())),
    }


def ask(model: SpatialModel, pack: Any) -> float:
    """Seconds to enter a scene and to answer and point in it."""
    start = time.perf_counter()
    room = EnteredScene(model, pack)
    room.answer([c for c in pack.conversations if not c.grounds], max_new_tokens=16)
    room.score_proposals([c for c in pack.conversations if c.grounds])
    return time.perf_counter() - start


def open_pack(model: SpatialModel, rooms: Path, views: int, questions: int) -> Any:
    config = model.pack_config(views=views, tasks=("sqa3d", "scanqa", "scanrefer"), proposals="detector")
    pack = build_pack(open_folder(rooms)[0], config)
    return pack.replace(conversations=pack.conversations[:questions])


def peak(model: Path, rooms: Path, views: int, questions: int) -> float:
    """Peak memory of a fresh process that opens a model and asks it, MiB."""
    command = [sys.executable, __file__, "--alone", str(model), str(rooms), str(views), str(questions)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def alone(model: str, rooms: str, views: str, questions: str) -> None:
    torch.set_num_threads(1)
    opened = load_model(model)
    ask(opened, open_pack(opened, Path(rooms), int(views), int(questions)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        alone(*args.alone)
        return
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_rooms(folder / "rooms", 2)
        overrides = [f"data.sources=[{{path: {folder / 'rooms'}}}]", "training.steps=1", "training.scenes=1"]
        overrides += ["training.learning_rate=0", "training.head_rate=0"]
        models: dict[str, SpatialModel] = {}
        for label, name in RECIPES.items():
            train(load_recipe(name, [*overrides, f"training.threads={args.threads}"]), folder / name, progress=False)
            models[label] = load_model(folder / name / MODEL_FOLDER)
        pack = open_pack(next(iter(models.values())), folder / "rooms", args.views, args.questions)
        for model in models.values():
            ask(model, pack)  # warm up
        times: dict[str, list[float]] = {label: [] for label in models}
        for turn in range(args.repeats):
            for label in list(models) if turn % 2 else reversed(list(models)):
                times[label].append(ask(models[label], pack))
        memory = {
            label: peak(folder / name / MODEL_FOLDER, folder / "rooms", args.views, args.questions)
            for label, name in RECIPES.items()
        }
    rows = {
        label: {
            **parameters(model),
            "peak_mib": round(memory[label], 1),
            "seconds": round(statistics.median(times[label]), 4),
            "all_seconds": [round(value, 4) for value in times[label]],
        }
        for label, model in models.items()
    }
    first, second = RECIPES
    ratios = [a / b for a, b in zip(times[first], times[second], strict=True)]
    ratio = {
        "parameters": rows[first]["parameters"] / rows[second]["parameters"],
        "peak_memory": round(memory[first] / memory[second], 3),
        "seconds_median": round(statistics.median(ratios), 3),
        "seconds_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }
    record = {
        "environment": environment(),
        "load_average": os.getloadavg()[0],
        "threads": args.threads,
        "views": args.views,
        "questions": len(pack.conversations),
        "models": rows,
        "ratio": ratio,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    write_atomic(args.results / "perf_inference.json", (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps({"models": rows, "ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
