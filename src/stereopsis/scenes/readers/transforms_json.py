"""Reader of ``transforms.json`` folders: the format of nerfstudio and of its ancestor, instant-ngp.

Polycam, Record3D, Scaniverse and COLMAP captures come to it through ``ns-process-data``.

Per frame: ``file_path``, ``transform_matrix`` (camera to world, OpenGL axes: y up, z backward) and optionally
``depth_file_path`` (z-depth, 16-bit PNG or .npy, in units of 1 mm unless ``depth_unit_scale_factor`` says otherwise).
Floating-point .npy depth is in metres or millimetres, whichever its values can be. Intrinsics (``fl_x fl_y cx cy w
h``, or ``camera_angle_x``) stand once for all or in the frame; pixel centres lie at +0.5, as here. Bent pictures
(``k1`` to ``k4``, ``p1``, ``p2``; OPENCV_FISHEYE) are straightened when they are read, with their depth.

``applied_transform`` and ``applied_scale``, which tell how the poses were moved after the capture, are
undone: what comes out is the capture's own world, in its own units, to which the depth images belong, too.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import ORTHONORMAL_TOLERANCE, Intrinsics
from stereopsis.geometry.lens import Lens
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy, collect
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import read_header
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, distortion_note, read_json
from stereopsis.scenes.readers.depth_files import DepthSource, array_units, depth_file
from stereopsis.scenes.readers.listed_files import frame_names, given_name, has_image_suffix, listed_file, natural_key
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "transforms.json (frames with file_path, transform_matrix and, for depth, depth_file_path) and its images"
)
CONVENTIONS = Conventions(axes="opengl")
_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV_FISHEYE")
_SCALE_KEYS = ("depth_scale", "integer_depth_scale")
_DEPTH_KEYS = ("depth_file_path", "depth_path")
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
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a transforms.json folder; images are read when asked for, their headers and the poses now.

    Frames are sorted by file name; those that the file calls bad (``is_bad``) or keeps for tests (``test_frames``) are
    left out and counted in ``provenance["left_out"]``. ``provenance["without_depth"]`` counts frames without depth
    where others have it.

    Args:
        path: the folder.
        depth_unit: metres per unit of the depth images; None takes what the options or the file say
            (``depth_unit_scale_factor``), else what floating-point values tell, else 0.001.
        options: what a person says of poses and depth; goes before the file's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame's entry, pose, intrinsics or image header is unusable, and the policy is "raise".
        SceneError: the file is absent or unusable, the lens is of an unknown kind, or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    file = path / "transforms.json"
    conventions = CONVENTIONS.with_options(options, str(path))
    content = read_json(file, "capture", expected=_CONTENT)
    entries, left_out = _entries(content, file)
    units = _depth_units(path, content, entries, file, options) if depth_unit is None else 1.0 / depth_unit
    conventions = dataclasses.replace(conventions, depth_scale=units)
    scale = _positive(content, "applied_scale", 1.0, file)
    undo = _undo(content, file)
    lenses: dict[Lens, None] = {}

    def build(index: int) -> Frame:
        entry = entries[index]
        where = f"{file}, frame '{entry.get('file_path')}'"
        colour = _colour_file(path, entry, where)
        values = {**content, **entry}
        lens = _lens(values, _intrinsics(values, colour, where), where)
        lenses[lens] = None
        pose = _matrix(entry.get("transform_matrix"), where)
        pose[:3, 3] /= scale
        return capture_frame(
            names[index],
            undo @ conventions.camera_to_world(pose),
            lens.camera,
            colour,
            _depth(path, entry, units, where),
            pose_from=where,
            intrinsics_from=where,
            lens=lens,
        )

    names = frame_names([str(entry.get("file_path")) for entry in entries])
    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    provenance: dict[str, Any] = {
        "format": "transforms_json",
        "path": str(path),
        "skipped": dict(collected.skipped),
        "conventions": {**conventions.record()["conventions"], "world": undo.tolist()},
        **left_out,
        **distortion_note(lenses),
    }
    without = sum(frame.load_depth is None for frame in collected.items)
    if 0 < without < len(collected.items):
        provenance["without_depth"] = without
    return Scene(id=given_name(path), frames=collected.items, provenance=provenance)


def _entries(content: Mapping[str, Any], file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The frames, by the order of their files' names, and what to say about those that are not among them."""
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        found = f"{len(entries)} entries" if isinstance(entries, list) else type(entries).__name__
        raise SceneError(f"{file}: found {found} under 'frames'; expected {_CONTENT}; export the capture again")
    good = [entry for entry in entries if not entry.get("is_bad")]
    if not good:
        raise SceneError(
            f"{file}: all of its {len(entries)} frames are marked 'is_bad'; expected usable ones; check it"
        )
    held = content.get("test_frames")
    counts = {"is_bad": len(entries) - len(good), "test_frames": len(held) if isinstance(held, list) else 0}
    left_out = {"left_out": counts} if any(counts.values()) else {}
    return sorted(good, key=lambda entry: natural_key(os.path.normpath(str(entry.get("file_path"))))), left_out


def _depth_units(
    path: Path, content: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], file: Path, options: ReadOptions
) -> float:
    """Units per metre: what a person says, what the file says under any known name, or what the values tell."""
    if options.depth_scale is not None:
        return options.depth_scale
    if "depth_unit_scale_factor" in content:
        return 1.0 / _positive(content, "depth_unit_scale_factor", 1.0, file)
    named = [key for key in _SCALE_KEYS if key in content]
    if named:
        # Third parties write either metres per unit (0.001) or units per metre (1000); only one of the two is below 1.
        value = _positive(content, named[0], 1.0, file)
        return value if value >= 1 else 1.0 / value
    remedy = "add depth_unit_scale_factor (metres per unit) beside 'frames', or --depth-scale (units per metre)"
    if any("depth_path" in entry and "depth_file_path" not in entry for entry in entries):
        raise SceneError(
            f"{file}: frames name their depth images under 'depth_path' (instant-ngp), whose unit differs from file to "
            "file; expected 'depth_file_path', and 'depth_unit_scale_factor' (metres per unit) beside 'frames'; rename "
            f"the key and add the unit, or {remedy}"
        )
    files = []
    for entry in entries:
        try:
            files.append(listed_file(path, entry.get("depth_file_path"), str(file)))
        except FrameError:  # its turn to be reported comes when its frame is built
            continue
    return array_units(files, CONVENTIONS.depth_scale, remedy)


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
    if not has_image_suffix(file.name) and not file.exists():  # for the message: the original NeRF scenes leave it out
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


def _lens(values: Mapping[str, Any], intrinsics: Intrinsics, where: str) -> Lens:
    model = values.get("camera_model", "OPENCV")
    if model not in _MODELS:
        raise SceneError(f"{where}: camera model {model}, expected one of {', '.join(_MODELS)}; {_UNDISTORT}")
    fisheye = model == "OPENCV_FISHEYE" or bool(values.get("is_fisheye"))
    radial = tuple(_number(values.get(key, 0.0), key, where) for key in _RADIAL)
    p1, p2 = (_number(values.get(key, 0.0), key, where) for key in _TANGENTIAL)
    return Lens(camera=intrinsics, fisheye=fisheye, radial=radial, tangential=(0.0, 0.0) if fisheye else (p1, p2))


def _depth(path: Path, entry: Mapping[str, Any], units_per_metre: float, where: str) -> DepthSource | None:
    name = next((entry[key] for key in _DEPTH_KEYS if entry.get(key) is not None), None)
    return None if name is None else depth_file(listed_file(path, name, where), units_per_metre)
