"""A scan's ``SCENE.txt`` (``key = value`` lines) and the matrices that exports put beside it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics, check_pose
from stereopsis.scenes.readers.capture_files import read_matrix as read_table
from stereopsis.scenes.readers.capture_files import read_text

ALIGNMENT_FILE = "axis_align_matrix.txt"
_RESTORE = "restore the file from the data set, or correct the line"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScanMetadata:
    """What ``SCENE.txt`` says; None where it says nothing.

    Attributes:
        T_aligned_world: [4, 4] the file's ``axisAlignment``, from the scan's world to the aligned frame, metres.
        colour: nominal intrinsics of the colour images. The .sens file's, and those that are exported from it, are
            calibrated and therefore better.
        depth: nominal intrinsics of the depth images.
        scene_type: the kind of room, in ScanNet's words.
    """

    T_aligned_world: Float[np.ndarray, "4 4"] | None = None
    colour: Intrinsics | None = None
    depth: Intrinsics | None = None
    scene_type: str = ""


def read_metadata(path: Path) -> ScanMetadata:
    """Read a scan's ``SCENE.txt``.

    Raises:
        SceneError: it cannot be read, holds a line without ``=``, or a value that is needed is no number, not
            finite, incomplete or no rigid transform.
    """
    values = _read_values(path)
    return ScanMetadata(
        T_aligned_world=_alignment(path, values),
        colour=_camera(path, values, "color"),
        depth=_camera(path, values, "depth"),
        scene_type=values.get("sceneType", ""),
    )


def read_alignment(path: Path) -> Float[np.ndarray, "4 4"]:
    """Read a 4x4 axis alignment from a text file of its own, as exports of the data set have it.

    Raises:
        SceneError: unreadable, no 4x4 table, or not a rigid transform.
    """
    return _rigid(str(path), read_matrix(path))


def read_matrix(path: Path) -> Float[np.ndarray, "rows columns"]:
    """Read a square table of numbers, 3x3 or 4x4.

    Raises:
        SceneError: the file is absent or holds something else.
    """
    return read_table(path, ((3, 3), (4, 4)), "matrix", SceneError)


def _read_values(path: Path) -> dict[str, str]:
    expected = "lines of 'key = value', with axisAlignment among them"
    text = read_text(path, "scan's description", expected=expected, remedy="restore the file from the data set")
    values = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise SceneError(f"{path}: line {number} is '{line.strip()[:60]}', expected 'key = value'; {_RESTORE}")
        values[key.strip()] = value.strip()
    return values


def _numbers(path: Path, key: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(value) for value in text.split()]
    except ValueError as error:
        raise SceneError(f"{path}: {key}: {error}; expected {count} numbers; {_RESTORE}") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise SceneError(f"{path}: {key} is '{text[:80]}', expected {count} finite numbers; {_RESTORE}")
    return numbers


def _alignment(path: Path, values: Mapping[str, str]) -> np.ndarray | None:
    if "axisAlignment" not in values:
        return None
    numbers = _numbers(path, "axisAlignment", values["axisAlignment"], 16)
    return _rigid(f"{path}: axisAlignment", np.array(numbers).reshape(4, 4))


def _rigid(where: str, matrix: np.ndarray) -> np.ndarray:
    try:
        check_pose(matrix, "alignment")
    except ValueError as error:
        raise SceneError(f"{where}: {error}; expected a rigid 4x4 transform, metres, row by row; {_RESTORE}") from error
    return matrix


def _camera(path: Path, values: Mapping[str, str], which: str) -> Intrinsics | None:
    keys = [f"{name}_{which}" for name in ("fx", "fy", "mx", "my")] + [f"{which}Width", f"{which}Height"]
    if not all(key in values for key in keys):
        return None
    fx, fy, cx, cy, width, height = (_numbers(path, key, values[key], 1)[0] for key in keys)
    if width != int(width) or height != int(height) or min(fx, fy, width, height) <= 0:
        raise SceneError(
            f"{path}: {which} camera of {width:g}x{height:g} pixels with focal lengths {fx:g}, {fy:g}; expected "
            f"positive values and whole pixels; {_RESTORE}"
        )
    return Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy, width=int(width), height=int(height))
