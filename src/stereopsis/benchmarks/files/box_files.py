"""Files of candidate boxes, and boxes in files of predictions."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.files.strict_json import parse_strictly, shown
from stereopsis.errors import StereopsisError
from stereopsis.reading import read_text, read_torch


def read_boxes(path: Path) -> dict[str, Float[np.ndarray, "boxes 6"]]:
    """Read ``{scene: [[cx, cy, cz, dx, dy, dz], ...]}``, aligned frame, metres.

    Video-3D-LLM's ``scannet_val_pred_box.json`` has this form, with "scannet/" before each scene, which is taken off;
    Chat-Scene's ``scannet_*_attributes.pt`` holds a scene's boxes under ``locs``, in the order of its instances.

    Raises:
        StereopsisError: the file cannot be read, or holds something else.
    """
    try:
        content = _tensors(path) if path.suffix == ".pt" else parse_strictly(read_text(path), str(path))
    except (OSError, ValueError) as error:
        raise StereopsisError(f"{path} cannot be read ({error}); give a JSON file {{scene: [boxes]}}") from error
    if not isinstance(content, dict):
        raise StereopsisError(f"{path} holds {shown(content)}; expected {{scene: [[cx, cy, cz, dx, dy, dz], ...]}}")
    found = {scene_of(scene): boxes_of(boxes, f"{path}, scene '{scene}'") for scene, boxes in content.items()}
    if len(found) != len(content):
        raise StereopsisError(f"{path} names a scene twice, with and without 'scannet/'; keep one of the two")
    return found


def _tensors(path: Path) -> Any:
    """The boxes of a file that PyTorch wrote; nothing in it is executed."""
    import pickle

    try:
        content = read_torch(path)
        return {scene: each["locs"].tolist() for scene, each in content.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise StereopsisError(
            f"{path}: expected {{scene: {{'locs': tensor [instances, 6]}}}} as Chat-Scene writes it, found something "
            f"else ({type(error).__name__}: {str(error)[:100]}); give a JSON file {{scene: [boxes]}}"
        ) from error


def scene_of(name: str) -> str:
    """A scene's id without the data set's folder before it ("scannet/scene0011_00")."""
    return name.rsplit("/", 1)[-1]


def boxes_of(value: Any, where: str) -> Float[np.ndarray, "boxes 6"]:
    """A list of boxes, checked.

    Raises:
        StereopsisError: not lists of six finite numbers with sizes >= 0.
    """
    try:
        boxes = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise StereopsisError(f"{where}: boxes must be lists of six numbers, found {shown(value)}") from error
    if boxes.size == 0:
        return np.zeros((0, 6))
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise StereopsisError(f"{where}: boxes must be [cx, cy, cz, dx, dy, dz] each, found {shown(value)}")
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | (boxes[:, 3:] < 0).any(axis=1))
    if len(bad):
        raise StereopsisError(
            f"{where}: box {bad[0]} is {boxes[bad[0]].tolist()}; boxes must be finite, with sizes >= 0 (metres)"
        )
    return boxes
