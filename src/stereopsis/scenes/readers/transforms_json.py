"""Reader of ``transforms.json`` folders: the format of nerfstudio and of its ancestor, instant-ngp.

Polycam, Record3D, Scaniverse and COLMAP captures come to it through ``ns-process-data``.

Per frame: ``file_path``, ``transform_matrix`` (camera to world, OpenGL axes: y up, z backward) and optionally
``depth_file_path`` (z-depth, 16-bit PNG or .npy, in units of 1 mm unless ``depth_unit_scale_factor`` says otherwise).
Intrinsics (``fl_x fl_y cx cy w h``, or ``camera_angle_x``) stand once for all or in the frame; pixel centres lie at
+0.5, as here. ``applied_transform`` and ``applied_scale``, which tell how the poses were moved after the capture, are
undone: what comes out is the capture's own world, in its own units, to which the depth images belong, too.
"""

import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import ORTHONORMAL_TOLERANCE, Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy, collect
from stereopsis.scenes.images import read_header
from stereopsis.scenes.readers.capture_files import (
    DepthSource,
    capture_frame,
    check_folder,
    depth_png,
    frame_names,
    listed_file,
    natural_key,
    read_json,
)
from stereopsis.scenes.readers.trajectories import opencv_from_opengl
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "transforms.json (frames with file_path, transform_matrix and, for depth, depth_file_path) and its images"
)
MILLIMETRE = 0.001
MAX_DISTORTION = 0.01
"""Lens distortion that moves no pixel by more than this share of the image's width is left uncorrected."""
_PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_RADIAL = ("k1", "k2", "k3", "k4")
_TANGENTIAL = ("p1", "p2")
_CONTENT = 'an object with "frames": a list of objects with file_path and transform_matrix'
_UNDISTORT = (
    "undistort the images first (colmap image_undistorter, or your app's own export) and write their pinhole intrinsics"
)


def is_transforms_json(path: Path) -> bool:
    """Whether a folder holds a file transforms.json."""
    return (path / "transforms.json").is_file()


