"""Reader of posed RGB-D folders in the layout of Microsoft's 7-Scenes (also used by TSDF-fusion samples).

A folder holds, for every frame, ``frame-XXXXXX.color.jpg`` (or ``.png``), ``frame-XXXXXX.depth.png`` (16 bit,
millimetres, 0 and 65535 invalid) and ``frame-XXXXXX.pose.txt`` (4x4 camera to world, metres, OpenCV axes),
and optionally ``camera-intrinsics.txt`` (3x3, for colour and depth alike). The world frame is the first
camera's: it is not aligned with gravity (see `stereopsis.scenes.alignment`).
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import (
    MAX_BAD_FRACTION,
    OnBadFrame,
    check_intrinsics,
    check_policy,
    collect,
)
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import read_colour, read_depth, read_header
from stereopsis.scenes.readers.capture_files import read_matrix, read_pose
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "frame-XXXXXX.color.jpg or .png, frame-XXXXXX.depth.png (16-bit, millimetres), frame-XXXXXX.pose.txt "
    "(4x4 camera to world); optionally camera-intrinsics.txt (3x3)"
)
DEFAULT_INTRINSICS = Intrinsics(fx=585.0, fy=585.0, cx=320.0, cy=240.0, width=640, height=480)
_FRAME_FILE = re.compile(
    r"^(frame-\d+)\.(?:(color)\.(?:jpg|jpeg|png)|(depth)\.(?:png|pgm|tif|tiff)|(pose)\.txt)$", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _FrameFiles:
    name: str
    pose: np.ndarray
    colour: Path
    depth: Path
    size: tuple[int, int]


def is_seven_scenes(path: Path) -> bool:
    """Whether a folder holds at least one file named as a frame of this layout."""
    return path.is_dir() and any(_FRAME_FILE.match(entry.name) for entry in path.iterdir())


def read_seven_scenes(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a folder in the 7-Scenes layout; images are read when asked for, their headers and the poses now.

    Args:
        path: the folder that holds the frames (of the original data set: one of the ``seq-XX`` folders).
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Returns:
        A scene named after the folder; ``provenance["skipped"]`` maps the frames left out to the reasons.

    Raises:
        FrameError: a frame lacks a file, or its pose or image header is wrong, and the policy is "raise".
        SceneError: no folder, no frames, unusable intrinsics, or too many bad frames.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    conventions = Conventions().with_options(options, str(path))
    files = _frame_files(path)
    matrix = _read_intrinsics(path)
    names = sorted(files)
    collected = collect(
        str(path),
        names,
        lambda index: _check_files(path, names[index], files[names[index]], conventions),
        on_bad_frame=on_bad_frame,
        max_bad_fraction=max_bad_fraction,
    )
    size = collections.Counter(item.size for item in collected.items).most_common(1)[0][0]
    collected = collected.only(
        lambda item: item.size == size, lambda item: item.name, lambda item: _other_size(item, size)
    )
    intrinsics = _intrinsics(path, matrix, size)
    check_intrinsics(intrinsics, str(path / "camera-intrinsics.txt"))
    return Scene(
        id=given_name(path),
        frames=tuple(_frame(item, intrinsics, conventions.depth_scale) for item in collected.items),
        provenance={
            "format": "seven_scenes",
            "path": str(path),
            "skipped": collected.skipped,
            **conventions.record(),
        },
    )


def _frame_files(path: Path) -> dict[str, dict[str, str]]:
    """{frame name: {kind of file: its name}}; of two colour images, the one without loss."""
    if not path.is_dir():
        raise SceneError(f"{path}: no such folder; expected one that holds {EXPECTED_FILES}; check the path")
    files: dict[str, dict[str, str]] = {}
    for entry in sorted(path.iterdir()):
        match = _FRAME_FILE.match(entry.name)
        if match:  # sorted: .jpg before .png
            files.setdefault(match[1].lower(), {})["".join(filter(None, match.groups()[1:])).lower()] = entry.name
    if not files:
        sequences = sorted(entry.name for entry in path.iterdir() if is_seven_scenes(entry))
        remedy = f"open one of its sequences instead: {', '.join(sequences)}" if sequences else "check the path"
        raise SceneError(f"{path}: found no frames; expected {EXPECTED_FILES}; {remedy}")
    return files


def _check_files(path: Path, name: str, found: Mapping[str, str], conventions: Conventions) -> _FrameFiles:
    colour_path = path / found.get("color", f"{name}.color.jpg")
    depth_path = path / found.get("depth", f"{name}.depth.png")
    pose = read_pose(path / found.get("pose", f"{name}.pose.txt"), conventions)
    colour = read_header(colour_path, kind="colour")
    depth = read_header(depth_path, kind="depth")
    if depth.size != colour.size:
        raise FrameError(
            f"{depth_path}: depth is {depth.width}x{depth.height}, expected the colour image's "
            f"{colour.width}x{colour.height} (one set of intrinsics serves both); resample one to the "
            "other's size, or leave the frame out with on_bad_frame='skip'"
        )
    return _FrameFiles(name=name, pose=pose, colour=colour_path, depth=depth_path, size=colour.size)


def _frame(item: _FrameFiles, intrinsics: Intrinsics, depth_scale: float | int) -> Frame:
    return Frame(
        name=item.name,
        T_world_camera=item.pose,
        intrinsics=intrinsics,
        load_colour=functools.partial(read_colour, item.colour, size=item.size),
        load_depth=functools.partial(read_depth, item.depth, scale=depth_scale, size=item.size),
    )


def _other_size(item: _FrameFiles, size: tuple[int, int]) -> str:
    return (
        f"{item.colour}: the images are {item.size[0]}x{item.size[1]}, expected {size[0]}x{size[1]} as most "
        "frames have (one set of intrinsics serves all); restore the originals, or leave the frame out with "
        "on_bad_frame='skip'"
    )


def _intrinsics(path: Path, matrix: np.ndarray | None, size: tuple[int, int]) -> Intrinsics:
    width, height = size
    if matrix is not None:
        return Intrinsics.from_matrix(matrix, width, height)
    default = DEFAULT_INTRINSICS
    if (width, height) != (default.width, default.height):
        raise SceneError(
            f"{path / 'camera-intrinsics.txt'}: does not exist, and the images are {width}x{height}; the "
            f"data set's own default ({default.fx:g} px focal length) holds for "
            f"{default.width}x{default.height} only; write the 3x3 intrinsics into that file"
        )
    return default


def _read_intrinsics(path: Path) -> np.ndarray | None:
    file = path / "camera-intrinsics.txt"
    if not file.exists():
        return None
    matrix = read_matrix(file, ((3, 3),), "intrinsics", SceneError)
    try:
        Intrinsics.from_matrix(matrix, DEFAULT_INTRINSICS.width, DEFAULT_INTRINSICS.height)
    except ValueError as error:
        raise SceneError(
            f"{file}: {error}; expected a finite 3x3 pinhole matrix in pixels; correct the file, or delete "
            "it to use the data set's default for 640x480"
        ) from error
    return matrix
