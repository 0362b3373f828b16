"""The model that a recipe would train, in shapes alone: real modules on PyTorch's meta device, no weights read."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN
from stereopsis.data.pack import GROUND, POINTS, POINTS_VALID
from stereopsis.errors import CheckpointError, StereopsisError, did_you_mean
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.models.storage import adapter_for, fresh_grid, open_config, read_settings
from stereopsis.reading import read_json
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.latent_tokenizers import load_latent_tokenizer
from stereopsis.training.build import build_objectives, made_ready, model_changes
from stereopsis.training.recipe import Recipe
from stereopsis.training.run_folder import base_folder
from stereopsis.training.sections import ASK_FEATURES, ASK_LATENTS
from stereopsis.weights.pretrained import open_pretrained

KNOWN_BASES = Path(__file__).resolve().parent / "known_bases.json"
"""Public configurations of the bases that shipped recipes name, so that nothing must be downloaded to plan."""

_LATENT_CHANNELS = {"flux": 16, "taef1": 16, "sd3": 16, "taesd3": 16, "flux2": 32}
_LATENT_CHANNELS |= dict.fromkeys(("sdxl", "sd1", "taesd", "taesdxl"), 4)
_FEATURE_CHANNELS = {"vggt": 2048, "vggt_npz": 2048}
_SHIPPED = ("point_map", "rooms_geometry")
_ASSUMED_LATENT_CHANNELS, _ASSUMED_FEATURE_CHANNELS = 16, 1024


class StandInTokenizer:
    """Answers what sequences' lengths depend on, where a base's own tokenizer is not at hand: one id per piece."""

    unk_token_id = None
    added_tokens_decoder: Mapping[int, Any] = MappingProxyType({})

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """An id for each token, counted from 1."""
        return 1 if isinstance(tokens, str) else list(range(1, len(tokens) + 1))

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """One id, as Gemma has for its newlines."""
        return {"input_ids": [1]}


def planned_model(recipe: Recipe) -> SpatialModel:
    """The recipe's model on the meta device: adapters and frozen parts as in training, objectives and their heads.

    Raises:
        CheckpointError: the base's folder is not there, and it is not one of the known ones.
        MissingExtraError: the recipe asks for adapters, and peft is not installed.
    """
    folder, section = base_folder(recipe), recipe.model
    config, tokenizer = base_config(folder), base_tokenizer(folder)
    if tokenizer is None:
        tokenizer = StandInTokenizer()
    else:
        text = config.get_text_config()
        extra = [t for t in (COORD_TOKEN, GROUND_TOKEN) if t not in tokenizer.get_vocab()]
        text.vocab_size = max(text.vocab_size, len(tokenizer) + len(extra) if extra else 0)
    changes = model_changes(recipe)
    if (folder / "config.json").is_file():
        settings = read_settings(folder, changes)
    else:
        settings = SpatialConfig(family=config.model_type, **{"view_grid": fresh_grid(config), **changes})
    with torch.device("meta"):
        backbone = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, section.dtype), attn_implementation="sdpa"
        )
        model = SpatialModel(
            backbone=backbone,
            adapter=adapter_for(backbone, settings.view_grid),
            tokenizer=tokenizer,
            config=settings,
        )
        made_ready(model, recipe)
        model.objectives = build_objectives(
            recipe.model_copy(update={"denoiser": recipe.denoiser.model_copy(update={"init": None})}),
            model.adapter.dim,
            planned_targets(recipe, settings.view_grid),
        )
    return model


def base_config(folder: Path) -> Any:
    """A base's configuration: its folder's, or a known one's.

    Raises:
        CheckpointError: neither.
    """
    if (folder / "config.json").is_file():
        return open_config(folder)
    known = read_json(KNOWN_BASES)
    if folder.name not in known:
        raise CheckpointError(
            f"base '{folder}': no such folder, and no base whose sizes are known{did_you_mean(folder.name, known)}; "
            "download it, or at least its config.json, into that folder"
        )
    return AutoConfig.for_model(**known[folder.name])


def base_tokenizer(folder: Path) -> Any:
    """A base's tokenizer; None where it is not at hand."""
    if not (folder / "tokenizer_config.json").is_file():
        return None
    return open_pretrained(AutoTokenizer, folder)


def planned_targets(recipe: Recipe, view_grid: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Targets of one scene with one view, in shapes alone."""
    section = recipe.teachers
    channels, downsampling = latent_shape(section.latent)
    rows, cols = view_grid
    view, above = ((size // downsampling + 1) // 2 for size in (section.view_size, section.birdseye_size))
    shapes: dict[str, tuple[int, ...]] = {
        "view_latents": (1, view, view, channels),
        "birdseye_latents": (1, above, above, channels),
        "birdseye_valid": (1, above, above),
        GROUND: (1, above, above, 2),
        "view_features": (1, rows, cols, feature_channels(section.features)),
        "view_features_valid": (1, rows, cols),
        POINTS: (1, rows, cols, 3),
        POINTS_VALID: (1, rows, cols),
    }
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def latent_shape(spec: str) -> tuple[int, int]:
    """Channels of a cell of a latent teacher, and pixels per latent; assumed for one that is not at hand."""
    kind = spec.partition(":")[0]
    if kind in _LATENT_CHANNELS:
        return 4 * _LATENT_CHANNELS[kind], 8
    try:
        tokenizer = load_latent_tokenizer(spec)
    except (StereopsisError, OSError):
        return 4 * _ASSUMED_LATENT_CHANNELS, 8
    return tokenizer.channels, tokenizer.downsampling


def feature_channels(spec: str) -> int:
    """Channels of a feature teacher; assumed for one that is not at hand."""
    kind = spec.partition(":")[0]
    if kind in _FEATURE_CHANNELS:
        return _FEATURE_CHANNELS[kind]
    try:
        with torch.device("cpu" if kind in _SHIPPED else "meta"):  # a file's numbers cannot be copied to "meta"
            return load_feature_teacher(spec).channels
    except (StereopsisError, OSError):
        return _ASSUMED_FEATURE_CHANNELS


def assumed_shapes(recipe: Recipe) -> list[str]:
    """What `planned_model` had to assume about a recipe, in words."""
    active, folder = recipe.objectives.active(), base_folder(recipe)
    found = []
    if not (folder / "config.json").is_file():
        found.append(f"sizes of '{folder.name}' as published; its folder is not here")
    for name, spec, kinds, users in (
        (
            "latent",
            recipe.teachers.latent,
            (*_LATENT_CHANNELS, "rooms", "pixels"),
            ASK_LATENTS,
        ),
        (
            "feature",
            recipe.teachers.features,
            (*_FEATURE_CHANNELS, "point_map", "rooms_geometry"),
            ASK_FEATURES,
        ),
    ):
        if any(user in active for user in users) and spec.partition(":")[0] not in kinds:
            number = _ASSUMED_LATENT_CHANNELS if name == "latent" else _ASSUMED_FEATURE_CHANNELS
            found.append(f"{name} teacher '{spec}': its own channels if it is here, else {number}")
    return found
