"""What do 3DRS's terms and Ross3D's reconstructions do to correspondence, and to answers?

    python scripts/compare_objectives.py --seeds 3

Trains every arm and seed from the shipped base under one schedule, evaluates all of them on the same unseen rooms, and
probes their last layer. Writes results/objectives_rooms.json (every figure of every run), .md (the table, and how
correspondence and performance go together over the runs) and .svg (the scatter).
Runs that are in the output folder already are not repeated.
"""

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from compare_seeds import METRICS, ROOT, Job, macro_em, run_job
from rich.console import Console

from stereopsis.benchmarks.scoring.statistics import seed_interval
from stereopsis.experiment import kept_packs
from stereopsis.files import cache_folder
from stereopsis.models.storage import load_model
from stereopsis.probing import ModelSubject, ProbeSettings, correlate, probe_scenes, write_probe
from stereopsis.probing.probe_scenes import PROBE_FILE
from stereopsis.report.probe_page import scatter_points, scatter_svg
from stereopsis.training.recipe import load_recipe
from stereopsis.training.sources import scenes_of
from stereopsis.training.train_run import MODEL_FOLDER, environment

VOXEL = 0.4
"""Metres: the small model's cells are about half a metre wide, so that 0.1 m, 3DRS's choice, finds few pairs."""

