"""Opening what `serve` is given as a model: a run, a model folder, a converted checkpoint, or a plain backbone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stereopsis.models.spatial import SpatialModel

PLAIN_VIEWS = 8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OpenedModel:
    """A model that is ready to be asked.

    Attributes:
        model: for inference.
        name: for people and for ``/v1/models``.
        views: how many views of a room it is shown.
        options: more fields of `PackConfig`.
        grounds: whether its grounding head was trained.
        precision: what its products are computed in, in words.
    """

    model: "SpatialModel"
    name: str
    views: int | None
    options: dict[str, Any]
    grounds: bool
    precision: str


def open_model(folder: Path, *, precision: str = "auto", views: int | None = None, device: str = "auto") -> OpenedModel:
    """Open a model for a server; imports torch.

    Args:
        folder: a run, a model folder, a converted checkpoint or a plain Hugging Face multimodal LLM.
        precision: "auto", "bf16" or "fp32".
        views: of a room; None takes what the model was trained with.
        device: "auto" takes the GPU where there is one.

    Raises:
        RunFolderError: the folder holds neither a run nor a model.
        CheckpointError: the model is damaged, or of a family that nobody speaks for.
    """
    import torch

    from stereopsis.evaluation.model_folder import is_model_folder, points, recipe_of_folder
    from stereopsis.models.storage import load_model
    from stereopsis.precision import choose_precision
    from stereopsis.training.build import model_changes
    from stereopsis.training.recipe import load_recipe
    from stereopsis.training.run_folder import MODEL_FOLDER, RECIPE_FILE, check_finished, not_evaluable

    if is_model_folder(folder):
        recipe = recipe_of_folder(folder)
        weights, changes = folder, model_changes(recipe)
    elif (folder / RECIPE_FILE).is_file():
        check_finished(folder)
        recipe, weights, changes = load_recipe(folder / RECIPE_FILE), folder / MODEL_FOLDER, {}
    else:
        raise not_evaluable(folder)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    chosen = choose_precision(precision, place)
    model = load_model(weights, dtype=chosen.dtype, **changes).to(place)
    return OpenedModel(
        model=model,
        name=folder.resolve().name,
        views=views or recipe.data.views or PLAIN_VIEWS,
        options=recipe.data.view_options,
        grounds=points(weights),
        precision=chosen.sentence,
    )


Opening = Callable[[], OpenedModel]
