"""What ``stereopsis reconstruct`` does: from a run folder and some scenes to pictures and figures."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stereopsis.data.pack import ScenePack
from stereopsis.errors import RecipeError, RunFolderError, StereopsisError
from stereopsis.files import write_atomic
from stereopsis.model_files import HEADS_FILE
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import build_pack
from stereopsis.packs.targets import Teachers
from stereopsis.precision import choose_precision
from stereopsis.progress import say, tracked
from stereopsis.reading import json_or
from stereopsis.reconstruction.pages import RECONSTRUCT_FILE, Sampling, reconstruct
from stereopsis.reconstruction.sampling import MeanCells, imagining_objectives, mean_cells
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import uniform_indices
from stereopsis.training.posthoc_heads import fit_denoiser, load_heads, open_with_heads, prepare_heads, save_heads
from stereopsis.training.recipe import Recipe
from stereopsis.training.sections import SourceSection
from stereopsis.training.sources import scenes_of
from stereopsis.training.train_run import build_packs, environment, open_run

FOLDER = "reconstructions"
CONTROL_FILE = "control.json"
LEAST_FOR_MEAN = 8
"""A mean image over fewer scenes would be a picture of them rather than a guess."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructRequest:
    """What was asked for on the command line.

    Attributes:
        model: run folder.
        scenes: scenes, or folders of scenes.
        rooms: so many unseen procedural rooms, too.
        output: where everything goes; None = in the run.
        sampling: how to draw.
        controls: runs whose frozen models get a denoiser of their own, for contrast.
        control_steps: how long that is fitted; None = as long as the model's own.
        mean_scenes: average so many training scenes for the mean image.
        overrides: of the run's recipe.
        overwrite: write into an output that holds reconstructions already.
        precision: of the model's numbers (see `stereopsis.precision`).
    """

    model: Path
    scenes: tuple[Path, ...] = ()
    rooms: int = 0
    output: Path | None = None
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    controls: tuple[Path, ...] = ()
    control_steps: int | None = None
    mean_scenes: int = 64
    overrides: tuple[str, ...] = ()
    overwrite: bool = False
    precision: str = "auto"


def execute(request: ReconstructRequest, *, console: Console | None = None) -> Path:
    """Do it, and return the folder.

    Raises:
        RunFolderError: the output is in the way, or a run is not finished.
        RecipeError: the run reconstructs nothing.
        StereopsisError: there is no scene, or a control sees scenes differently.
    """
    output = request.model / FOLDER if request.output is None else request.output
    if (output / RECONSTRUCT_FILE).exists() and not request.overwrite:
        raise RunFolderError(f"{output} holds reconstructions already; add --overwrite, or choose another --output")
    precision = choose_precision(request.precision)
    say(console, precision.sentence)
    recipe, model, teachers = open_with_heads(request.model, overrides=request.overrides, dtype=precision.dtype)
    imagining_objectives(model)
    assert teachers.latent is not None
    scenes = [
        scene for path in request.scenes for scene in scenes_of(SourceSection(path=path), recipe.data.cache_folder)
    ]
    if request.rooms:
        unseen = SourceSection(rooms=request.rooms, split="test")
        scenes += scenes_of(unseen, recipe.data.cache_folder, console=console)
    if not scenes:
        raise StereopsisError("name the scenes to reconstruct (prepared scenes or captures), or so many --rooms")
    controls = {
        name: _control(folder, name, recipe, model, teachers, output, request.control_steps, console)
        for name, folder in _named(request.controls).items()
    }
    count = len(request.sampling.seeds)
    shown = tracked(scenes, "Reading scenes, asking teachers", "scenes", console=console)
    packs = [scene_packs(scene, recipe, model, teachers, count) for scene in shown]
    facts = {
        "title": f"What {recipe.name} imagines",
        "model": str(request.model),
        "scenes": [scene.id for scene in scenes],
        "controls": {name: str(folder) for name, folder in _named(request.controls).items()},
        **environment(),
        "precision": precision.record(),
    }
    means = training_means(recipe, model, teachers, request.mean_scenes, console=console)
    written = reconstruct(
        model,
        tracked(packs, "Imagining", "scenes", console=console),
        teachers.latent,
        output,
        request.sampling,
        controls=controls,
        means=means,
        facts=facts,
    )
    if not written["targets"]:
        raise StereopsisError("nothing was there to reconstruct: the scenes have a single view and none from above")
    return output


