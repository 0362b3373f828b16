"""Reader of COLMAP models in text form, with depth maps beside them.

``cameras.txt``, ``images.txt`` (world to camera: quaternion w x y z, then translation, OpenCV axes; two lines per
image) in the folder itself, in ``sparse/0/`` or in ``sparse/``; the images in ``images/``. Depth comes from
``depth/`` (also ``depths/``, ``depth_maps/``), 16-bit PNG in millimetres named after the images, or from COLMAP's own
dense maps in ``stereo/depth_maps/`` (``NAME.geometric.bin``, else ``NAME.photometric.bin``), in the model's units.
Pixel centres lie at +0.5, as here.

A model from images alone has an arbitrary unit. Everything in this package is in metres: the unit is measured where
PNG depth and the model's points (``points3D.txt``) meet, see `stereopsis.scenes.readers.colmap_scale`; otherwise say
``metres_per_unit``, or scale the model first (``colmap model_aligner`` with known positions).
"""

import dataclasses
import functools
import math
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics, invert_pose
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_intrinsics, check_policy, collect
from stereopsis.scenes.readers.capture_files import (
    DepthSource,
    TextRow,
    capture_frame,
    check_folder,
    depth_png,
    frame_names,
    listed_file,
    natural_key,
    read_rows,
)
from stereopsis.scenes.readers.colmap_scale import measure_unit
from stereopsis.scenes.readers.trajectories import pose_from_quaternion
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "cameras.txt and images.txt (also in sparse/0/ or sparse/), images/, and for depth depth/ (16-bit millimetres) or "
    "stereo/depth_maps/ (*.geometric.bin)"
)
MODEL_FOLDERS = (".", "sparse/0", "sparse")
DEPTH_FOLDERS = ("depth", "depths", "depth_maps")
DENSE_FOLDER = "stereo/depth_maps"
_CAMERA_LINE = "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"
_IMAGE_LINE = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and a second line with its points (may be empty)"
_PARAMETERS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}
_DENSE_HEADER = re.compile(rb"(\d{1,6})&(\d{1,6})&(\d{1,6})&")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ImageEntry:
    row: TextRow
    camera: str
    name: str
    points: str


def is_colmap(path: Path) -> bool:
    """Whether a folder holds a COLMAP model (the reader says what to do about binary ones)."""
    return any(
        all((path / folder / f"{name}.{kind}").is_file() for name in ("cameras", "images"))
        for folder in MODEL_FOLDERS
        for kind in ("txt", "bin")
    )


