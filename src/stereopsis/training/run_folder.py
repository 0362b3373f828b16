"""What a run folder holds, and which folders are refused before torch is imported."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stereopsis.errors import CheckpointError, RunFolderError
from stereopsis.files import locked
from stereopsis.model_files import CONFIG_FILE, HEADS_FILE, SPATIAL_FILE
from stereopsis.training.recipe import Recipe, load_recipe

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
MODEL_FOLDER = "model"
CHECKPOINTS = "checkpoints"
LOCK_FILE = ".training.lock"
TINY_BASE = Path(__file__).resolve().parent.parent / "assets" / "tiny_base"
MAY_CHANGE = ("keep", "log_every", "on_nonfinite", "report_to", "save_every", "steps", "threads")
"""Keys of ``training:`` that a run may be resumed with other values of."""


def check_run_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that is in the way, before any work is done.

    Raises:
        RunFolderError: it holds a run already, or (resuming) a run of another recipe.
    """
    if (folder / RECIPE_FILE).exists():
        if resume:
            _check_continues(folder, load_recipe(folder / RECIPE_FILE), recipe)
            return
        if not overwrite:
            raise RunFolderError(
                f"{folder} already holds a run; add --resume to continue it, --overwrite to replace it, or choose "
                "another --output"
            )
    elif folder.exists() and any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise RunFolderError(f"{folder} is not empty and holds no run; choose another --output")
    elif resume:
        raise RunFolderError(f"{folder} holds no run to resume; leave --resume out to start one")


def _check_continues(folder: Path, begun: Recipe, recipe: Recipe) -> None:
    """Refuse to go on with what is no continuation of a run.

    Raises:
        RunFolderError: another recipe, fewer steps than have been taken, or more steps and no checkpoint.
    """
    if _deciding(begun) != _deciding(recipe):
        raise RunFolderError(
            f"{folder} holds a run of another recipe; resume it with its own recipe ({folder / RECIPE_FILE}; what may "
            f"change: training.{', '.join(sorted(MAY_CHANGE))}), or choose another --output"
        )
    taken = max((int(path.name.rpartition("-")[2]) for path in (folder / CHECKPOINTS).glob("checkpoint-*")), default=0)
    steps, model = recipe.training.steps, folder / MODEL_FOLDER
    if steps < taken:
        raise RunFolderError(f"{folder} has taken {taken} steps already; ask for so many or more, found {steps}")
    if steps > begun.training.steps and not taken and (model / "config.json").is_file():
        raise RunFolderError(
            f"{folder} is finished and kept no checkpoint (save_every: 0), so it cannot take more steps; start another "
            f"run from its weights instead: --init-from {folder} --output ANOTHER"
        )


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides its numbers, step by step."""
    plain = recipe.model_dump()
    for key in MAY_CHANGE:
        del plain["training"][key]
    return plain


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a run folder while it is trained into: nobody else may, and nothing of others is removed.

    A folder that was made for this and still holds nothing at the end of the block is removed again.

    Args:
        folder: the run's, made where it is not there.

    Raises:
        RunFolderError: another process holds it.
        OSError: it cannot be made or written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK_FILE):
            yield
    except BlockingIOError as error:
        raise RunFolderError(
            f"another process is training into {folder}; wait for it, or choose another --output"
        ) from error
    finally:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def empty_run_folder(folder: Path, *, overwrite: bool) -> None:
    """Remove an earlier run from a claimed folder, if that was asked for.

    Raises:
        RunFolderError: it was not, and something has appeared since the folder was claimed.
    """
    inside = [path for path in folder.iterdir() if path.name != LOCK_FILE] if folder.is_dir() else []
    if inside and not overwrite:
        raise RunFolderError(
            f"{inside[0]} has appeared in {folder} while scenes were packed, and was left alone; move it away, or "
            "choose another --output, and start again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in inside:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def start_from(run: Path) -> list[str]:
    """The overrides with which a recipe starts from a finished run's weights, heads included where it has any.

    Raises:
        RunFolderError: the folder holds no finished run.
    """
    check_finished(run)
    model = run / MODEL_FOLDER
    heads = ["model.heads=base"] * (model / HEADS_FILE).is_file()
    return [f"model.base={json.dumps(str(model))}", *heads]


def how_to_go_on(folder: Path, recipe: Recipe) -> str:
    """What must be added to the same command so that an interrupted run goes on."""
    if not (folder / RECIPE_FILE).is_file():
        return ""
    if any((folder / CHECKPOINTS).glob("checkpoint-*")):
        return ", with --resume"
    kept = "there is no checkpoint yet" if recipe.training.save_every else "'save_every: 0' keeps no checkpoints"
    return f", with --overwrite: {kept}, so training starts anew (its scenes stay)"


def base_folder(recipe: Recipe) -> Path:
    """Where the recipe's base lies, whether or not it is there."""
    return TINY_BASE if recipe.model.base == "tiny" else Path(recipe.model.base)


def require_base(recipe: Recipe) -> Path:
    """The folder of the recipe's base.

    Raises:
        CheckpointError: it is no folder.
    """
    folder = base_folder(recipe)
    if not folder.is_dir():
        raise CheckpointError(f"base '{recipe.model.base}': no such folder; give 'tiny' or a folder with config.json")
    return folder


def not_evaluable(folder: Path) -> RunFolderError:
    """The error for a folder that is neither a run nor a model."""
    return RunFolderError(
        f"{folder} holds no finished run (no {RECIPE_FILE} with model/config.json) and no model (no config.json); "
        "give a run made by 'stereopsis train', a model folder, or a converted checkpoint ('stereopsis convert')"
    )


def check_finished(folder: Path) -> None:
    """Refuse a folder that holds no finished run.

    Raises:
        RunFolderError: names what it lacks.
    """
    for name in (RECIPE_FILE, f"{MODEL_FOLDER}/config.json"):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder} holds no finished run (no {name}); make one with 'stereopsis train'")
    for name in (CONFIG_FILE, SPATIAL_FILE):
        if not (folder / MODEL_FOLDER / name).is_file():
            raise RunFolderError(
                f"{folder / MODEL_FOLDER / name} is missing: the trained model's spatial part, without which an "
                "untrained one would answer; copy the run again, or continue it with 'stereopsis train --resume'"
            )
