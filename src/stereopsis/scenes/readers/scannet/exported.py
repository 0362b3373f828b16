"""A scan's frames as files, which is how most people keep them.

Two layouts are in use. ``posed_images/`` holds ``NNNNN.jpg``, ``NNNNN.txt`` (4x4 camera to world) and often
``NNNNN.png`` (16-bit depth in millimetres). ScanNet's own SensReader writes the same into ``color/``, ``pose/`` and
``depth/``. Intrinsics are 3x3 or 4x4 tables beside the frames or poses, in the scan's folder, or in ``intrinsic/`` or
``intrinsics/``; else those of ``SCENE.txt`` serve.
"""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import OnBadFrame, check_intrinsics
from stereopsis.scenes.conventions import Conventions
from stereopsis.scenes.images import DEPTH_SUFFIXES, read_colour, read_header
from stereopsis.scenes.readers.capture_files import read_pose
from stereopsis.scenes.readers.depth_files import DepthSource, array_units, depth_file
from stereopsis.scenes.readers.scannet.frames import ScanFrames
from stereopsis.scenes.readers.scannet.metadata import ScanMetadata, read_matrix
from stereopsis.scenes.scene import Frame

COLOUR_INTRINSICS = (
    "intrinsic_color.txt",
    "intrinsics_color.txt",
    "color_intrinsic.txt",
    "color_intrinsics.txt",
    "intrinsic.txt",
    "intrinsics.txt",
)
DEPTH_INTRINSICS = (
    "intrinsic_depth.txt",
    "intrinsics_depth.txt",
    "depth_intrinsic.txt",
    "depth_intrinsics.txt",
)
COLOUR_FOLDERS = ("color", "rgb", "image", "images")
POSE_FOLDERS = ("pose", "poses")
_NUMBERED = re.compile(r"^([0-9]{1,9})\.(jpg|jpeg|png|pgm|tif|tiff|npy|txt)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameFolders:
    """Where colour, depth and poses lie; all the same folder for ``posed_images``."""

    colour: Path
    depth: Path
    pose: Path


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Files:
    name: str
    pose: np.ndarray
    colour: Path
    size: tuple[int, int]
    depth: DepthSource | None

    @property
    def depth_size(self) -> tuple[int, int] | None:
        return None if self.depth is None else self.depth.size


def find_folders(path: Path) -> FrameFolders | None:
    """The folders of an export inside a scan's folder; None where there is no export."""
    together = path / "posed_images"
    if together.is_dir():
        return FrameFolders(colour=together, depth=together, pose=together)
    colour = next((path / name for name in COLOUR_FOLDERS if (path / name).is_dir()), None)
    pose = next((path / name for name in POSE_FOLDERS if (path / name).is_dir()), None)
    if colour is not None and pose is not None:
        return FrameFolders(colour=colour, depth=path / "depth", pose=pose)
    return None


def exported_frames(
    path: Path,
    folders: FrameFolders,
    metadata: ScanMetadata,
    *,
    conventions: Conventions,
    on_bad_frame: OnBadFrame,
    every: int,
) -> ScanFrames:
    """Index an export as frames named by their files; poses and image headers are read now, pixels when asked for.

    Where any frame has a depth image, a frame without one is a bad frame; where none has, none gets any here.

    Args:
        path: the scan's folder.
        folders: of `find_folders`.
        metadata: the scan's, for intrinsics where no file has them.
        conventions: of poses and depth.
        on_bad_frame: "raise" stops at the first frame that lacks a file or whose pose or image header is wrong;
            "skip" leaves such frames out.
        every: take every how many frames.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: there are no frames, or no usable intrinsics.
    """
    listed = {role: _numbered(getattr(folders, role)) for role in ("colour", "depth", "pose")}
    of_colour = ("jpg", "jpeg") if folders.colour == folders.depth else ("jpg", "jpeg", "png")
    colours = _by_stem(listed["colour"], of_colour)
    depths = _by_stem(listed["depth"], tuple(suffix[1:] for suffix in DEPTH_SUFFIXES))
    poses = _by_stem(listed["pose"], ("txt",))
    names = sorted(colours.keys() | depths.keys() | poses.keys(), key=lambda stem: (int(stem), stem))
    if not names:
        raise SceneError(
            f"{folders.colour}: found no frames; expected numbered images and poses (00000.jpg, 00000.txt, ...); check "
            "the export"
        )
    if "depth_scale" not in conventions.said:
        arrays = [folders.depth / file for file in depths.values()]
        units = array_units(arrays, conventions.depth_scale, "add --depth-scale (units per metre)")
        conventions = dataclasses.replace(conventions, depth_scale=units)
    usable: list[_Files] = []
    skipped: dict[str, str] = {}

    def leave_out(name: str, error: FrameError) -> None:
        if on_bad_frame == "raise":
            raise error
        skipped[name] = str(error)

    for name in names[::every]:
        try:
            files = (poses.get(name, f"{name}.txt"), colours.get(name, f"{name}.jpg"), depths.get(name, f"{name}.png"))
            usable.append(_check(folders, name, files, conventions, with_depth=bool(depths)))
        except FrameError as error:
            leave_out(name, error)
    alike = collections.Counter((item.size, item.depth_size) for item in usable).most_common(1)
    for item in usable:
        if (item.size, item.depth_size) != alike[0][0]:
            leave_out(item.name, FrameError(_other_size(item, *alike[0][0])))
    frames: tuple[Frame, ...] = ()
    if alike:
        size, depth_size = alike[0][0]
        colour = _colour_camera(path, folders, metadata, size)
        depth = None if depth_size is None else _depth_camera(path, folders, metadata, colour, depth_size)
        frames = tuple(_frame(item, colour, depth) for item in usable if item.name not in skipped)
    return ScanFrames(
        frames=frames,
        skipped=skipped,
        source=str(folders.colour.relative_to(path)),
        stored=len(names),
        conventions=conventions,
    )


def _by_stem(listed: Mapping[str, Mapping[str, str]], suffixes: Sequence[str]) -> dict[str, str]:
    """{stem: name of the file} with the first of the suffixes that there is."""
    return {
        stem: next(found[suffix] for suffix in suffixes if suffix in found)
        for stem, found in listed.items()
        if any(suffix in found for suffix in suffixes)
    }


def _numbered(folder: Path) -> dict[str, dict[str, str]]:
    """{stem: {suffix: name}} of a folder's numbered files; nothing where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SceneError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    found: dict[str, dict[str, str]] = {}
    for match in filter(None, map(_NUMBERED.match, sorted(names))):
        found.setdefault(match[1], {})[match[2].lower()] = match[0]
    return found


def _check(
    folders: FrameFolders, name: str, files: tuple[str, str, str], conventions: Conventions, *, with_depth: bool
) -> _Files:
    """Files: of pose, colour and depth."""
    pose = read_pose(folders.pose / files[0], conventions)
    colour = folders.colour / files[1]
    size = read_header(colour, kind="colour").size
    depth = depth_file(folders.depth / files[2], conventions.depth_scale) if with_depth else None
    return _Files(name=name, pose=pose, colour=colour, size=size, depth=depth)


def _frame(item: _Files, colour: Intrinsics, depth: Intrinsics | None) -> Frame:
    return Frame(
        name=item.name,
        T_world_camera=item.pose,
        intrinsics=colour,
        load_colour=functools.partial(read_colour, item.colour, size=item.size),
        load_depth=None if item.depth is None else item.depth.load,
        depth_intrinsics=None if depth == colour else depth,
    )


def _other_size(item: _Files, size: tuple[int, int], depth_size: tuple[int, int] | None) -> str:
    what, found, expected = item.colour, item.size, size
    if found == expected and item.depth is not None and item.depth_size is not None and depth_size is not None:
        what, found, expected = item.depth.path, item.depth_size, depth_size
    return (
        f"{what}: the image is {found[0]}x{found[1]}, expected {expected[0]}x{expected[1]} as most frames have (one "
        "set of intrinsics serves all); restore the original, or leave the frame out with on_bad_frame='skip'"
    )


def _intrinsics_file(path: Path, folders: FrameFolders, names: tuple[str, ...]) -> Path | None:
    for folder in (folders.colour, path, path / "intrinsic", path / "intrinsics", folders.pose):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _from_file(file: Path, size: tuple[int, int]) -> Intrinsics:
    try:
        camera = Intrinsics.from_matrix(read_matrix(file), *size)
    except ValueError as error:
        raise SceneError(f"{file}: {error}; expected a pinhole matrix in pixels; correct the file") from error
    check_intrinsics(camera, str(file))
    return camera


def _from_metadata(
    camera: Intrinsics | None, path: Path, kind: str, names: tuple[str, ...], size: tuple[int, int]
) -> Intrinsics:
    if camera is None:
        raise SceneError(
            f"{path}: no intrinsics for its {kind} images; expected {' or '.join(names)} (3x3 or 4x4), or the data "
            "set's SCENE.txt; write the file"
        )
    if (camera.width, camera.height) != size:
        raise SceneError(
            f"{path}: {kind} images are {size[0]}x{size[1]}, but SCENE.txt's intrinsics speak of "
            f"{camera.width}x{camera.height}; write the {kind} images' own into {names[0]}"
        )
    check_intrinsics(camera, f"{path}: {kind} camera of SCENE.txt")
    return camera


def _colour_camera(path: Path, folders: FrameFolders, metadata: ScanMetadata, size: tuple[int, int]) -> Intrinsics:
    file = _intrinsics_file(path, folders, COLOUR_INTRINSICS)
    if file is not None:
        return _from_file(file, size)
    return _from_metadata(metadata.colour, path, "colour", COLOUR_INTRINSICS, size)


def _depth_camera(
    path: Path, folders: FrameFolders, metadata: ScanMetadata, colour: Intrinsics, size: tuple[int, int]
) -> Intrinsics:
    file = _intrinsics_file(path, folders, DEPTH_INTRINSICS)
    if file is not None:
        return _from_file(file, size)
    if (colour.width, colour.height) == size:
        return colour
    return _from_metadata(metadata.depth, path, "depth", DEPTH_INTRINSICS, size)
