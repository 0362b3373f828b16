"""Training heads on models that are trained already: opened again with their run, or fitted to a frozen model.

Inference never reads the heads. Whoever wants to see what a model imagines needs them: the run's own, or, for a model
that was trained without reconstructing anything, a denoiser that is fitted to its outputs while it stays as it is.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from stereopsis.data.pack import ScenePack
from stereopsis.errors import RecipeError, RunFolderError
from stereopsis.files import replacing
from stereopsis.model_files import HEADS_FILE
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model, load_tensors
from stereopsis.objective_sections import ObjectivesSection
from stereopsis.objectives.reconstruction_base import ReconstructionObjective
from stereopsis.packs.dataset import PackDataset
from stereopsis.packs.targets import Teachers
from stereopsis.reading import open_tensors
from stereopsis.training.build import OBJECTIVES, build_objectives, build_teachers
from stereopsis.training.recipe import Recipe, load_recipe
from stereopsis.training.train_run import MODEL_FOLDER, RECIPE_FILE, check_finished, fit

RECONSTRUCTIONS = tuple(name for name, kind in OBJECTIVES.items() if issubclass(kind, ReconstructionObjective))
_BIRDSEYE_KEY = "denoiser.pos_embed_bev"


def reconstructions_only(recipe: Recipe) -> Recipe:
    """The recipe with its reconstruction objectives alone, and no weights to start from.

    Where none of them is active in every step, the steps in which nothing would happen are left out: what is due every
    fourth of 300 steps becomes due in every one of 75.

    Raises:
        RecipeError: it reconstructs nothing.
    """
    active = {name: each for name, each in recipe.objectives.active().items() if name in RECONSTRUCTIONS}
    if not active:
        raise RecipeError(
            f"recipe '{recipe.name}' has no reconstruction objective (it has {', '.join(recipe.objectives.active())}); "
            f"take a run that trained one of {', '.join(RECONSTRUCTIONS)}, or fit a denoiser to it as the --control of "
            "such a run"
        )
    idle = min(section.every for section in active.values())
    rarer: dict[str, Any] = {
        n: s.model_copy(update={"every": max(1, round(s.every / idle))}) for n, s in active.items()
    }
    training = recipe.training.model_copy(update={"steps": math.ceil(recipe.training.steps / idle)})
    denoiser = recipe.denoiser.model_copy(update={"init": None})
    return recipe.model_copy(
        update={"objectives": ObjectivesSection(**rarer), "training": training, "denoiser": denoiser}
    )


def open_with_heads(
    folder: Path, *, overrides: Sequence[str] = (), dtype: torch.dtype = torch.float32
) -> tuple[Recipe, SpatialModel, Teachers]:
    """A finished run's recipe, its model with the heads of its reconstruction objectives, and its latent teacher.

    Args:
        folder: written by `train`.
        overrides: of its recipe; a teacher's folder may have moved.
        dtype: of the backbone's parameters; the heads are always float32.

    Raises:
        RunFolderError: no finished run, or one whose heads are gone.
        RecipeError: the run reconstructs nothing.
        CheckpointError: the heads belong to another architecture.
    """
    check_finished(folder)
    recipe = load_recipe(folder / RECIPE_FILE, overrides)
    path = folder / MODEL_FOLDER / HEADS_FILE
    plan = reconstructions_only(recipe)
    if not path.is_file():
        raise RunFolderError(
            f"{path} does not exist: the training heads were removed; copy the whole run folder, or train again"
        )
    model = load_model(folder / MODEL_FOLDER, dtype=dtype)
    teachers = build_teachers(plan)
    prepare_heads(model, recipe, teachers, path)
    load_heads(model, path)
    return recipe, model.eval(), teachers


def prepare_heads(model: SpatialModel, recipe: Recipe, teachers: Teachers, path: Path) -> None:
    """Give a model fresh heads of the recipe's reconstruction objectives, of the sizes that a file of heads has."""
    plan = reconstructions_only(recipe)
    model.objectives = build_objectives(plan, model.adapter.dim, _targets(plan, teachers, path))


def load_heads(model: SpatialModel, path: Path) -> None:
    """Read the heads of a model's objectives from a file that may hold those of further objectives.

    Raises:
        CheckpointError: they belong to another architecture.
    """
    assert model.objectives is not None
    names = tuple(f"members.{name}." for name, _ in model.objectives)
    load_tensors(model.objectives, path, only=(*names, "denoiser."))


def _targets(recipe: Recipe, teachers: Teachers, path: Path) -> dict[str, torch.Tensor]:
    """Empty targets of the sizes that the run's had."""
    assert teachers.latent is not None
    grids = {"view": teachers.latent.grid(recipe.teachers.view_size, recipe.teachers.view_size)}
    with open_tensors(path) as file:
        if _BIRDSEYE_KEY in file.keys():  # noqa: SIM118
            grids["birdseye"] = teachers.latent.grid(recipe.teachers.birdseye_size, recipe.teachers.birdseye_size)
    targets = {f"{kind}_latents": torch.zeros(1, *grid, teachers.latent.channels) for kind, grid in grids.items()}
    if "birdseye" in grids:
        targets["birdseye_valid"] = torch.zeros(1, *grids["birdseye"], dtype=torch.bool)
    return targets


def fit_denoiser(
    model: SpatialModel,
    packs: Sequence[ScenePack],
    recipe: Recipe,
    folder: Path,
    *,
    steps: int | None = None,
    console: Console | None = None,
) -> None:
    """Fit fresh reconstruction heads to a model that stays as it is.

    Trained are the denoiser, the mask token and whatever else the recipe's reconstruction objectives own; the
    model's outputs are the only thing that tells the denoiser about a scene. Words are left out: views never see them.
    Afterwards the model has these objectives, and `reconstruct` works.

    Args:
        model: any; objectives that it has are replaced.
        packs: with latent targets.
        recipe: whose reconstruction objectives, denoiser, optimiser and schedule are used.
        folder: where losses are logged.
        steps: optimiser steps; None = as many as the recipe's heads had.
        console: where to show progress; None = quiet.

    Raises:
        RecipeError: the recipe reconstructs nothing, or the packs lack a target.
    """
    plan = reconstructions_only(recipe)
    if steps is not None:
        plan = plan.model_copy(update={"training": plan.training.model_copy(update={"steps": steps})})
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"save_every": 0})})
    dataset = PackDataset(
        packs,
        conversations=1,
        text_share=0.0,
        views=plan.data.views if plan.data.selection == "random" else None,
        subsets=plan.data.subsets,
        seed=plan.seed,
    )
    probe = model.collator()([dataset[0]])
    model.objectives = None
    model.requires_grad_(False)
    objectives = build_objectives(plan, model.adapter.dim, probe.targets)
    objectives.check(probe)
    model.objectives = objectives
    folder.mkdir(parents=True, exist_ok=True)
    fit(plan, model, dataset, folder, console=console)
    model.eval()


def save_heads(model: SpatialModel, folder: Path) -> Path:
    """Write the heads of a model's objectives, and nothing else, and return the file."""
    from safetensors.torch import save_file

    assert model.objectives is not None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / HEADS_FILE
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.objectives.state_dict().items()}
    with replacing(path) as partial:
        save_file(state, partial)
    return path