_CONTRASTIVE = f"objectives.contrastive={{voxel: {VOXEL}, weight: 0.2}}"
_CONSISTENCY = f"objectives.consistency={{voxel: {VOXEL}}}"
_ALIGNMENT = "objectives.alignment={weight: 1.0}"
_ROSS3D = ("objectives.cross_view={every: 4, conditioning: released}", "objectives.birds_eye={}")
ARMS: dict[str, tuple[str, ...]] = {
    "baseline": (),
    "+ alignment": (_ALIGNMENT,),
    "+ contrastive": (_CONTRASTIVE,),
    "+ consistency": (_CONSISTENCY,),
    "+ all of 3DRS": (_ALIGNMENT, _CONTRASTIVE, _CONSISTENCY),
    "+ Ross3D": _ROSS3D,
    "+ both families": (_ALIGNMENT, _CONTRASTIVE, _CONSISTENCY, *_ROSS3D),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run's figures: tasks as in an evaluation's summary, and its last layer's correspondence."""

    arm: str
    seed: int
    tasks: dict[str, Any]
    probe: dict[str, Any]


def run_and_probe(job: Job) -> Outcome:
    """Train, evaluate and probe one run on one thread; what is there already is read back."""
    tasks = run_job(job)
    folder = job.folder / "probe"
    if not (folder / PROBE_FILE).is_file():
        torch.set_num_threads(1)
        scenes = scenes_of(job.recipe.evaluation.sources[0], job.recipe.data.cache_folder)
        model = load_model(job.folder / MODEL_FOLDER)
        config = model.pack_config(views=job.recipe.data.views)
        subject = ModelSubject(model, config, layers=(-1,), name=f"{job.arm}, seed {job.seed}")
        write_probe(folder, probe_scenes(subject, scenes, ProbeSettings(voxel=VOXEL)))
    last = list(json.loads((folder / PROBE_FILE).read_text())["layers"].values())[-1]
    figures = {key: last[key]["mean"] for key in ("score", "random", "gap")}
    figures |= {"recall@1": 100 * last["recall"]["1"]["mean"], "depth R2": last["readouts"]["depth"]["r2"]}
    return Outcome(arm=job.arm, seed=job.seed, tasks=tasks, probe=figures)


def command_of(args: argparse.Namespace) -> str:
    """The command with everything that decides the figures."""
    names = ("seeds", "steps", "conversations", "rooms", "test_rooms", "positions")
    options = " ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in names)
    return f"python scripts/compare_objectives.py {options}"


def table(outcomes: list[Outcome], args: argparse.Namespace) -> str:
    """Markdown: mean over seeds with a 95 % t-interval."""
    probed = ("score", "random", "gap", "recall@1", "depth R2")
    head = ["arm", "EM over types", *(label for *_, label in METRICS), *probed]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for arm in dict.fromkeys(o.arm for o in outcomes):
        runs = [o for o in outcomes if o.arm == arm]
        columns = [[macro_em(o.tasks) for o in runs]]
        columns += [[o.tasks[task]["overall"][metric]["mean"] for o in runs] for task, metric, _ in METRICS]
        cells = [f"{i.mean:.1f} ({i.low:.1f} to {i.high:.1f})" for i in map(seed_interval, columns)]
        for key in probed:
            interval = seed_interval([o.probe[key] for o in runs])
            digits = 1 if key == "recall@1" else 3
            cells.append(f"{interval.mean:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    made = environment()
    note = (
        f"\n{args.seeds} seeds, {args.steps} steps of 4 scenes x {args.conversations} conversations each, {args.rooms} "
        f"training rooms, {args.test_rooms} unseen test rooms, positions: {args.positions}; mean and 95 % t-interval "
        f"over seeds. Alignment to the learned teacher `{args.teacher}`; correspondence of the last layer at voxels of "
        f"{VOXEL} m. {str(made['date'])[:10]}, {made['cpu_threads']} CPU cores, one thread a run, torch "
        f"{made['versions']['torch']}. Made by `{command_of(args)}`.\n"
    )
    return "\n".join(lines) + "\n" + note


def differences(outcomes: list[Outcome]) -> str:
    """Markdown: every arm minus the baseline of the same seed, with a 95 % t-interval over seeds."""
    base = {o.seed: o for o in outcomes if o.arm == "baseline"}
    figures = {
        "EM over types": (1, lambda o: macro_em(o.tasks)),
        "ScanRefer Acc@0.25": (1, lambda o: o.tasks["scanrefer"]["overall"]["acc@0.25"]["mean"]),
        "score": (3, lambda o: o.probe["score"]),
        "gap": (3, lambda o: o.probe["gap"]),
        "recall@1": (1, lambda o: o.probe["recall@1"]),
    }
    lines = [f"| arm minus baseline | {' | '.join(figures)} |", f"|{'---|' * (len(figures) + 1)}"]
    for arm in dict.fromkeys(o.arm for o in outcomes if o.arm != "baseline"):
        runs = [o for o in outcomes if o.arm == arm and o.seed in base]
        cells = []
        for digits, of in figures.values():
            interval = seed_interval([of(o) - of(base[o.seed]) for o in runs])
            cells.append(f"{interval.mean:+.{digits}f} ({interval.low:+.{digits}f} to {interval.high:+.{digits}f})")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def correlations(outcomes: list[Outcome]) -> tuple[str, dict[str, Any]]:
    """How probe figures go with mean EM and grounding over all runs; intervals from resampling arms."""
    lines = ["| figure | with | Pearson | Spearman |", "|---|---|---|---|"]
    found: dict[str, Any] = {}
    arms = [o.arm for o in outcomes]
    targets = {
        "EM over types": [macro_em(o.tasks) for o in outcomes],
        "ScanRefer Acc@0.25": [o.tasks["scanrefer"]["overall"]["acc@0.25"]["mean"] for o in outcomes],
    }
    for figure in ("score", "gap", "recall@1"):
        for name, values in targets.items():
            result = correlate([o.probe[figure] for o in outcomes], values, arms)
            found[f"{figure} / {name}"] = dataclasses.asdict(result)
            cells = [f"{i.mean:.2f} ({i.low:.2f} to {i.high:.2f})" for i in (result.pearson, result.spearman)]
            lines.append(f"| {figure} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n", found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--conversations", type=int, default=8, help="behind one visual prefix")
    parser.add_argument("--rooms", type=int, default=300)
    parser.add_argument("--test-rooms", type=int, default=25)
    parser.add_argument("--positions", default="none")
    parser.add_argument("--teacher", default="rooms_geometry")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="only these")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "compare_objectives")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "rooms")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    args = parser.parse_args()
    console = Console()
    common = [
        f"data.sources=[{{rooms: {args.rooms}}}]",
        f"data.cache={args.cache}",
        f"evaluation.sources=[{{rooms: {args.test_rooms}, split: test}}]",
        f"training.steps={args.steps}",
        f"data.conversations={args.conversations}",
        "training.threads=1",
        f"model.positions={args.positions}",
        f"teachers.features={args.teacher}",
    ]
    full = load_recipe("baseline-tiny", [*common, *ARMS["+ both families"]])
    path = kept_packs(full, args.output / "packs.pt", console=console)
    jobs = []
    for seed in range(args.seeds):
        for arm in args.arms:
            recipe = load_recipe("baseline-tiny", [*common, *ARMS[arm], f"seed={seed}"])
            name = arm.removeprefix("+ ").replace(" ", "-").lower()
            folder = args.output / f"{name}-seed{seed}"
            jobs.append(Job(positions=args.positions, arm=arm, seed=seed, recipe=recipe, folder=folder, packs=path))
    outcomes = []
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(run_and_probe, jobs):
            outcomes.append(outcome)
            told = f"EM over types {macro_em(outcome.tasks):.1f}, correspondence {outcome.probe['score']:.3f}"
            console.print(outcome.arm, outcome.seed, told)
    order = [o for arm in args.arms for o in outcomes if o.arm == arm]
    text, found = correlations(order)
    arguments = {key: value for key, value in vars(args).items() if key not in ("output", "results", "cache")}
    runs = [dataclasses.asdict(o) for o in order]
    made = environment() | {"command": command_of(args)}
    record = {"environment": made, "arguments": arguments, "runs": runs, "correlations": found}
    args.results.mkdir(exist_ok=True)
    (args.results / "objectives_rooms.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    models = [
        {
            "name": f"{o.arm}, seed {o.seed}",
            "group": o.arm,
            "score": o.probe["gap"],
            "metrics": {"em": macro_em(o.tasks)},
        }
        for o in order
    ]
    figure = scatter_svg(
        scatter_points(models, "em"), "EM over question types", across="correspondence gap", named=False
    )
    (args.results / "objectives_rooms.svg").write_text(figure + "\n")
    page = (
        f"{table(order, args)}\nSeed by seed:\n\n{differences(order)}\nOver all {len(order)} runs (intervals resample "
        f"arms):\n\n{text}"
    )
    (args.results / "objectives_rooms.md").write_text(page)
    console.print(page)


if __name__ == "__main__":
    main()