def scene_packs(scene: Scene, recipe: Recipe, model: SpatialModel, teachers: Teachers, count: int) -> list[ScenePack]:
    """A scene as the model sees it, so many times; where it has more frames than views, other frames each time."""
    views, frames = recipe.data.views, len(scene.frames)
    config = model.pack_config(views=views, **recipe.data.view_options, seed=recipe.seed)
    if config.selection != "uniform" or frames <= views:
        return [build_pack(scene, config, teachers)] * count
    packs = []
    for number in range(count):
        first = number * frames // (views * count)
        chosen = sorted({(first + int(i)) % frames for i in uniform_indices(frames, views)})
        packs.append(build_pack(scene.replace(frames=tuple(scene.frames[i] for i in chosen)), config, teachers))
    return packs


def training_means(
    recipe: Recipe, model: SpatialModel, teachers: Teachers, most: int, *, console: Console | None = None
) -> MeanCells | None:
    """The mean image of at most so many training scenes; None where there are too few to speak of."""
    scenes: list[Scene] = []
    for source in recipe.data.sources:
        if len(scenes) < most:
            left = most - len(scenes)
            some = source if source.rooms is None else source.model_copy(update={"rooms": min(source.rooms, left)})
            scenes += scenes_of(some, recipe.data.cache_folder, console=console)[:left]
    if len(scenes) < LEAST_FOR_MEAN:
        return None
    shown = tracked(scenes, "Averaging training scenes", "scenes", console=console)
    return mean_cells(scene_packs(scene, recipe, model, teachers, 1)[0] for scene in shown)


def _named(controls: Sequence[Path]) -> dict[str, Path]:
    """Controls by their folders' names.

    Raises:
        StereopsisError: two have the same.
    """
    names = {folder.name: folder for folder in controls}
    if len(names) < len(controls):
        raise StereopsisError("two controls lie in folders of the same name; rename one of them")
    return names


def _control(
    folder: Path,
    name: str,
    recipe: Recipe,
    model: SpatialModel,
    teachers: Teachers,
    output: Path,
    steps: int | None,
    console: Console | None,
) -> SpatialModel:
    """The control's model with a denoiser of its own: fitted now, or read back where it was fitted before."""
    _, control = open_run(folder, dtype=model.grounding.zero_target.dtype)
    mine, theirs = model.pack_config(), control.pack_config()
    if mine != theirs:
        raise RecipeError(
            f"control {folder} sees scenes differently ({theirs}) than the model ({mine}); train it on the same base "
            "with the same 'model:' section"
        )
    kept = output / f"control-{name}"
    made_with: dict[str, Any] = {"control": str(folder.resolve()), "steps": steps, "recipe": recipe.to_yaml()}
    known = kept / CONTROL_FILE
    if known.is_file() and json_or(known, RunFolderError, f"delete {kept} and run the same command again") == made_with:
        prepare_heads(control, recipe, teachers, kept / HEADS_FILE)
        load_heads(control, kept / HEADS_FILE)
        return control.eval()
    say(console, f"Fitting a denoiser to the frozen model of {folder}")
    packs = build_packs(recipe, control, teachers, recipe.data.sources, tasks=(), console=console)
    fit_denoiser(control, packs, recipe, kept, steps=steps, console=console)
    save_heads(control, kept)
    write_atomic(known, json.dumps(made_with, indent=1), error=RunFolderError)
    return control
