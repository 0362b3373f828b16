"""The shipped model that answers about procedural rooms: the tiny base, and what a demo's training made of it."""

from pathlib import Path
from typing import Any

import stereopsis.assets
from stereopsis.errors import CheckpointError
from stereopsis.reading import read_tensors
from stereopsis.serve.opening import OpenedModel

NAME = "tiny-rooms"
TUNED_FILE = "tuned.safetensors"
VIEWS = 8


def tuned_folder() -> Path:
    """Where the tuned weights lie, with their card."""
    return Path(stereopsis.assets.__file__).parent / "tiny_tuned"


def open_tiny(*, precision: str = "auto", views: int | None = None) -> OpenedModel:
    """Open the tiny base with the tuned weights; imports torch.

    Raises:
        CheckpointError: the installation is damaged.
    """
    from stereopsis.models.storage import load_model
    from stereopsis.precision import choose_precision
    from stereopsis.training.run_folder import TINY_BASE

    chosen = choose_precision(precision, "cpu")
    model = load_model(TINY_BASE, dtype=chosen.dtype)
    put_in(model, tuned_folder() / TUNED_FILE)
    return OpenedModel(
        model=model, name=NAME, views=views or VIEWS, options={}, grounds=True, precision=chosen.sentence
    )


def put_in(model: Any, path: Path) -> None:
    """Put the tuned weights into the model that they were made from.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another base.
    """
    try:
        tuned = read_tensors(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); install the package again") from error
    own = model.state_dict()
    wrong = sorted(key for key, tensor in tuned.items() if key not in own or own[key].shape != tensor.shape)
    if wrong:
        raise CheckpointError(f"{path} belongs to another base model ({wrong[:3]}); install the package again")
    model.load_state_dict(tuned, strict=False)