def read_colmap(
    path: Path,
    *,
    metres_per_unit: float | None = None,
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a COLMAP model with its images; pixels are read when asked for, headers and poses now.

    Frames are sorted by file name. ``provenance["scale"]`` says on what the metres rest.

    Args:
        path: the folder that holds model and images (of a dense workspace: the workspace).
        metres_per_unit: size of the model's unit; applied to positions and to COLMAP's own depth maps (PNG depth is in
            millimetres as it is). None measures it (this decodes up to 12 depth images), and takes 1 where PNG depth or
            points are absent.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame's pose, camera, image or depth map is unusable, and the policy is "raise".
        SceneError: the model is absent, binary, of cameras that are no pinholes, or at odds with the depth
            images; or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    if metres_per_unit is not None and not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise SceneError(f"metres_per_unit={metres_per_unit}: expected a positive number of metres")
    model = _model_folder(path)
    cameras = _read_cameras(model / "cameras.txt")
    entries = sorted(_image_entries(model / "images.txt"), key=lambda entry: natural_key(entry.name))
    images = path / "images" if (path / "images").is_dir() else path
    depth_folder = _depth_folder(path)
    names = frame_names([entry.name for entry in entries])
    unit = 1.0 if metres_per_unit is None else metres_per_unit

    def build(index: int) -> Frame:
        entry = entries[index]
        where = entry.row.where
        if entry.camera not in cameras:
            raise FrameError(
                f"{where}: names camera {entry.camera}, but cameras.txt has {', '.join(cameras)}; restore the line "
                "there, or leave the frame out with on_bad_frame='skip'"
            )
        return capture_frame(
            names[index],
            _pose(entry.row, unit),
            cameras[entry.camera],
            listed_file(images, entry.name, where),
            _depth(depth_folder, entry.name, where, unit),
            pose_from=where,
            intrinsics_from=f"camera {entry.camera} of {model / 'cameras.txt'}",
        )

    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    frames, scale = collected.items, f"{unit:g} metres per unit of the model, as the caller told"
    if metres_per_unit is None:
        scale = "1 metre per unit of the model, assumed; a COLMAP model made from images alone has an arbitrary unit"
        measured = None
        if depth_folder is not None and not _is_dense(depth_folder):
            observations = {name: entry.points for name, entry in zip(names, entries, strict=True)}
            measured = measure_unit(frames, observations, model / "points3D.txt")
        if measured is not None:
            frames, scale = tuple(_scaled(frame, measured.metres) for frame in frames), str(measured)
    return Scene(
        id=path.resolve().name,
        frames=frames,
        provenance={"format": "colmap", "path": str(path), "skipped": dict(collected.skipped), "scale": scale},
    )


def _scaled(frame: Frame, metres_per_unit: float) -> Frame:
    pose = frame.T_world_camera.copy()
    pose[:3, 3] *= metres_per_unit
    return dataclasses.replace(frame, T_world_camera=pose)


def _model_folder(path: Path) -> Path:
    folders = [path / name for name in MODEL_FOLDERS]
    for folder in folders:
        if (folder / "cameras.txt").is_file() and (folder / "images.txt").is_file():
            return folder
    for folder in folders:
        if (folder / "cameras.bin").is_file():
            raise SceneError(
                f"{folder}: holds a binary model, expected text; convert it: colmap model_converter --input_path "
                f"{folder} --output_path {folder} --output_type TXT"
            )
    raise SceneError(f"{path}: found no COLMAP model; expected {EXPECTED_FILES}; check the path")


def _read_cameras(file: Path) -> dict[str, Intrinsics]:
    cameras: dict[str, Intrinsics] = {}
    for row in read_rows(file, "cameras", expected=_CAMERA_LINE):
        words = row.text.split()
        if len(words) < 4:
            raise row.error(f"found '{row.text}'")
        name, model = words[:2]
        if model not in _PARAMETERS:
            raise SceneError(
                f"{row.where}: camera model {model}, expected {' or '.join(_PARAMETERS)}: this lens bends straight "
                "lines; undistort the images first: colmap image_undistorter --image_path images --input_path sparse/0 "
                "--output_path dense, then colmap model_converter --output_type TXT on dense/sparse, and open dense"
            )
        numbers = TextRow(where=row.where, text=" ".join(words[2:]), expected=_CAMERA_LINE).numbers(
            2 + _PARAMETERS[model]
        )
        (width, height), focal = numbers[:2], numbers[2:-2]
        if not np.isfinite(numbers).all():
            raise row.error("found NaN or inf")
        intrinsics = Intrinsics(
            fx=float(focal[0]),
            fy=float(focal[-1]),
            cx=float(numbers[-2]),
            cy=float(numbers[-1]),
            width=int(width),
            height=int(height),
        )
        check_intrinsics(intrinsics, row.where)
        cameras[name] = intrinsics
    return cameras


def _image_entries(file: Path) -> list[_ImageEntry]:
    """Two lines per image; the second (its points) may be empty."""
    entries: list[_ImageEntry] = []
    rows = iter(read_rows(file, "images", expected=_IMAGE_LINE, empty_lines=True))
    for row in rows:
        if not row.text:
            continue
        words = row.text.split(maxsplit=9)
        if len(words) != 10:
            raise row.error(f"found '{row.text[:60]}'")
        points = next(rows, None)
        entries.append(
            _ImageEntry(row=row, camera=words[8], name=words[9], points="" if points is None else points.text)
        )
    return entries


def _pose(row: TextRow, metres_per_unit: float) -> Float[np.ndarray, "4 4"]:
    try:
        values = np.array([float(word) for word in row.text.split(maxsplit=9)[1:8]])
        T_camera_world = pose_from_quaternion(values[[1, 2, 3, 0]], values[4:7] * metres_per_unit)
    except ValueError as error:
        raise FrameError(
            f"{row.where}: unusable pose: {error}; expected {_IMAGE_LINE}; correct the line, or leave the frame out "
            "with on_bad_frame='skip'"
        ) from error
    return invert_pose(T_camera_world)


def _depth_folder(path: Path) -> Path | None:
    return next((path / name for name in (*DEPTH_FOLDERS, DENSE_FOLDER) if (path / name).is_dir()), None)


def _is_dense(depth_folder: Path) -> bool:
    return depth_folder.as_posix().endswith(DENSE_FOLDER)


def _depth(folder: Path | None, name: str, where: str, metres_per_unit: float) -> DepthSource | None:
    if folder is None:
        return None
    if _is_dense(folder):
        candidates = [listed_file(folder, f"{name}.{kind}.bin", where) for kind in ("geometric", "photometric")]
        found = next((file for file in candidates if file.is_file()), candidates[0])
        width, height, _ = _dense_header(found)
        load = functools.partial(read_dense_depth, found, metres_per_unit=metres_per_unit)
        return DepthSource(path=found, size=(width, height), load=load)
    file = listed_file(folder, name, where)
    beside = file.with_name(file.name + ".png")
    return depth_png(beside if beside.is_file() else file.with_suffix(".png"))


def read_dense_depth(path: Path, *, metres_per_unit: float = 1.0) -> Float[np.ndarray, "height width"]:
    """Read one of COLMAP's dense depth maps: "width&height&1&" in text, then little-endian float32, row by row.

    Args:
        path: the .bin file.
        metres_per_unit: size of the model's unit.

    Returns:
        float32 z-depth in metres, 0 where nothing was matched.

    Raises:
        FrameError: the file is absent, truncated, or no depth map.
    """
    width, height, start = _dense_header(path)
    data = path.read_bytes()[start:]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is invalid
        depth = np.frombuffer(data, dtype="<f4").reshape(height, width).astype(np.float32) * np.float32(metres_per_unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    return depth


def _dense_header(path: Path) -> tuple[int, int, int]:
    """Width, height, and where the values begin; the file's length has been checked."""
    remedy = "run colmap patch_match_stereo again for this image, or leave the frame out with on_bad_frame='skip'"
    try:
        with path.open("rb") as file:
            head = file.read(32)
        length = path.stat().st_size
    except OSError as error:
        raise FrameError(f"{path}: the depth map cannot be read ({error.strerror}); {remedy}") from error
    match = _DENSE_HEADER.match(head)
    if not match or match[3] != b"1":
        raise FrameError(f"{path}: is no depth map; expected 'width&height&1&' and float32 values; {remedy}")
    width, height = int(match[1]), int(match[2])
    if not width * height or length - match.end() != 4 * width * height:
        raise FrameError(
            f"{path}: holds {length - match.end()} bytes of values, expected {4 * width * height} for "
            f"{width}x{height}; {remedy}"
        )
    return width, height, match.end()
