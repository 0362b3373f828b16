"""Does supervising the visual tokens help where it should? The study of docs/study.md, from nothing, run by run.

    python scripts/study.py --plan            # which runs are there, which are missing, how long they will take here
    python scripts/study.py                   # make rooms and packs, then every missing run, then the table
    python scripts/study.py --only none-100 depth-100 --seeds 0 1 2

Every finished run is one file in results/study/, its registry: what was trained, on what, every question type's score
in every room. A run that is there is never repeated; more seeds are more files. A run that was killed goes on from its
last checkpoint. Runs take one thread each; start this command once per core that may be used, with different --only or
--seeds.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from study_arms import ARMS, Arm

from stereopsis.benchmarks.scoring.statistics import seed_interval
from stereopsis.data.pack import ScenePack
from stereopsis.evaluation.in_memory import evaluate, predict_scene
from stereopsis.files import write_atomic
from stereopsis.packs.build import blinded
from stereopsis.packs.targets import Teachers
from stereopsis.scenes.alignment import with_birdseye
from stereopsis.scenes.rooms import RoomConfig, make_room
from stereopsis.scenes.rooms.language import annotate, split_seeds
from stereopsis.scenes.rooms.language.config import LanguageConfig
from stereopsis.scenes.rooms.language.pointing import pointing_questions
from stereopsis.scenes.stored import write_scene
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.recipe_packs import build_packs
from stereopsis.training.sources import scenes_of
from stereopsis.training.train_run import environment, train

ROOT = Path(__file__).resolve().parent.parent
BASE = "study-tiny"
SETTING = "rgb4-1"
"""Name of the rooms and questions below; another one when they change."""
ROOMS = RoomConfig(views=4)
LANGUAGE = LanguageConfig(quota={"unique": 6, "multiple": 8, "multi": 8}, video_quota={}, captions=0)
COUNTS = {"train": 600, "val": 100}
SPACE = ("at_what", "at_colour", "standing_what")
"""Question types that cannot be answered without knowing where things are."""
SCORE = {"sqa3d": "em", "scanqa": "em", "scanrefer": "acc@0.25", "multi3drefer": "f1@0.25"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One run: an arm with a seed."""

    name: str
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        """File name in the registry."""
        return f"{SETTING}--{self.name}--seed{self.seed}"

    @property
    def first(self) -> "Job | None":
        """The run that this one starts from."""
        start = self.arm.start
        return None if start is None else Job(name=start, arm=ARMS[start], seed=self.seed)

    def recipe(self, data: Path, runs: Path = Path("runs")) -> Recipe:
        """What is trained."""
        start = [] if self.first is None else [f"model.base={runs / self.first.key / 'model'}"]
        places = [f"{part}.sources.0.path={data / split}" for part, split in (("data", "train"), ("evaluation", "val"))]
        return load_recipe(BASE, [*places, *start, *self.arm.overrides, f"seed={self.seed}"])


def prepare_rooms(data: Path, console: Console) -> None:
    """Rooms, pictures and questions on disk; those that are there stay."""
    for split, count in COUNTS.items():
        for number, seed in enumerate(split_seeds(split, count)):
            folder = data / split / f"room-{seed:08d}"
            if (folder / "scene.json").is_file():
                continue
            room = make_room(seed, ROOMS)
            said = (*annotate(room, seed, LANGUAGE), *pointing_questions(room, seed))
            write_scene(with_birdseye(room.replace(annotations=said), size=128, fill_radius=0.1), folder)
            if number % 100 == 0:
                console.print(f"{split}: {number} of {count} rooms")


def packs_for(job: Job, data: Path, console: Console) -> list[ScenePack]:
    """Training packs with the frozen tower's output and every target that the arm needs, made once and kept."""
    recipe = job.recipe(data)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"blind": False})})
    teachers = build_teachers(recipe)
    asked = [f"{name} {getattr(recipe.teachers, name)}" for name in ("latent", "features") if getattr(teachers, name)]
    facts = (recipe.model.positions, recipe.model.object_features in ("mean", "last_layer"), recipe.data.sources, asked)
    path = data / f"packs-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}.pt"
    if not path.is_file():
        console.print(f"packs: {path.name}")
        model = build_model(recipe)
        packs = build_packs(recipe, model, teachers or Teachers(), recipe.data.sources, console=console)
        partial = path.with_suffix(f".{os.getpid()}")
        torch.save(list(packs), partial)
        partial.rename(path)
    return torch.load(path, weights_only=False, mmap=True)  # a pickle that this script wrote


