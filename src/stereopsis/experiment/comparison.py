"""Several arms under equal conditions: the same scenes, the same schedule, the same evaluation, one table."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from stereopsis.errors import RecipeError
from stereopsis.evaluation.in_memory import chance_rates, evaluate, majority_predictor
from stereopsis.evaluation.records import summary_dict
from stereopsis.experiment.arms import Arm, finished_arm, run_arm
from stereopsis.experiment.jobs import ArmJob
from stereopsis.files import write_atomic
from stereopsis.progress import say
from stereopsis.scenes.prepare import usable_cpus
from stereopsis.scenes.scene import Scene
from stereopsis.side_by_side import run_side_by_side
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.recipe import Recipe
from stereopsis.training.sources import prepared_folder, scenes_of
from stereopsis.training.train_run import build_packs, environment

COMPARISON_FILE = "comparison.json"
FEW = 16
"""Scenes that are packed sooner than another process has started."""
CACHE_FOLDER = "cache"
"""In a comparison's folder: packs and teachers' answers, where the recipes name no cache and several processes work."""


def compare(
    arms: Sequence[Arm],
    folder: str | Path,
    *,
    title: str,
    pictures: int = 4,
    processes: int = 1,
    overwrite: bool = True,
    console: Console | None = None,
) -> Path:
    """Train and evaluate every arm, and write ``comparison.json``, from which the report is made.

    All arms share scenes and packs, which are built once with every teacher that any arm asks for.

    Args:
        arms: whom to compare.
        folder: gets a folder for each arm.
        title: of the report.
        pictures: draw reconstructions of so many scenes.
        processes: arms that are trained at the same time, each in a process of its own; 0 = as many as there are CPUs
            (on a GPU: one). With more than one, packs are kept in ``folder`` where the recipes name no cache.
        overwrite: train arms anew that are there; otherwise what is finished is kept, and what was interrupted goes on
            from its newest checkpoint.
        console: where to show progress; None = quiet.

    Returns:
        The path of ``comparison.json``.
    """
    start, folder = time.monotonic(), Path(folder)
    _require_equal_conditions(arms)
    processes = processes or at_once(len(arms))
    full = max((arm.recipe for arm in arms), key=lambda recipe: len(recipe.objectives.active()))
    evaluation = full.evaluation.sources[0]
    scenes = scenes_of(evaluation, full.data.cache_folder, console=console)
    train_scenes = [
        s for source in full.data.sources for s in scenes_of(source, full.data.cache_folder, console=console)
    ]
    kept = () if overwrite else tuple(a for a in arms if finished_arm(folder / a.name, a.recipe))
    for arm in kept:
        say(console, f"{arm.label}: there already, kept (--overwrite trains it anew)")
    work = [arm for arm in arms if arm not in kept]
    if work and processes > 1:
        _run_in_processes(
            work, full, folder, processes, len(train_scenes), pictures=pictures, overwrite=overwrite, console=console
        )
    elif work:
        _run_here(work, full, folder, scenes, pictures=pictures, overwrite=overwrite, console=console)
    record = {
        "title": title,
        "arms": [{"name": arm.name, "label": arm.label, "folder": arm.name, "note": arm.note} for arm in arms],
        "baselines": baselines(train_scenes, scenes, full),
        "scenes": os.path.relpath(prepared_folder(evaluation, full.data.cache_folder), folder),
        "seconds": round(time.monotonic() - start, 1),
        "environment": environment(),
        "kept": [arm.name for arm in kept],
    }
    path = folder / COMPARISON_FILE
    write_atomic(path, json.dumps(record, indent=1) + "\n")
    return path


def at_once(jobs: int) -> int:
    """How many jobs to run at the same time: CPUs are shared by processes, a GPU is one job's."""
    return 1 if torch.cuda.is_available() else max(1, min(jobs, usable_cpus()))


