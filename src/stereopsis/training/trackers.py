"""Experiment trackers, through the Trainer: every logged loss under our names, and the pictures of reconstructions."""

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stereopsis.errors import MissingExtraError
from stereopsis.reading import read_json

PROJECT = "stereopsis"
"""What trackers that have projects file runs under."""
PICTURES = Path("pictures", "pictures.json")
TENSORBOARD_FOLDER = "tensorboard"
"""In a run's folder: what ``tensorboard --logdir RUN`` shows."""


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        MissingExtraError: names the first of them and the command that brings it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, name, "training.report_to", command=f"pip install {name}")


def tracker_callbacks(names: Sequence[str], folder: Path) -> list[Any]:
    """Callbacks of the trackers that keep their files in the run's folder; the others are the Trainer's own."""
    if "tensorboard" not in names:
        return []
    from transformers.integrations import TensorBoardCallback

    callback = TensorBoardCallback()
    callback.logging_dir = str(folder / TENSORBOARD_FOLDER)
    return [callback]


def report_pictures(names: Sequence[str], folder: Path, step: int) -> None:
    """Send a run's pictures (target beside reconstruction) to the trackers that take pictures.

    Args:
        names: of the trackers.
        folder: the run's.
        step: under which they are filed.
    """
    if not names or not (folder / PICTURES).is_file():
        return
    pictures = list(_pictures(folder))
    for name in names:
        _SEND[name](pictures, folder, step)


def _pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    inside = (folder / PICTURES).parent
    for number, entry in enumerate(read_json(folder / PICTURES)):
        for part in ("target", "reconstruction"):
            if entry.get(part):
                yield f"{entry['kind']}/{number}-{entry['scene_id']}/{part}", inside / entry[part]


def _to_tensorboard(pictures: Sequence[tuple[str, Path]], folder: Path, step: int) -> None:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

    from stereopsis.reading import open_image

    writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER))
    for name, path in pictures:
        with open_image(path) as image:
            writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
    writer.close()


def _to_wandb(pictures: Sequence[tuple[str, Path]], folder: Path, step: int) -> None:
    wandb = importlib.import_module("wandb")
    if wandb.run is not None:  # the Trainer leaves its run open
        wandb.log({name: wandb.Image(str(path)) for name, path in pictures})


def _to_trackio(pictures: Sequence[tuple[str, Path]], folder: Path, step: int) -> None:
    trackio = importlib.import_module("trackio")
    trackio.init(project=PROJECT, name=folder.name, resume="allow")  # the Trainer has closed its run
    trackio.log({name: trackio.Image(str(path)) for name, path in pictures}, step=step)
    trackio.finish()


def _to_mlflow(pictures: Sequence[tuple[str, Path]], folder: Path, step: int) -> None:
    mlflow = importlib.import_module("mlflow")
    last = mlflow.last_active_run()
    if last is None:
        return
    with mlflow.start_run(run_id=last.info.run_id):
        for name, path in pictures:
            mlflow.log_artifact(str(path), artifact_path=f"pictures/{name.rpartition('/')[0]}")


_SEND = {"mlflow": _to_mlflow, "tensorboard": _to_tensorboard, "trackio": _to_trackio, "wandb": _to_wandb}
