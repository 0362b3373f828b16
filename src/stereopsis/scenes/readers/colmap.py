"""Reader of COLMAP models, text or binary, with depth maps beside them.

Cameras and images (world to camera: quaternion w x y z, then translation, OpenCV axes) lie in the folder itself, in
``sparse/0/``, ``sparse/``, or where nerfstudio puts them (``colmap/sparse/0/``); the images in ``images/``. Depth
comes from ``depth/`` (also ``depths/``, ``depth_maps/``), 16-bit in millimetres, named after the images, or from
COLMAP's own dense maps in ``stereo/depth_maps/`` (``NAME.geometric.bin``, else ``NAME.photometric.bin``), in the
model's units. Pixel centres lie at +0.5, as here. Images of bending lenses are straightened when they are read, with
their depth.

A model from images alone has an arbitrary unit. Everything in this package is in metres: the unit is measured where
depth images and the model's points (``points3D``) meet, see `stereopsis.scenes.readers.colmap_scale`; otherwise say
``metres_per_unit`` (``--pose-unit``), or scale the model first (``colmap model_aligner`` with known positions).
"""

import dataclasses
import functools
import math
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.reading import open_plain, read_bytes
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy, collect
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, distortion_note
from stereopsis.scenes.readers.colmap_files import IMAGE_LINE, ImageEntry, is_model, read_cameras, read_images
from stereopsis.scenes.readers.colmap_scale import measure_unit
from stereopsis.scenes.readers.depth_files import DepthSource, depth_file
from stereopsis.scenes.readers.listed_files import frame_names, given_name, listed_file, natural_key
from stereopsis.scenes.readers.trajectories import pose_from_quaternion
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "cameras and images, .txt or .bin (also in sparse/0/, sparse/ or colmap/sparse/0/), images/, and for depth depth/ "
    "(16-bit millimetres) or stereo/depth_maps/ (*.geometric.bin)"
)
MODEL_FOLDERS = (".", "sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "colmap")
DEPTH_FOLDERS = ("depth", "depths", "depth_maps")
DENSE_FOLDER = "stereo/depth_maps"
CONVENTIONS = Conventions(pose="world-to-camera", quaternion="wxyz")
_DENSE_HEADER = re.compile(rb"(\d{1,6})&(\d{1,6})&(\d{1,6})&")


def is_colmap(path: Path) -> bool:
    """Whether a folder holds a COLMAP model."""
    return any(is_model(path / folder) for folder in MODEL_FOLDERS)


def read_colmap(
    path: Path,
    *,
    metres_per_unit: float | None = None,
    images: Path | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a COLMAP model with its images; pixels are read when asked for, headers and poses now.

    Frames are sorted by file name. ``provenance["scale"]`` says on what the metres rest.

    Args:
        path: the folder that holds model and images (of a dense workspace: the workspace).
        metres_per_unit: size of the model's unit; applied to positions and to COLMAP's own depth maps (PNG depth is in
            millimetres as it is). None takes the options' ``pose_unit``; without that, it is measured (this decodes
            up to 12 depth images), and 1 where PNG depth or points are absent.
        images: the folder of the images; None takes ``images/`` where there is one, else the folder itself.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame's pose, camera, image or depth map is unusable, and the policy is "raise".
        SceneError: the model is absent, damaged, of cameras that cannot be straightened, or at odds with the depth
            images; or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    if metres_per_unit is not None and not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise SceneError(f"metres_per_unit={metres_per_unit}: expected a positive number of metres")
    metres_per_unit = options.pose_unit if metres_per_unit is None else metres_per_unit
    unit = 1.0 if metres_per_unit is None else metres_per_unit
    conventions = dataclasses.replace(CONVENTIONS.with_options(options, str(path)), pose_unit=unit)
    model = _model_folder(path)
    cameras = read_cameras(model)
    entries = sorted(read_images(model), key=lambda entry: natural_key(entry.name))
    if images is None:
        images = path / "images" if (path / "images").is_dir() else path
    depth_folder = _depth_folder(path)
    if depth_folder is not None and _is_dense(depth_folder) and options.depth_scale is None:
        conventions = dataclasses.replace(conventions, depth_scale=1.0 / unit)
    names = frame_names([entry.name for entry in entries])

    def build(index: int) -> Frame:
        entry = entries[index]
        where = entry.where
        if entry.camera not in cameras:
            raise FrameError(
                f"{where}: names camera {entry.camera}, but cameras.txt has {', '.join(cameras)}; restore the line "
                "there, or leave the frame out with on_bad_frame='skip'"
            )
        lens = cameras[entry.camera]
        return capture_frame(
            names[index],
            _pose(entry, conventions),
            lens.camera,
            listed_file(images, entry.name, where),
            _depth(depth_folder, entry.name, where, conventions.depth_scale),
            pose_from=where,
            intrinsics_from=f"camera {entry.camera} of {model / 'cameras.txt'}",
            lens=lens,
        )

    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    frames, scale = collected.items, f"{unit:g} metres per unit of the model, as the caller told"
    if metres_per_unit is None:
        scale = "1 metre per unit of the model, assumed; a COLMAP model made from images alone has an arbitrary unit"
        measured = None
        if depth_folder is not None and not _is_dense(depth_folder):
            measured = measure_unit(frames, dict(zip(names, entries, strict=True)), model)
        if measured is not None:
            frames, scale = tuple(_scaled(frame, measured.metres) for frame in frames), str(measured)
            conventions = dataclasses.replace(conventions, pose_unit=measured.metres)
    return Scene(
        id=given_name(path),
        frames=frames,
        provenance={
            "format": "colmap",
            "path": str(path),
            "skipped": dict(collected.skipped),
            "scale": scale,
            **conventions.record(),
            **distortion_note(cameras.values()),
        },
    )


def _scaled(frame: Frame, metres_per_unit: float) -> Frame:
    pose = frame.T_world_camera.copy()
    pose[:3, 3] *= metres_per_unit
    return dataclasses.replace(frame, T_world_camera=pose)


def _model_folder(path: Path) -> Path:
    for name in MODEL_FOLDERS:
        if is_model(path / name):
            return path / name
    raise SceneError(f"{path}: found no COLMAP model; expected {EXPECTED_FILES}; check the path")


def _pose(entry: ImageEntry, conventions: Conventions) -> Float[np.ndarray, "4 4"]:
    values = entry.pose()
    try:
        stored = pose_from_quaternion(conventions.xyzw(values[:4]), values[4:])
    except ValueError as error:
        raise FrameError(
            f"{entry.where}: unusable pose: {error}; expected {IMAGE_LINE}; correct the line, or leave the frame out "
            "with on_bad_frame='skip'"
        ) from error
    return conventions.camera_to_world(stored)


def _depth_folder(path: Path) -> Path | None:
    return next((path / name for name in (*DEPTH_FOLDERS, DENSE_FOLDER) if (path / name).is_dir()), None)


def _is_dense(depth_folder: Path) -> bool:
    return depth_folder.as_posix().endswith(DENSE_FOLDER)


def _depth(folder: Path | None, name: str, where: str, depth_scale: float | int) -> DepthSource | None:
    if folder is None:
        return None
    if _is_dense(folder):
        candidates = [listed_file(folder, f"{name}.{kind}.bin", where) for kind in ("geometric", "photometric")]
        found = next((file for file in candidates if file.is_file()), candidates[0])
        width, height, _ = _dense_header(found)
        load = functools.partial(read_dense_depth, found, metres_per_unit=1.0 / depth_scale)
        return DepthSource(path=found, size=(width, height), load=load)
    for suffix in DEPTH_SUFFIXES:
        beside = listed_file(folder, name + suffix, where)
        if beside.is_file():
            return depth_file(beside, depth_scale)
    bare = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in COLOUR_SUFFIXES else name
    found = listed_file(folder, bare, where)
    return depth_file(found if found.is_file() else folder / f"{bare}.png", depth_scale)


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
    data = read_bytes(path)[start:]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is invalid
        depth = np.frombuffer(data, dtype="<f4").reshape(height, width).astype(np.float32) * np.float32(metres_per_unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    return depth


def _dense_header(path: Path) -> tuple[int, int, int]:
    """Width, height, and where the values begin; the file's length has been checked."""
    remedy = "run colmap patch_match_stereo again for this image, or leave the frame out with on_bad_frame='skip'"
    try:
        with open_plain(path) as file:
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
