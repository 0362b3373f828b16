"""One arm of a comparison: a recipe that is trained, evaluated and drawn."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from stereopsis.data.pack import ScenePack
from stereopsis.errors import StereopsisError
from stereopsis.evaluation.evaluate_run import facts_of, model_predictor
from stereopsis.evaluation.questions import questions
from stereopsis.evaluation.resumable import run_evaluation
from stereopsis.files import replacing, write_atomic
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import blinded, build_pack
from stereopsis.packs.targets import Teachers
from stereopsis.progress import tracked
from stereopsis.reading import read_json
from stereopsis.reconstruction.pictures import write_pictures
from stereopsis.scenes.scene import Scene
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.model_card import write_card
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.run_folder import RECIPE_FILE
from stereopsis.training.train_run import build_packs, train

FINISHED_FILE = "arm.json"
"""Written last: what the arm was made with, and how long its training took."""


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


def run_arm(
    arm: Arm,
    folder: Path,
    packs: Sequence[ScenePack],
    scenes: Sequence[Scene],
    teachers: Teachers,
    *,
    pictures: int = 0,
    overwrite: bool = True,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train one arm on packs that were built before, evaluate it, and draw what it imagines.

    Args:
        arm: what to train.
        folder: gets the run and its evaluation.
        packs: of the training scenes, with everything that the arm's objectives need.
        scenes: to evaluate on.
        teachers: that answered in the packs.
        pictures: draw reconstructions of so many scenes.
        overwrite: train anew; otherwise a training of the same recipe that was interrupted goes on.
        console: where to show progress; None = quiet.

    Returns:
        The evaluation's summary.
    """
    recipe = arm.recipe
    if recipe.model.blind:
        packs = [blinded(pack) for pack in packs]
    start = time.monotonic()
    resume = not overwrite and _same_recipe(folder / RECIPE_FILE, recipe)
    shown = console is not None
    run = train(recipe, folder, resume=resume, overwrite=not resume, packs=packs, console=console, progress=shown)
    trained = time.monotonic() - start
    summary = evaluate_model(run.model, recipe, scenes, folder / "evaluation", console=console)
    write_card(folder)
    if pictures and teachers.latent is not None and run.model.objectives is not None:
        unseen = unseen_packs(run.model, recipe, scenes[:pictures], teachers)
        drawn = tracked(unseen, "Drawing reconstructions", "scenes", console=console)
        write_pictures(run.model, drawn, teachers.latent, folder / "pictures", seed=recipe.seed)
    record = {"made_with": _conditions(recipe), "train_seconds": round(trained, 1)}
    write_atomic(folder / FINISHED_FILE, json.dumps(record, indent=1) + "\n")
    return summary


def finished_arm(folder: Path, recipe: Recipe) -> bool:
    """Whether an arm of this recipe has been trained and evaluated in a folder."""
    path = folder / FINISHED_FILE
    return path.is_file() and read_json(path).get("made_with") == _conditions(recipe)


def _same_recipe(path: Path, recipe: Recipe) -> bool:
    try:
        return path.is_file() and load_recipe(path) == recipe
    except StereopsisError:  # an older version's
        return False


def _conditions(recipe: Recipe) -> dict[str, Any]:
    """What decides an arm's result: neither where packs are kept nor how many threads compute."""
    plain = recipe.model_dump(mode="json")
    del plain["teachers"]["cache"], plain["training"]["threads"]
    return plain


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


def demo_arms(seed: int, overrides: Sequence[str]) -> list[Arm]:
    """The demo's three arms: blind, words and grounding alone, everything on."""
    common = [f"seed={seed}", "training.save_every=50", *overrides]
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