def run_job(job: Job, data: Path, runs: Path, registry: Path, console: Console) -> dict[str, Any]:
    """Train (or go on), evaluate, and enter the figures into the registry."""
    torch.set_num_threads(1)
    if job.first is not None and not (runs / job.first.key / "model" / "config.json").is_file():
        run_job(job.first, data, runs, registry, console)
    recipe, folder = job.recipe(data, runs), runs / job.key
    packs = packs_for(job, data, console)
    started = time.process_time()
    resume = (folder / "recipe.yaml").is_file()
    if recipe.model.blind:
        packs = [blinded(pack) for pack in packs]
    run = train(recipe, folder, packs=packs, resume=resume, progress=False)
    trained = time.process_time() - started
    config = run.model.pack_config(
        views=recipe.data.views,
        proposals=recipe.evaluation.proposals,
        seed=recipe.seed,
        tasks=recipe.evaluation.tasks,
        blind=recipe.model.blind,
    )
    scenes = scenes_of(recipe.evaluation.sources[0], recipe.data.cache)
    samples = evaluate(lambda scene: predict_scene(run.model, scene, config), scenes).samples
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0]))
    for sample in samples:
        kind = sample.type if sample.task in ("sqa3d", "scanqa") else sample.task
        cell = scores[kind][sample.scene_id]
        cell[0] += round(sample.scores[SCORE[sample.task]], 4)
        cell[1] += 1
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "loss/text", "text/token_accuracy", "loss/grounding", "grounding/accuracy")
    record = {
        "arm": job.name,
        "stage": job.arm.stage,
        "hypothesis": job.arm.hypothesis,
        "setting": SETTING,
        "seed": job.seed,
        "overrides": list(job.arm.overrides),
        "figures": figures_of(scores),
        "cpu_seconds": {"train": round(trained, 1), "steps": recipe.training.steps, "resumed": resume},
        "environment": environment(),
        "curve": [{k: v for k, v in row.items() if k in kept or "/" in k} for row in curve[:-1:3]],
        "samples": scores,
    }
    registry.mkdir(parents=True, exist_ok=True)
    write_atomic(registry / f"{job.key}.json", json.dumps(record) + "\n")
    return record


def loudness(data: Path, console: Console) -> None:
    """Norms of visual tokens and of the encodings of their places, and how much of each varies."""
    job = Job(name="depth-100", arm=ARMS["depth-100"], seed=0)
    model = build_model(job.recipe(data))
    batch = model.collator()(packs_for(job, data, console)[:16])
    with torch.no_grad():
        parts = {"tokens": model.visual_inputs(batch).tokens, "encodings": model.encoding(batch.coordinates)}
    for name, values in parts.items():
        flat = values[batch.coordinates_valid].float()
        varying = (flat - flat.mean(0)).norm(dim=-1).mean()
        console.print(f"{name}: norm {flat.norm(dim=-1).mean():.1f}, of which {varying:.1f} varies")


