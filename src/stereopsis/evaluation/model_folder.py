"""A model folder without a run: what of a recipe its evaluation needs, taken from what the folder says of itself."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereopsis.benchmarks import benchmark_named, trained_benchmarks
from stereopsis.errors import StereopsisError
from stereopsis.model_files import CONFIG_FILE, RELEASED_CONFIG, SPATIAL_FILE
from stereopsis.models.lora import base_of
from stereopsis.models.storage import read_settings
from stereopsis.training.recipe import Recipe, load_recipe, recipe_with
from stereopsis.training.train_run import RECIPE_FILE

RELEASED_VIEWS = 32
"""Views that the released models see of a scene."""
_FIELDS = ("positions", "view_grid", "encoding_scale", "fit", "object_features", "instruction")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model and is no run."""
    return (folder / "config.json").is_file() and not (folder / RECIPE_FILE).is_file()


def points(folder: Path) -> bool:
    """Whether a model folder brings a trained grounding head; without one nothing can be pointed at."""
    base = base_of(folder)
    return (folder / SPATIAL_FILE).is_file() or (base is not None and points(base))


def recipe_of_folder(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe by which a model folder is evaluated.

    A folder inside a run (``model/``, a checkpoint) is seen through that run's recipe. Any other speaks for itself:
    its spatial_config.json says positions, fit, grid and instruction; a converted official model sees 32 views; a plain
    Hugging Face model has never met a 3D encoding and gets none.

    Args:
        folder: with config.json, weights and tokenizer.
        overrides: dotted keys, as for any recipe.

    Raises:
        CheckpointError: no adapter speaks for the model.
        RecipeError: an override is wrong.
    """
    settings = read_settings(folder, {})
    model: dict[str, Any] = {"base": str(folder)}
    if (folder / CONFIG_FILE).is_file():
        model |= {key: value for key, value in dataclasses.asdict(settings).items() if key in _FIELDS}
    else:
        model["positions"] = "none"
    content: dict[str, Any] = {"name": folder.resolve().name, "model": model, "objectives": {"text": {}}}
    if (folder / RELEASED_CONFIG).is_file():
        content["data"] = {"views": RELEASED_VIEWS}
    run = next((above for above in folder.resolve().parents[:2] if (above / RECIPE_FILE).is_file()), None)
    if run is not None:
        own = load_recipe(run / RECIPE_FILE).model_dump(mode="json")
        content = {**own, "model": {**own["model"], **model}}
    elif not points(folder):
        spoken = [name for name in trained_benchmarks() if benchmark_named(name).kind != "pointing"]
        content["evaluation"] = {"tasks": spoken}
    return recipe_with(content, overrides, str(folder))


def require_pointing(folder: Path, recipe: Recipe) -> None:
    """Refuse to let a grounding head answer that nobody has trained.

    Raises:
        StereopsisError: such a benchmark is asked for, and the folder has no grounding head.
    """
    pointed = [name for name in recipe.evaluation.tasks if benchmark_named(name).kind == "pointing"]
    if pointed and not points(folder):
        raise StereopsisError(
            f"{folder} has no grounding head ({SPATIAL_FILE}), so it cannot point at boxes ({', '.join(pointed)}); "
            "name other benchmarks with --benchmarks, or train it with 'grounding: {}' first"
        )


def output_of(folder: Path) -> Path:
    """Where a model folder's evaluation goes where nothing else is said: a folder of its own, here."""
    return Path(f"{folder.resolve().name}-evaluation")
