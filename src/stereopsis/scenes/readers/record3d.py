"""Reader of Record3D's own files (``.r3d``, iPhones and iPads with LiDAR), packed or unpacked.

A .r3d file is a ZIP archive of ``metadata`` (JSON: ``w h`` of colour, ``dw dh`` of depth, ``K`` column by column,
optionally ``perFrameIntrinsicCoeffs`` fx fy cx cy, and ``poses``: qx qy qz qw x y z per frame, camera to world, metres,
ARKit's axes with y up and z backward) and ``rgbd/N.jpg`` with ``rgbd/N.depth``: float32 metres, row by row, packed with
LZFSE. Depth shows what colour shows, at its own size.
"""

import dataclasses
import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.errors import FrameError, MissingExtraError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.reading import open_archive, parse_json, read_bytes
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_frame_pose, check_intrinsics
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import decode_colour
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.readers.trajectories import pose_from_quaternion
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = "NAME.r3d, or its unpacked metadata and rgbd/ (N.jpg, N.depth)"
CONVENTIONS = Conventions(axes="opengl", quaternion="xyzw", depth_scale=1.0)
MOST_METADATA = 256 * 2**20
"""Bytes: an hour of poses takes a tenth of it."""
_LZFSE_END = b"bvx$"
_METADATA = "w, h, dw, dh, K (nine numbers, column by column) and poses (seven numbers per frame)"


def is_record3d(path: Path) -> bool:
    """Whether a path is a .r3d file, such a file unpacked, or a folder of them."""
    return bool(record3d_paths(path))


def record3d_paths(path: Path) -> list[Path]:
    """The recordings at a path: itself, or the .r3d files directly in it."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".r3d" else []
    if (path / "metadata").is_file() and (path / "rgbd").is_dir():
        return [path]
    return sorted(file for file in path.glob("*.[rR]3[dD]") if file.is_file()) if path.is_dir() else []


def recording_name(path: Path) -> str:
    """The file's name without its suffix."""
    return Path(given_name(path)).stem if path.suffix.lower() == ".r3d" else given_name(path)


