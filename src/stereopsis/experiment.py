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

from stereopsis.data.pack import ScenePack
from stereopsis.errors import RecipeError
from stereopsis.evaluation.evaluate_run import Request, execute, facts_of, make_plan, model_predictor
from stereopsis.evaluation.in_memory import chance_rates, evaluate, majority_predictor
from stereopsis.evaluation.questions import questions
from stereopsis.evaluation.records import summary_dict
from stereopsis.evaluation.resumable import run_evaluation
from stereopsis.files import replacing
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import blinded, build_pack
from stereopsis.packs.targets import Teachers
from stereopsis.progress import tracked
from stereopsis.reconstruction.pictures import write_pictures
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import uniform_indices
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.processes import leave
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.sources import prepared_folder, scenes_of
from stereopsis.training.train_run import TrainedRun, build_packs, train

COMPARISON_FILE = "comparison.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the table.

    Attributes:
        name: folder name.
        label: what the table calls it.
        recipe: what is trained.
        note: a word of explanation.
    """

    name: str
    label: str
    recipe: Recipe
    note: str = ""


def evaluate_model(
    model: SpatialModel,
    recipe: Recipe,
    scenes: Sequence[Scene],
    folder: Path,
    *,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a model on some scenes, write records and summary into ``folder``, and return the summary.

    An evaluation that is there already is replaced.
    """
    predictor = model_predictor(model, recipe)
    asked = questions(scenes, recipe.evaluation.tasks)
    return run_evaluation(predictor, asked, folder, facts=facts_of(recipe, predictor), overwrite=True, console=console)


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


def run_arm(
    arm: Arm,
    folder: Path,
    packs: Sequence[ScenePack],
    scenes: Sequence[Scene],
    teachers: Teachers,
    *,
    pictures: int = 0,
    console: Console | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train one arm on packs that were built before, evaluate it, and draw what it imagines."""
    recipe = arm.recipe
    if recipe.model.blind:
        packs = [blinded(pack) for pack in packs]
    start = time.monotonic()
    run = train(recipe, folder, overwrite=True, packs=packs, console=console, progress=progress)
    trained = time.monotonic() - start
    summary = evaluate_model(run.model, recipe, scenes, folder / "evaluation", console=console)
    if pictures and teachers.latent is not None and run.model.objectives is not None:
        unseen = unseen_packs(run.model, recipe, scenes[:pictures], teachers)
        shown = tracked(unseen, "Drawing reconstructions", "scenes", console=console)
        write_pictures(run.model, shown, teachers.latent, folder / "pictures", seed=recipe.seed)
    (folder / "seconds.json").write_text(json.dumps({"train": round(trained, 1)}) + "\n")
    return summary


def kept_packs(recipe: Recipe, path: Path, *, console: Console | None = None) -> Path:
    """A recipe's training packs in a file, for many runs that share them; those of an earlier start stay.

    The file is a pickle: read it only in the program that wrote it.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        packs = build_packs(recipe, build_model(recipe), build_teachers(recipe), recipe.data.sources, console=console)
        with replacing(path) as partial:
            torch.save(packs, partial)
    return path


def unseen_packs(model: SpatialModel, recipe: Recipe, scenes: Sequence[Scene], teachers: Teachers) -> list[ScenePack]:
    """Packs of evaluation scenes with their targets, for pictures."""
    config = model.pack_config(views=recipe.data.views, **recipe.data.view_options, seed=recipe.seed)
    return [build_pack(scene, config, teachers) for scene in scenes]


def compare(
    arms: Sequence[Arm],
    folder: Path,
    *,
    title: str,
    pictures: int = 4,
    console: Console | None = None,
) -> Path:
    """Train and evaluate every arm, and write ``comparison.json``, from which the report is made.

    All arms share scenes and packs, which are built once with every teacher that any arm asks for.

    Returns:
        The path of ``comparison.json``.
    """
    start = time.monotonic()
    _require_equal_conditions(arms)
    full = max((arm.recipe for arm in arms), key=lambda recipe: len(recipe.objectives.active()))
    evaluation = full.evaluation.sources[0]
    scenes = scenes_of(evaluation, full.data.cache_folder, console=console)
    train_scenes = [
        s for source in full.data.sources for s in scenes_of(source, full.data.cache_folder, console=console)
    ]
    teachers = build_teachers(full)
    packs = build_packs(full, build_model(full), teachers, full.data.sources, console=console)
    table = []
    for arm in arms:
        if console is not None:
            console.print(f"[bold]{arm.label}[/bold]")
        run_arm(
            arm,
            folder / arm.name,
            packs,
            scenes,
            teachers,
            pictures=pictures,
            console=console,
            progress=console is not None,
        )
        table.append({"name": arm.name, "label": arm.label, "folder": arm.name, "note": arm.note})
    record = {
        "title": title,
        "arms": table,
        "baselines": baselines(train_scenes, scenes, full),
        "scenes": os.path.relpath(prepared_folder(evaluation, full.data.cache_folder), folder),
        "seconds": round(time.monotonic() - start, 1),
    }
    path = folder / COMPARISON_FILE
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


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


def demo_arms(seed: int, overrides: Sequence[str]) -> list[Arm]:
    """The demo's three arms: blind, words and grounding alone, everything on."""
    common = [f"seed={seed}", *overrides]
    return [
        Arm(
            name="blind",
            label="blind",
            recipe=load_recipe("blind-tiny", common),
            note="the same schedule, but it is shown one grey view: what language alone gives away",
        ),
        Arm(
            name="baseline",
            label="text + grounding",
            recipe=load_recipe("baseline-tiny", common),
            note="no supervision at the visual tokens",
        ),
        Arm(
            name="stereopsis",
            label="+ cross-view, bird's-eye, alignment",
            recipe=load_recipe("stereopsis-tiny", common),
            note="the same, supervised at the visual tokens as well",
        ),
    ]


def train_and_draw(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    pictures: int = 3,
    console: Console | None = None,
) -> TrainedRun:
    """Train a recipe and draw what it reconstructs of some of its own training scenes.

    Scenes with more views than the model sees at once are drawn from a spread of them. Of several processes that train
    together the first one draws, when they have parted.
    """
    run = train(recipe, folder, resume=resume, overwrite=overwrite, console=console)
    leave()
    if not pictures or not run.processes.main:
        return run
    teachers = build_teachers(recipe)
    if teachers.latent is None:
        return run
    shown = []
    for pack in run.packs[:pictures]:
        frames = len(pack.images)
        rounds = pictures if len(run.packs) == 1 and frames > recipe.data.views else 1
        for start in range(rounds):
            spread = [(start + int(i)) % frames for i in uniform_indices(frames, recipe.data.views)]
            shown.append(pack.select_views(sorted(set(spread))))
    drawn = tracked(shown, "Drawing reconstructions", "scenes", console=console)
    write_pictures(run.model, drawn, teachers.latent, folder / "pictures", seed=recipe.seed)
    return run


def evaluate_run(folder: Path, overrides: Sequence[str], *, console: Console | None = None, **options: Any) -> Path:
    """Evaluate a finished run on its recipe's evaluation scenes (or those that the overrides name).

    Args:
        folder: the run.
        overrides: of its recipe.
        console: shows the progress.
        options: further fields of `stereopsis.evaluation.evaluate_run.Request`.

    Returns:
        The folder of the (first source's) scenes, for the report.
    """
    return execute(make_plan(Request(model=str(folder), overrides=tuple(overrides), **options)), console=console)
