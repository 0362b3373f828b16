"""One run: trained, drawn, evaluated, described."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stereopsis.evaluation.evaluate_run import Request, execute, make_plan
from stereopsis.progress import tracked
from stereopsis.reconstruction.pictures import write_pictures
from stereopsis.scenes.selection import uniform_indices
from stereopsis.training.build import build_teachers
from stereopsis.training.processes import leave
from stereopsis.training.recipe import Recipe
from stereopsis.training.trackers import report_pictures
from stereopsis.training.train_run import TrainedRun, train


def train_and_draw(
    recipe: Recipe,
    folder: str | Path,
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
    folder = Path(folder)
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
    report_pictures(recipe.training.report_to, folder, recipe.training.steps)
    return run


def evaluate_run(
    folder: str | Path, overrides: Sequence[str], *, console: Console | None = None, **options: Any
) -> Path:
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
