"""Does supervising the visual tokens help? Both arms, with and without positions, over several seeds.

    python scripts/compare_seeds.py --seeds 3

Trains every (positions, arm, seed) from the shipped base under one schedule, evaluates on the same unseen rooms, and
writes results/rooms_arms.json (every figure, every seed) and results/rooms_arms.md (the table). Runs that are in the
output folder already are not repeated.
"""

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from stereopsis.benchmarks.scoring.statistics import seed_interval
from stereopsis.experiment import Arm, baselines, kept_packs, run_arm
from stereopsis.packs.targets import Teachers
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.sources import scenes_of
from stereopsis.training.train_run import environment

ROOT = Path(__file__).resolve().parent.parent
ARMS = {"blind": "blind-tiny", "text + grounding": "baseline-tiny", "all objectives": "stereopsis-tiny"}
METRICS = (
    ("sqa3d", "em", "SQA3D EM"),
    ("scanqa", "em", "ScanQA EM"),
    ("scanqa", "cider", "ScanQA CIDEr"),
    ("scan2cap", "cider@0.5", "Scan2Cap CIDEr@0.5"),
    ("scanrefer", "acc@0.25", "ScanRefer Acc@0.25"),
    ("multi3drefer", "f1@0.25", "Multi3DRefer F1@0.25"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training run."""

    positions: str
    arm: str
    seed: int
    recipe: Recipe
    folder: Path
    packs: Path


def run_job(job: Job) -> dict[str, Any]:
    """Train and evaluate one run on one thread; a finished one is read back."""
    done = job.folder / "evaluation" / "summary.json"
    if not done.is_file():
        torch.set_num_threads(1)
        packs = torch.load(job.packs, weights_only=False)  # written by this script, a moment ago
        scenes = scenes_of(job.recipe.evaluation.sources[0], job.recipe.data.cache_folder)
        arm = Arm(name=job.arm, label=job.arm, recipe=job.recipe)
        run_arm(arm, job.folder, packs, scenes, Teachers())
    return json.loads(done.read_text())["tasks"]


def macro_em(tasks: dict[str, Any]) -> float:
    """EM averaged over the question types of both question-answering benchmarks."""
    types = [m["em"]["mean"] for task in ("sqa3d", "scanqa") for m in tasks[task]["by_type"].values()]
    return sum(types) / len(types)


def table(results: list[dict[str, Any]], base: dict[str, Any], args: argparse.Namespace) -> str:
    """Markdown: mean over seeds with a 95 % t-interval."""
    head = ["positions", "arm", "EM over types", *(label for *_, label in METRICS)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for positions, arm in dict.fromkeys((r["positions"], r["arm"]) for r in results):
        runs = [r["tasks"] for r in results if (r["positions"], r["arm"]) == (positions, arm)]
        values = [[macro_em(t) for t in runs]]
        values += [[t[task]["overall"][metric]["mean"] for t in runs] for task, metric, _ in METRICS]
        cells = []
        for column in values:
            interval = seed_interval(column)
            cells.append(f"{interval.mean:.1f} ({interval.low:.1f} to {interval.high:.1f})")
        lines.append(f"| {positions} | {arm} | {' | '.join(cells)} |")
    majority = base["majority"]
    types = [m["em"]["mean"] for task in ("sqa3d", "scanqa") for m in majority[task]["by_type"].values()]
    cells = [f"{sum(types) / len(types):.1f}"]
    for task, metric, _ in METRICS:
        known = majority.get(task, {}).get(metric, {}).get("mean") or base["chance"].get(task, {}).get(metric)
        cells.append("-" if known is None else f"{known:.1f}")
    lines.append(f"| - | majority answer / chance | {' | '.join(cells)} |")
    made = environment()
    note = (
        f"\n{args.seeds} seeds, {args.steps} steps each, {args.rooms} training rooms, {args.test_rooms} unseen test "
        f"rooms; mean and 95 % t-interval over seeds. {str(made['date'])[:10]}, {made['cpu_threads']} CPU cores, one "
        f"thread a run, torch {made['versions']['torch']}. Made by `python scripts/compare_seeds.py --seeds "
        f"{args.seeds} --steps {args.steps} --rooms {args.rooms} --test-rooms {args.test_rooms}`.\n"
    )
    return "\n".join(lines) + "\n" + note


def types_table(results: list[dict[str, Any]], base: dict[str, Any]) -> str:
    """Markdown: EM of every question type, mean over seeds, beside the most frequent answer's."""
    columns = list(dict.fromkeys((r["positions"], r["arm"]) for r in results))
    head = ["question type", "majority", *(f"{arm} ({positions})" for positions, arm in columns)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for task in ("sqa3d", "scanqa"):
        for kind in results[0]["tasks"][task]["by_type"]:
            cells = [f"{base['majority'][task]['by_type'][kind]['em']['mean']:.1f}"]
            for column in columns:
                runs = [r["tasks"] for r in results if (r["positions"], r["arm"]) == column]
                cells.append(f"{sum(t[task]['by_type'][kind]['em']['mean'] for t in runs) / len(runs):.1f}")
            lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--rooms", type=int, default=500)
    parser.add_argument("--test-rooms", type=int, default=50)
    parser.add_argument("--positions", nargs="+", default=["depth", "none"])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "compare_seeds")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    args = parser.parse_args()
    console = Console()
    common = [
        f"data.sources=[{{rooms: {args.rooms}}}]",
        f"evaluation.sources=[{{rooms: {args.test_rooms}, split: test}}]",
        f"training.steps={args.steps}",
        "training.threads=1",
    ]
    jobs: list[Job] = []
    for positions in args.positions:
        full = load_recipe("stereopsis-tiny", [*common, f"model.positions={positions}"])
        path = kept_packs(full, args.output / f"packs-{positions}.pt", console=console)
        for seed in range(args.seeds):
            for arm, name in ARMS.items():
                if arm == "blind" and positions != args.positions[0]:
                    continue  # a blind model has no positions
                recipe = load_recipe(name, [*common, f"model.positions={positions}", f"seed={seed}"])
                folder = args.output / positions / f"{name}-seed{seed}"
                jobs.append(Job(positions=positions, arm=arm, seed=seed, recipe=recipe, folder=folder, packs=path))
    results = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for job, tasks in zip(jobs, pool.map(run_job, jobs), strict=True):
            results.append({"positions": job.positions, "arm": job.arm, "seed": job.seed, "tasks": tasks})
            console.print(job.positions, job.arm, job.seed, f"EM over types {macro_em(tasks):.1f}")
    recipe = jobs[0].recipe
    train_scenes = scenes_of(recipe.data.sources[0], recipe.data.cache_folder)
    base = baselines(train_scenes, scenes_of(recipe.evaluation.sources[0], recipe.data.cache_folder), recipe)
    arguments = {key: value for key, value in vars(args).items() if key not in ("output", "results")}
    record = {"environment": environment(), "arguments": arguments, "runs": results, "baselines": base}
    args.results.mkdir(exist_ok=True)
    (args.results / "rooms_arms.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    text = f"{table(results, base, args)}\nEM of each question type, mean over seeds:\n\n{types_table(results, base)}"
    (args.results / "rooms_arms.md").write_text(text)
    console.print(text)


if __name__ == "__main__":
    main()