def _run_here(
    arms: Sequence[Arm],
    full: Recipe,
    folder: Path,
    scenes: Sequence[Scene],
    *,
    pictures: int,
    overwrite: bool,
    console: Console | None,
) -> None:
    """One arm after the other in this process, with packs in memory."""
    teachers = build_teachers(full)
    packs = build_packs(full, build_model(full), teachers, full.data.sources, console=console)
    for arm in arms:
        if console is not None:
            console.print(f"[bold]{arm.label}[/bold]")
        run_arm(
            arm, folder / arm.name, packs, scenes, teachers, pictures=pictures, overwrite=overwrite, console=console
        )


def _run_in_processes(
    arms: Sequence[Arm],
    full: Recipe,
    folder: Path,
    processes: int,
    scenes: int,
    *,
    pictures: int,
    overwrite: bool,
    console: Console | None,
) -> None:
    """Packs first, shared by all processes; then the arms, the longest first."""
    threads = max(1, usable_cpus() // processes)
    full, *recipes = (_for_a_process(recipe, folder, threads) for recipe in (full, *(arm.recipe for arm in arms)))
    parts = max(1, min(processes, scenes // FEW))
    shares = [ArmJob(name=f"packs {i + 1}/{parts}", recipe=full, share=(i, parts)) for i in range(parts)]
    run_side_by_side([share.job() for share in shares], folder / "logs", at_once=processes, console=console)
    jobs = [
        ArmJob(
            name=arm.label,
            recipe=recipe,
            arm=dataclasses.replace(arm, recipe=recipe),
            folder=folder / arm.name,
            pictures=pictures,
            overwrite=overwrite,
        )
        for arm, recipe in zip(arms, recipes, strict=True)
    ]
    jobs.sort(key=lambda job: (job.recipe.model.blind, -len(job.recipe.objectives.active())))
    run_side_by_side([job.job() for job in jobs], folder / "logs", at_once=processes, console=console)


def _for_a_process(recipe: Recipe, folder: Path, threads: int) -> Recipe:
    """With packs on disk, and no more threads than a process's share of the CPUs."""
    teachers, training = recipe.teachers, recipe.training
    if teachers.cache is None:
        teachers = teachers.model_copy(update={"cache": folder / CACHE_FOLDER})
    if not training.threads:
        training = training.model_copy(update={"threads": threads})
    return recipe.model_copy(update={"teachers": teachers, "training": training})


def baselines(train_scenes: Sequence[Scene], scenes: Sequence[Scene], recipe: Recipe) -> dict[str, Any]:
    """What needs no model: the most frequent answers, and grounding by chance."""
    annotations = [a for scene in train_scenes for a in scene.annotations]
    majority = evaluate(majority_predictor(annotations, recipe.evaluation.tasks), scenes)
    tasks = {
        task: {
            **values["overall"],
            "macro": values["macro"],
            "by_type": values["by_type"],
        }
        for task, values in summary_dict(majority.summaries).items()
    }
    return {"majority": tasks, "chance": chance_rates(scenes, recipe.evaluation.proposals)}


def _require_equal_conditions(arms: Sequence[Arm]) -> None:
    """Refuse arms that would need packs of their own; which objectives are on may differ, and blindness."""
    for arm in arms[1:]:
        for name in ("data", "teachers", "evaluation"):
            if getattr(arm.recipe, name) != getattr(arms[0].recipe, name):
                raise RecipeError(
                    f"arms '{arms[0].label}' and '{arm.label}' differ under '{name}:'; arms of one comparison share "
                    "scenes, teachers and evaluation: give both the same section, or compare separate runs"
                )
        first, other = (a.recipe.model.model_copy(update={"blind": False}) for a in (arms[0], arm))
        if first != other:
            raise RecipeError(
                f"arms '{arms[0].label}' and '{arm.label}' differ under 'model:' in more than 'blind'; compare "
                "separate runs instead"
            )
