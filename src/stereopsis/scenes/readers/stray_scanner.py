"""Reader of recordings of the Stray Scanner app (iPhones and iPads with LiDAR), after its format document.

``rgb.mp4`` (or its extracted frames in ``rgb/``), ``depth/000000.png`` (16-bit millimetres, or .npy), ``odometry.csv``
(timestamp, frame, x, y, z, qx, qy, qz, qw with a header; the pose of the colour camera, camera to world, metres, OpenCV
axes; newer versions add fx fy cx cy) and ``camera_matrix.csv`` (3x3, of the colour images). Depth shows what colour
shows, at a smaller size. ``confidence/`` (0 to 2) may hide depth that the sensor itself doubts.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_frame_pose, check_intrinsics
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES, read_colour
from stereopsis.scenes.readers.capture_files import check_folder, read_matrix, read_rows, split_numbers
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.depth_files import array_units, depth_file
from stereopsis.scenes.readers.listed_files import common_size, images_in
from stereopsis.scenes.readers.trajectories import pose_from_quaternion
from stereopsis.scenes.readers.video_frames import read_video_frame, video_size
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "odometry.csv (timestamp, frame, x, y, z, qx, qy, qz, qw), camera_matrix.csv, depth/ (16-bit millimetres), rgb.mp4"
)
CONVENTIONS = Conventions(quaternion="xyzw")
_COLUMNS = ("frame", "x", "y", "z", "qx", "qy", "qz", "qw")
_CAMERA = ("fx", "fy", "cx", "cy")


def is_stray_scanner(path: Path) -> bool:
    """Whether a folder is a recording of the app."""
    return (path / "odometry.csv").is_file() and (path / "camera_matrix.csv").is_file()


def read_stray_scanner(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open a recording; the film is decoded when colour is asked for, best in order.

    Args:
        path: the recording's folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: files are absent or unusable, or too many frames are bad.
        MissingExtraError: PyAV is not installed, and the film's frames were not extracted.
    """
    path = Path(path)
    policy = Policy(on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    check_folder(path, EXPECTED_FILES)
    rows = _rows(path / "odometry.csv")
    extracted = {_number(file): file for file in images_in(path / "rgb", COLOUR_SUFFIXES)}
    depths = {_number(file): file for file in images_in(path / "depth", DEPTH_SUFFIXES)}
    files = [str(file.relative_to(path)) for file in extracted.values()]
    size = common_size(path, files, [str(path)] * len(files)) if extracted else video_size(path / "rgb.mp4")
    matrix = read_matrix(path / "camera_matrix.csv", ((3, 3),), "intrinsics", SceneError)
    try:
        camera = Intrinsics.from_matrix(matrix, *size)
    except ValueError as error:
        raise SceneError(f"{path / 'camera_matrix.csv'}: {error}; restore the file") from error
    check_intrinsics(camera, str(path / "camera_matrix.csv"))
    conventions = CONVENTIONS.with_options(options, str(path))
    if options.depth_scale is None:
        units = array_units(list(depths.values()), conventions.depth_scale, "add --depth-scale (units per metre)")
        conventions = dataclasses.replace(conventions, depth_scale=units)

    def build(index: int, name: str) -> Frame:
        where, values = rows[index]
        number = int(values["frame"])
        try:
            quaternion = np.array([values[key] for key in ("qx", "qy", "qz", "qw")])
            stored = pose_from_quaternion(conventions.xyzw(quaternion), np.array([values[key] for key in "xyz"]))
        except ValueError as error:
            raise FrameError(f"{where}: unusable pose: {error}; correct or remove the line") from error
        pose = conventions.camera_to_world(stored)
        check_frame_pose(pose, where)
        if number not in depths:
            raise FrameError(
                f"{path / 'depth'}: holds no image of frame {number}; restore it, or leave the frame out with "
                "on_bad_frame='skip'"
            )
        own = camera
        if all(key in values for key in _CAMERA):
            fx, fy, cx, cy = (float(values[key]) for key in _CAMERA)
            own = dataclasses.replace(camera, fx=fx, fy=fy, cx=cx, cy=cy)
            check_intrinsics(own, where)
        depth = depth_file(depths[number], conventions.depth_scale)
        film = functools.partial(read_video_frame, path / "rgb.mp4", number)
        return Frame(
            name=name,
            T_world_camera=pose,
            intrinsics=own,
            load_colour=functools.partial(read_colour, extracted[number], size=size) if number in extracted else film,
            load_depth=depth.load,
            depth_intrinsics=None if depth.size == size else own.resized(*depth.size),
        )

    names = [f"{int(values['frame']):06d}.png" for _, values in rows]
    return capture_scene(path, "stray_scanner", names, build, conventions, policy)


def _number(file: Path) -> int:
    found = re.findall(r"\d+", file.stem)
    return int(found[-1]) if found else -1


def _rows(file: Path) -> list[tuple[str, Mapping[str, float]]]:
    """Where each line stands, and its values by the header's names."""
    head, *rows = read_rows(file, "odometry", expected=", ".join(("timestamp", *_COLUMNS)))
    columns = [word.strip() for word in head.text.split(",")]
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise head.error(f"the header lacks {', '.join(missing)}")
    found: list[tuple[str, Mapping[str, float]]] = []
    for row in rows:
        values = dict(zip(columns, row.numbers(len(columns)).tolist(), strict=True))
        if not values["frame"].is_integer() or values["frame"] < 0:
            raise row.error(f"frame {split_numbers(row.text)[columns.index('frame')]} is no frame's number")
        found.append((row.where, values))
    if not found:
        raise SceneError(f"{file}: lists no frames; expected a line per frame; record again")
    return found