def read_transforms_json(
    path: Path,
    *,
    depth_unit: float | None = None,
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a transforms.json folder; images are read when asked for, their headers and the poses now.

    Frames are sorted by file name. Lens distortion is not corrected: coefficients that move a pixel by more than 1 %
    of the image's width are refused, smaller ones are noted in ``provenance["distortion"]``.
    ``provenance["without_depth"]`` counts frames without depth where others have it.

    Args:
        path: the folder.
        depth_unit: metres per unit of the depth images; None takes ``depth_unit_scale_factor`` of the file, else 0.001.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame's entry, pose, intrinsics or image header is unusable, and the policy is "raise".
        SceneError: the file is absent or unusable, the lens is no pinhole's, or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    file = path / "transforms.json"
    content = read_json(file, "capture", expected=_CONTENT)
    entries = _entries(content, file)
    unit = _positive(content, "depth_unit_scale_factor", MILLIMETRE, file) if depth_unit is None else depth_unit
    scale = _positive(content, "applied_scale", 1.0, file)
    undo = _undo(content, file)
    shifts: list[float] = []

    def build(index: int) -> Frame:
        entry = entries[index]
        where = f"{file}, frame '{entry.get('file_path')}'"
        colour = _colour_file(path, entry, where)
        values = {**content, **entry}
        intrinsics = _intrinsics(values, colour, where)
        shifts.append(_check_lens(values, intrinsics, where))
        pose = _matrix(entry.get("transform_matrix"), where)
        pose[:3, 3] /= scale
        return capture_frame(
            names[index],
            opencv_from_opengl(undo @ pose),
            intrinsics,
            colour,
            _depth(path, entry, unit, where),
            pose_from=where,
            intrinsics_from=where,
        )

    names = frame_names([str(entry.get("file_path")) for entry in entries])
    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    provenance: dict[str, Any] = {"format": "transforms_json", "path": str(path), "skipped": dict(collected.skipped)}
    without = sum(frame.load_depth is None for frame in collected.items)
    if 0 < without < len(collected.items):
        provenance["without_depth"] = without
    if max(shifts) > 0:
        provenance["distortion"] = f"not removed; it moves no pixel by more than {max(shifts):.1f} pixels"
    return Scene(id=path.resolve().name, frames=collected.items, provenance=provenance)


def _entries(content: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        found = f"{len(entries)} entries" if isinstance(entries, list) else type(entries).__name__
        raise SceneError(f"{file}: found {found} under 'frames'; expected {_CONTENT}; export the capture again")
    if any("depth_path" in entry and "depth_file_path" not in entry for entry in entries):
        raise SceneError(
            f"{file}: frames name their depth images under 'depth_path' (instant-ngp), whose unit differs from file to "
            "file; expected 'depth_file_path', and 'depth_unit_scale_factor' (metres per unit) beside 'frames'; rename "
            "the key and add the unit"
        )
    return sorted(entries, key=lambda entry: natural_key(os.path.normpath(str(entry.get("file_path")))))


def _number(value: object, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FrameError(f"{where}: {key} is {value!r}, expected a finite number; correct the file")
    return float(value)


def _positive(content: Mapping[str, Any], key: str, default: float, file: Path) -> float:
    value = _number(content.get(key, default), key, str(file))
    if value <= 0:
        raise SceneError(f"{file}: {key} is {value:g}, expected a positive number; correct the file")
    return value


def _undo(content: Mapping[str, Any], file: Path) -> Float[np.ndarray, "4 4"]:
    """From the file's world back to the capture's own; a change of handedness is undone, too."""
    if "applied_transform" not in content:
        return np.eye(4)
    try:
        applied = _matrix(content["applied_transform"], f"{file}, applied_transform")
    except FrameError as error:
        raise SceneError(str(error)) from error
    turn = applied[:3, :3]
    if not np.isfinite(applied).all() or np.abs(turn.T @ turn - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
        raise SceneError(
            f"{file}: applied_transform is not a rotation (or reflection) and a shift; expected orthonormal axes, with "
            "any scale under applied_scale; correct the file"
        )
    return np.linalg.inv(applied)


def _matrix(value: object, where: str) -> Float[np.ndarray, "4 4"]:
    """A 4x4 matrix from nested lists; the last row may be missing."""
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FrameError(f"{where}: the matrix is unreadable ({error}); expected 4 rows of 4 numbers") from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        raise FrameError(
            f"{where}: the matrix has shape {matrix.shape}, expected 4 rows of 4 numbers; correct the file, or leave "
            "the frame out with on_bad_frame='skip'"
        )
    return matrix


def _colour_file(path: Path, entry: Mapping[str, Any], where: str) -> Path:
    file = listed_file(path, entry.get("file_path"), where)
    if not file.suffix and not file.exists():  # the original NeRF scenes leave ".png" out
        return file.with_name(file.name + ".png")
    return file


def _intrinsics(values: Mapping[str, Any], colour: Path, where: str) -> Intrinsics:
    if "w" in values and "h" in values:
        width, height = (round(_number(values[key], key, where)) for key in ("w", "h"))
    else:
        width, height = read_header(colour).size
    if "fl_x" in values:
        fx = _number(values["fl_x"], "fl_x", where)
    elif "camera_angle_x" in values:
        fx = 0.5 * width / math.tan(0.5 * _number(values["camera_angle_x"], "camera_angle_x", where))
    else:
        raise SceneError(
            f"{where}: found no focal length; expected fl_x (pixels) or camera_angle_x (radians), in the frame or once "
            "for all frames; export the capture again with intrinsics"
        )
    fy = fx
    if "fl_y" in values:
        fy = _number(values["fl_y"], "fl_y", where)
    elif "camera_angle_y" in values and "fl_x" not in values:
        fy = 0.5 * height / math.tan(0.5 * _number(values["camera_angle_y"], "camera_angle_y", where))
    cx = _number(values.get("cx", width / 2), "cx", where)
    cy = _number(values.get("cy", height / 2), "cy", where)
    return Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy, width=width, height=height)


def _check_lens(values: Mapping[str, Any], intrinsics: Intrinsics, where: str) -> float:
    """How far distortion moves any pixel, in pixels; too much of it, or another lens than a pinhole's, is refused."""
    model = values.get("camera_model", "OPENCV")
    if model not in _PINHOLE_MODELS or values.get("is_fisheye"):
        model = "fisheye" if values.get("is_fisheye") else model
        raise SceneError(f"{where}: camera model {model}, expected one of {', '.join(_PINHOLE_MODELS)}; {_UNDISTORT}")
    radial = [_number(values.get(key, 0.0), key, where) for key in _RADIAL]
    tangential = [_number(values.get(key, 0.0), key, where) for key in _TANGENTIAL]
    shift = distortion_shift(intrinsics, radial, tangential)
    if shift > MAX_DISTORTION * intrinsics.width:
        raise SceneError(
            f"{where}: lens distortion moves pixels by up to {shift:.1f}, more than {MAX_DISTORTION:.0%} of the "
            f"image's width; expected pinhole images; {_UNDISTORT}, without k1 to k4, p1, p2"
        )
    return shift


def distortion_shift(intrinsics: Intrinsics, radial: list[float], tangential: list[float]) -> float:
    """The largest distance, in pixels, by which OpenCV's lens distortion moves a point of the image.

    Args:
        intrinsics: of the distorted image; focal lengths positive.
        radial: coefficients of r^2, r^4, ...
        tangential: p1, p2.
    """
    if not any(radial) and not any(tangential):
        return 0.0
    columns = np.linspace(0, intrinsics.width, 33)
    rows = np.linspace(0, intrinsics.height, 33)
    x, y = np.meshgrid((columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy)
    squared = x**2 + y**2
    factor = sum(value * squared ** (power + 1) for power, value in enumerate(radial))
    p1, p2 = tangential
    dx = x * factor + 2 * p1 * x * y + p2 * (squared + 2 * x**2)
    dy = y * factor + p1 * (squared + 2 * y**2) + 2 * p2 * x * y
    return float(np.hypot(intrinsics.fx * dx, intrinsics.fy * dy).max())


def _depth(path: Path, entry: Mapping[str, Any], unit: float, where: str) -> DepthSource | None:
    if entry.get("depth_file_path") is None:
        return None
    file = listed_file(path, entry["depth_file_path"], where)
    if file.suffix.lower() != ".npy":
        return depth_png(file, units_per_metre=1.0 / unit)
    shape = _open_array(file).shape
    return DepthSource(path=file, size=(shape[1], shape[0]), load=functools.partial(read_depth_array, file, unit=unit))


def read_depth_array(path: Path, *, unit: float) -> Float[np.ndarray, "height width"]:
    """Read a depth image stored as a NumPy array; pickled objects in it are refused, never executed.

    Args:
        path: the .npy file, [height, width] numbers.
        unit: metres per unit.

    Returns:
        float32 metres, 0 where the file has values that are not finite or not positive.

    Raises:
        FrameError: the file is absent, truncated, or no such array.
    """
    with np.errstate(over="ignore"):  # becomes inf, which is invalid
        depth = np.array(_open_array(path), dtype=np.float32) * np.float32(unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    return depth


def _open_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FrameError(
            f"{path}: cannot be read as a depth array ({error}); expected a .npy file of [height, width] numbers; "
            "restore it, or leave the frame out with on_bad_frame='skip'"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
        raise FrameError(f"{path}: holds {found}, expected [height, width] numbers; export the depth again")
    return array
