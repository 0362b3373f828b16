"""Assembling a run from its recipe: model, teachers, objectives."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN
from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.models.lora import LoraConfig, add_lora
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model
from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.base import BuildContext, Objective
from stereopsis.objectives.camera_pose import CameraPose
from stereopsis.objectives.consistency import Consistency
from stereopsis.objectives.contrastive import Contrastive
from stereopsis.objectives.denoiser_network import Denoiser, DenoiserConfig
from stereopsis.objectives.depth import DepthHead
from stereopsis.objectives.grounding import GroundingLoss
from stereopsis.objectives.point_map import PointMap
from stereopsis.objectives.rays import RayMap
from stereopsis.objectives.reconstruction import BirdsEye, CrossView, VanillaReconstruction
from stereopsis.objectives.relational import Relational
from stereopsis.objectives.released import initialise_denoiser
from stereopsis.objectives.set import ObjectiveSet, require_targets
from stereopsis.objectives.text import TextLoss
from stereopsis.packs.targets import Teachers
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.latent_tokenizers import load_latent_tokenizer
from stereopsis.training.optimizer import adamw_of
from stereopsis.training.preflight import require_layers
from stereopsis.training.recipe import Recipe
from stereopsis.training.run_folder import base_folder, require_base
from stereopsis.training.sections import ASK_FEATURES, ASK_LATENTS

OBJECTIVES: Mapping[str, type[Objective]] = {
    "text": TextLoss,
    "grounding": GroundingLoss,
    "vanilla": VanillaReconstruction,
    "cross_view": CrossView,
    "birds_eye": BirdsEye,
    "alignment": FeatureAlignment,
    "depth": DepthHead,
    "point_map": PointMap,
    "rays": RayMap,
    "camera_pose": CameraPose,
    "contrastive": Contrastive,
    "consistency": Consistency,
    "relational": Relational,
}


def build_model(recipe: Recipe) -> SpatialModel:
    """Open the recipe's base; its spatial parts start fresh unless the base has them.

    Raises:
        CheckpointError: the base is not a model folder.
        MissingExtraError: the recipe asks for adapters or quantised weights whose package is not installed.
    """
    section, folder = recipe.model, require_base(recipe)
    torch.manual_seed(recipe.seed)
    model = load_model(
        folder,
        dtype=getattr(torch, section.dtype),
        load_in=section.load_in,
        attention=section.attention,
        **model_changes(recipe),
    )
    return made_ready(model, recipe)


def model_changes(recipe: Recipe) -> dict[str, Any]:
    """The fields of `SpatialConfig` that the recipe sets."""
    section = recipe.model
    changes: dict[str, Any] = {
        "positions": "none" if section.blind else section.positions,
        "train_vision": section.train_vision,
        "instruction": section.instruction,
    }
    for key in ("view_grid", "fit", "object_features", "encoding_scale"):
        if getattr(section, key) is not None:
            changes[key] = getattr(section, key)
    return changes


def made_ready(model: SpatialModel, recipe: Recipe) -> SpatialModel:
    """Give an opened base what the recipe trains it with: adapters, checkpointing, heads in full precision.

    Raises:
        MissingExtraError: peft is not installed.
        RecipeError: the language model has no matrix of a name under ``model.lora.targets``.
    """
    section = recipe.model.lora
    if section is not None:
        ids = model.tokenizer.convert_tokens_to_ids([COORD_TOKEN, GROUND_TOKEN])  # these may start untrained
        add_lora(model.backbone, LoraConfig(**section.model_dump()), base=base_folder(recipe), tokens=tuple(ids))
    model.grounding.float()
    if recipe.training.checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # renamed in newer versions of transformers
            model.backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    return model


def build_teachers(recipe: Recipe) -> Teachers:
    """Load the teachers that the recipe's objectives need, and no others, on a GPU where there is one.

    Raises:
        RecipeError: unknown teacher, or a picture size that it cannot take.
    """
    active, section = recipe.objectives.active(), recipe.teachers
    latent = None
    if any(name in active for name in ASK_LATENTS):
        latent = load_latent_tokenizer(section.latent)
        for name, size in (("view_size", section.view_size), ("birdseye_size", section.birdseye_size)):
            try:
                latent.grid(size, size)
            except ValueError as error:
                raise RecipeError(f"teachers.{name}: {error}") from error
    return Teachers(
        latent=latent,
        features=load_feature_teacher(section.features) if any(n in active for n in ASK_FEATURES) else None,
        view_size=section.view_size,
        birdseye_size=section.birdseye_size,
    ).to(own_device())


def own_device() -> torch.device:
    """This process's own GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def build_objectives(recipe: Recipe, dim: int, targets: Mapping[str, torch.Tensor]) -> ObjectiveSet:
    """Make the objectives and their heads, sized by one batch's targets.

    Args:
        recipe: says which.
        dim: hidden size of the language model.
        targets: `Batch.targets` of any batch of the run.

    Raises:
        RecipeError: an objective's target is missing.
        CheckpointError: the weights that the denoiser should start from do not fit.
    """
    active = recipe.objectives.active()
    for name in active:
        require_targets(name, OBJECTIVES[name].needs, targets)
    torch.manual_seed(recipe.seed + 1)
    denoiser, mask_token = None, None
    if any(name in active for name in ASK_LATENTS) and "view_latents" in targets:
        denoiser = _denoiser(recipe, dim, targets)
        if recipe.denoiser.init is not None:
            mask_token = initialise_denoiser(denoiser, recipe.denoiser.init)
    context = BuildContext(dim=dim, targets=targets, denoiser=denoiser)
    members = {name: _member(name, context, section.model_dump()) for name, section in active.items()}
    cross_view = members.get("cross_view")
    if isinstance(cross_view, CrossView) and mask_token is not None:
        if mask_token.shape != cross_view.mask_token.shape:
            raise CheckpointError(
                f"{recipe.denoiser.init}: its mask token has {len(mask_token)} features, the model's tokens {dim}; "
                "the file belongs to another base"
            )
        cross_view.mask_token.data.copy_(mask_token)
    return ObjectiveSet(members, denoiser)