def read_record3d(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open a recording; pictures stay packed until asked for.

    Args:
        path: the .r3d file, or the folder into which it was unpacked.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: the file is damaged or of another kind, or too many frames are bad.
    """
    path = Path(path)
    policy = Policy(on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    conventions = CONVENTIONS.with_options(options, str(path))
    metadata = _metadata(path)
    members = _members(path)
    camera = metadata.camera

    def build(index: int, name: str) -> Frame:
        where = f"{path}: frame {index}"
        missing = [f"rgbd/{index}.{kind}" for kind in ("jpg", "depth") if f"rgbd/{index}.{kind}" not in members]
        if missing:
            raise FrameError(f"{where}: {missing[0]} is absent; record again, or leave it out with on_bad_frame='skip'")
        pose = metadata.poses[index]
        try:
            stored = pose_from_quaternion(conventions.xyzw(pose[:4]), pose[4:])
        except ValueError as error:
            raise FrameError(f"{where}: unusable pose: {error}; leave it out with on_bad_frame='skip'") from error
        T_world_camera = conventions.camera_to_world(stored)
        check_frame_pose(T_world_camera, where)
        own = camera
        if metadata.coefficients is not None and index < len(metadata.coefficients):
            fx, fy, cx, cy = (float(value) for value in metadata.coefficients[index])
            own = dataclasses.replace(camera, fx=fx, fy=fy, cx=cx, cy=cy)
        check_intrinsics(own, where)
        size = metadata.depth_size
        return Frame(
            name=name,
            T_world_camera=T_world_camera,
            intrinsics=own,
            load_colour=functools.partial(_read_colour, path, index, (own.width, own.height)),
            load_depth=functools.partial(read_lzfse_depth, path, index, size, conventions.depth_scale),
            depth_intrinsics=None if size == (own.width, own.height) else own.resized(*size),
        )

    names = [f"{index:06d}.jpg" for index in range(len(metadata.poses))]
    return capture_scene(path, "record3d", names, build, conventions, policy, scene_id=recording_name(path))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Metadata:
    camera: Intrinsics
    depth_size: tuple[int, int]
    poses: Float[np.ndarray, "n 7"]
    coefficients: Float[np.ndarray, "n 4"] | None


def _metadata(path: Path) -> _Metadata:
    try:
        content: Any = parse_json(_read(path, "metadata", MOST_METADATA))
        matrix = np.array(content["K"], dtype=np.float64).reshape(3, 3).T
        width, height = int(content["w"]), int(content["h"])
        poses = np.array(content["poses"], dtype=np.float64).reshape(-1, 7)
        coefficients = content.get("perFrameIntrinsicCoeffs")
        if not len(poses):
            raise ValueError("no poses")
        return _Metadata(
            camera=Intrinsics.from_matrix(matrix, width, height),
            depth_size=(int(content.get("dw", width)), int(content.get("dh", height))),
            poses=poses,
            coefficients=None if coefficients is None else np.array(coefficients, dtype=np.float64).reshape(-1, 4),
        )
    except FrameError as error:
        raise SceneError(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise SceneError(
            f"{path}: unusable metadata ({error!r}); expected a recording of Record3D with {_METADATA}; export it again"
        ) from error


def _members(path: Path) -> set[str]:
    if path.is_dir():
        return {f"rgbd/{file.name}" for file in (path / "rgbd").iterdir()}
    with open_archive(path) as archive:
        return set(archive.namelist())


def _read(path: Path, member: str, most: int) -> bytes:
    """A part of the recording, at most so many bytes.

    Raises:
        FrameError: it is absent, damaged, or larger.
    """
    try:
        if path.is_dir():
            if (path / member).stat().st_size > most:
                raise ValueError(f"larger than {most} bytes")
            return read_bytes(path / member)
        with open_archive(path) as archive:
            if archive.getinfo(member).file_size > most:
                raise ValueError(f"larger than {most} bytes")
            return archive.read(member)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise FrameError(f"{path}: {member} cannot be read ({error}); copy or export the recording again") from error


def _read_colour(path: Path, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    return decode_colour(_read(path, f"rgbd/{index}.jpg", MOST_METADATA), f"{path}, rgbd/{index}.jpg", size=size)


def read_lzfse_depth(
    path: Path, index: int, size: tuple[int, int], depth_scale: float | int
) -> Float[np.ndarray, "height width"]:
    """Unpack one depth image to float32 metres, 0 where nothing was measured.

    Args:
        path: the recording.
        index: of the frame.
        size: (width, height) of depth images.
        depth_scale: units per metre (1: they are metres).

    Raises:
        FrameError: the image is absent, damaged, or of another size.
        MissingExtraError: pyliblzfse is not installed.
    """
    try:
        import liblzfse
    except ImportError as error:
        raise MissingExtraError("pyliblzfse", "record3d", "Depth of Record3D") from error
    where = f"{path}, rgbd/{index}.depth"
    packed = _read(path, f"rgbd/{index}.depth", MOST_METADATA)
    whole = 4 * size[0] * size[1]
    # The library asks for ever more memory where a stream has no end, and for whatever its first block announces.
    if not packed.endswith(_LZFSE_END) or int.from_bytes(packed[4:8], "little") > whole:
        raise FrameError(f"{where}: is cut, or larger than {size[0]}x{size[1]} pixels; export the recording again")
    try:
        data = liblzfse.decompress(packed)
    except (liblzfse.error, MemoryError) as error:
        raise FrameError(f"{where}: cannot be unpacked ({error}); export the recording again") from error
    if len(data) != whole:
        raise FrameError(f"{where}: holds {len(data)} bytes, expected {whole} for {size[0]}x{size[1]} pixels")
    depth = np.frombuffer(data, dtype="<f4").reshape(size[1], size[0]) / np.float32(depth_scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0)).astype(np.float32)
