"""A scan's frames from its ``.sens`` file."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import OnBadFrame, check_frame_pose, check_intrinsics
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.readers.scannet.sens import SensFile, SensFrame, open_sens, read_sens_colour, read_sens_depth
from stereopsis.scenes.scene import Frame

_REGISTERED = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScanFrames:
    """What was found where a scan's frames lie.

    Attributes:
        frames: the usable ones, in capture order.
        skipped: {frame name: why it is left out}.
        source: the file or folder that holds them.
        stored: how many frames there are before any was left out.
        conventions: of poses and depth.
        notes: what people should know of them.
    """

    frames: tuple[Frame, ...]
    skipped: Mapping[str, str]
    source: str
    stored: int
    conventions: Conventions
    notes: tuple[str, ...] = ()


def sens_frames(path: Path, *, options: ReadOptions, on_bad_frame: OnBadFrame, every: int) -> ScanFrames:
    """Index a ``.sens`` file as frames named by five digits, as exports of the data set name them.

    The stored pose serves colour and depth alike, as in ScanNet's own export.

    Args:
        path: the file.
        options: what a person says of poses and depth; goes before the file's own.
        on_bad_frame: "raise" stops at the first lost pose or empty image; "skip" leaves such frames out.
        every: take every how many frames.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: the file or its intrinsics are unusable.
    """
    sens = open_sens(path)
    conventions = Conventions(depth_scale=sens.header.depth_shift).with_options(options, str(path))
    header = dataclasses.replace(sens.header, depth_shift=conventions.depth_scale)
    colour = _camera(sens, "colour", sens.header.colour_intrinsics, sens.header.colour_size)
    depth = _camera(sens, "depth", sens.header.depth_intrinsics, sens.header.depth_size)
    frames: list[Frame] = []
    skipped: dict[str, str] = {}
    for item in sens.frames[::every]:
        name = f"{item.index:05d}"
        try:
            pose = conventions.camera_to_world(item.T_world_camera)
            _check(sens, item, pose)
        except FrameError as error:
            if on_bad_frame == "raise":
                raise
            skipped[name] = str(error)
            continue
        frames.append(
            Frame(
                name=name,
                T_world_camera=pose,
                intrinsics=colour,
                load_colour=functools.partial(read_sens_colour, path, header, item),
                load_depth=functools.partial(read_sens_depth, path, header, item),
                depth_intrinsics=None if depth == colour else depth,
            )
        )
    return ScanFrames(
        frames=tuple(frames),
        skipped=skipped,
        source=path.name,
        stored=len(sens.frames),
        conventions=conventions,
        notes=_notes(sens),
    )


def _camera(sens: SensFile, which: str, matrix: np.ndarray, size: tuple[int, int]) -> Intrinsics:
    try:
        camera = Intrinsics.from_matrix(matrix, *size)
    except ValueError as error:
        raise SceneError(
            f"{sens.path}: {which} {error}; expected a pinhole matrix in the file's header; copy or download it again"
        ) from error
    check_intrinsics(camera, f"{sens.path}: {which} camera")
    return camera


def _check(sens: SensFile, item: SensFrame, pose: np.ndarray) -> None:
    where = f"{sens.path}: frame {item.index:05d}"
    check_frame_pose(pose, where)
    if not (item.colour_bytes and item.depth_bytes):
        empty = "depth" if item.colour_bytes else "colour"
        raise FrameError(
            f"{where}: its {empty} payload is empty; expected an image; leave the frame out with on_bad_frame='skip'"
        )


def _notes(sens: SensFile) -> tuple[str, ...]:
    header = sens.header
    off = float(np.abs(np.stack([header.colour_extrinsics, header.depth_extrinsics]) - np.eye(4)).max())
    if off <= _REGISTERED:
        return ()
    return (
        f"{sens.path.name}: extrinsics differ from the identity by up to {off:.3g}: colour and depth were not "
        "registered to each other when the file was made; one pose serves both, so depth lies a little beside colour",
    )