def _member(name: str, context: BuildContext, options: dict[str, Any]) -> Objective:
    shuffle = options.pop("shuffle", False)
    member = OBJECTIVES[name].from_recipe(context, **options)
    member.shuffle = shuffle
    return member


def try_out(recipe: Recipe, model: SpatialModel, teachers: Teachers) -> None:
    """Find before rooms and packs are made what would else end a run after them.

    Raises:
        RecipeError: an objective reads a layer that the model lacks, or there is no such optimiser.
        StereopsisError: the instruction holds a special token.
        MissingExtraError: the optimiser's package is not installed.
        CheckpointError: the weights that the denoiser should start from do not fit.
    """
    require_layers(recipe, model.adapter.depth)
    _ = model.chat  # a template or an instruction that cannot be written is refused here
    if recipe.training.optimizer != "muon":
        adamw_of(recipe.training.optimizer)
    latent, section = teachers.latent, recipe.teachers
    if latent is None or recipe.denoiser.init is None:
        return
    sizes = {"view_latents": section.view_size, "birdseye_latents": section.birdseye_size}
    targets = {name: torch.zeros(1, *latent.grid(size, size), latent.channels) for name, size in sizes.items()}
    with torch.random.fork_rng(devices=[]):
        initialise_denoiser(_denoiser(recipe, model.adapter.dim, targets), recipe.denoiser.init)


def _denoiser(recipe: Recipe, dim: int, targets: Mapping[str, torch.Tensor]) -> Denoiser:
    """A fresh denoiser of the recipe's size for these targets."""
    birdseye = targets.get("birdseye_latents")
    section = recipe.denoiser
    return Denoiser(
        DenoiserConfig(
            condition_dim=dim,
            channels=targets["view_latents"].shape[-1],
            view_grid=_grid(targets["view_latents"]),
            birdseye_grid=None if birdseye is None else _grid(birdseye),
            width=section.width,
            depth=section.depth,
            heads=section.heads,
            diffusion=section.diffusion,
            times=section.times,
            dropout=section.dropout,
        )
    )


def _grid(cells: torch.Tensor) -> tuple[int, int]:
    return int(cells.shape[1]), int(cells.shape[2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters by part."""

    backbone: int
    trained: int
    grounding: int
    training_heads: int


def count_parameters(model: SpatialModel) -> ParameterCount:
    """How many parameters each part of a model has; training heads are gone at inference."""
    heads = 0 if model.objectives is None else sum(p.numel() for p in model.objectives.parameters())
    return ParameterCount(
        backbone=sum(p.numel() for p in model.backbone.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        grounding=sum(p.numel() for p in model.grounding.parameters()),
        training_heads=heads,
    )