def figures_of(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Points per question type, and their mean over the types that need space."""
    points = {
        kind: 100 * sum(right for right, _ in rooms.values()) / sum(number for _, number in rooms.values())
        for kind, rooms in scores.items()
    }
    return {"space": sum(points.get(kind, 0.0) for kind in SPACE) / len(SPACE), **points}


def read_registry(registry: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Finished runs of this setting: arm -> seed -> record."""
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(registry.glob(f"{SETTING}--*.json")):
        record = json.loads(path.read_text())
        found[record["arm"]][record["seed"]] = record
    return found


def difference(arm: dict[int, dict], other: dict[int, dict], figure: str) -> tuple[float, float, float, int] | None:
    """Mean, bounds and number of seeds of arm - other, seed by seed.

    Bounds: 95 % t-interval over three or more seeds; below that, over rooms drawn anew (seeds together).
    """
    seeds = sorted(arm.keys() & other.keys())
    if not seeds:
        return None
    if len(seeds) >= 3:
        interval = seed_interval([arm[s]["figures"][figure] - other[s]["figures"][figure] for s in seeds])
        return interval.mean, interval.low, interval.high, len(seeds)
    rooms = sorted({room for s in seeds for kind in arm[s]["samples"].values() for room in kind})
    draws = np.random.default_rng(0).integers(0, len(rooms), (1000, len(rooms)))
    counts = np.stack([np.bincount(draw, minlength=len(rooms)) for draw in np.vstack([np.arange(len(rooms)), draws])])
    kinds = SPACE if figure == "space" else (figure,)
    total = np.zeros(len(counts))
    for runs, sign in ((arm, 1), (other, -1)):
        for s in seeds:
            for kind in kinds:
                cells = np.array([runs[s]["samples"][kind].get(room, (0.0, 0)) for room in rooms])
                right, number = (counts @ cells).T
                total += sign * 100 * right / np.maximum(number, 1) / len(kinds) / len(seeds)
    return float(total[0]), *(float(v) for v in np.percentile(total[1:], [2.5, 97.5])), len(seeds)


def table(found: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Markdown: every arm, and its difference to the arm that it is compared with."""
    columns = ("space", *SPACE, "scanrefer", "multi3drefer")
    head = ["arm", "seeds", *columns, "minus", "space", "scanrefer"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, arm in ARMS.items():
        runs = found.get(name, {})
        if not runs:
            continue
        cells = [f"{statistics.mean(r['figures'].get(c, 0.0) for r in runs.values()):.1f}" for c in columns]
        against = found.get(arm.against or "", {})
        for figure in ("space", "scanrefer"):
            made = difference(runs, against, figure)
            cells.append("-" if made is None else f"{made[0]:+.1f} ({made[1]:+.1f} to {made[2]:+.1f})")
        cells.insert(len(columns), arm.against or "-")
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seconds_of(job: Job, found: dict[str, dict[int, dict[str, Any]]], data: Path) -> float:
    """CPU seconds that a run will take: what it took before, or what others took, by scenes and steps."""
    if found.get(job.name):
        return statistics.median(r["cpu_seconds"]["train"] for r in found[job.name].values())
    recipe = job.recipe(data)
    rates = [
        r["cpu_seconds"]["train"]
        / r["cpu_seconds"]["steps"]
        / Job(name=n, arm=ARMS[n], seed=0).recipe(data).training.scenes
        for n, runs in found.items()
        if n in ARMS
        for r in runs.values()
        if not r["cpu_seconds"]["resumed"]
    ]
    rate = statistics.median(rates) if rates else 0.17
    return rate * recipe.training.steps * recipe.training.scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="say what is missing and how long it takes, and stop")
    parser.add_argument("--loudness", action="store_true", help="how loud encodings of places are, and stop")
    parser.add_argument("--only", nargs="+", choices=list(ARMS), help="these arms")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds instead of each arm's own")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "study")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "study")
    parser.add_argument("--registry", type=Path, default=ROOT / "results" / "study")
    args = parser.parse_args()
    console, registry = Console(), args.registry
    chosen = [(name, ARMS[name]) for name in args.only or ARMS]
    jobs = [Job(name=n, arm=a, seed=s) for n, a in chosen for s in (args.seeds or range(a.seeds))]
    jobs.sort(key=lambda job: (job.arm.priority, job.seed))
    found = read_registry(registry)
    missing = [job for job in jobs if job.seed not in found.get(job.name, {})]
    if args.plan:
        for job in missing:
            console.print(f"{job.key}: about {seconds_of(job, found, args.data) / 60:.0f} minutes of one core")
        total = sum(seconds_of(job, found, args.data) for job in missing) / 3600
        console.print(f"{len(jobs) - len(missing)} runs are there, {len(missing)} missing: {total:.1f} core hours")
        return
    if missing or args.loudness:
        prepare_rooms(args.data, console)
    if args.loudness:
        loudness(args.data, console)
        return
    for job in missing:
        record = run_job(job, args.data, args.runs, registry, console)
        console.print(job.key, {k: round(v, 1) for k, v in record["figures"].items()})
    text = table(read_registry(registry))
    write_atomic(registry.parent / "study.md", text)
    console.print(text)


if __name__ == "__main__":
    main()
