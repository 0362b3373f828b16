"""Reader of ScanNet as Video-3D-LLM, Ross3D and 3DRS keep it: ``data/scannet/posed_images/SCENE``.

A scene's folder holds, for every frame, ``NNNNN.jpg``, ``NNNNN.png`` (depth, 16 bit, millimetres) and ``NNNNN.txt``
(4x4 camera to world, metres, OpenCV axes), and ``intrinsic.txt`` and ``depth_intrinsic.txt`` (4x4). Colour is
1296x968 and depth 640x480 in ScanNet, so each has its own intrinsics. The data root above it usually holds
EmbodiedScan's records (see `stereopsis.scenes.readers.embodiedscan`), from which these systems take the alignment, the
intrinsics and the list of frames. Without the records, the alignment comes from ScanNet's own
``scans/SCENE/SCENE.txt``; without that, the scene stays unaligned (`stereopsis.scenes.alignment` can estimate it).
"""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics, check_pose
from stereopsis.scenes.bad_frames import (
    MAX_BAD_FRACTION,
    OnBadFrame,
    check_frame_pose,
    check_intrinsics,
    check_policy,
    collect,
)
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import read_colour, read_depth, read_header
from stereopsis.scenes.readers.capture_files import read_matrix, read_text
from stereopsis.scenes.readers.embodiedscan import SceneInfo, find_info, info_files
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "NNNNN.jpg, NNNNN.png (16-bit depth, millimetres) and NNNNN.txt (4x4 camera to world), intrinsic.txt and "
    "depth_intrinsic.txt, in a folder named after the scene"
)
COLOUR_INTRINSICS = ("intrinsic.txt", "intrinsic_color.txt")
DEPTH_INTRINSICS = ("depth_intrinsic.txt", "intrinsic_depth.txt")
Frames = Literal["listed", "present"]
_COLOUR_FILE = re.compile(r"\d+\.jpg")
_LEVELS_UP = 4  # data/scannet/posed_images/SCENE lies three levels below the data root


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _FrameFiles:
    name: str
    pose: np.ndarray
    pose_recorded: bool
    colour: Path
    depth: Path | None
    sizes: tuple[tuple[int, int], tuple[int, int] | None]


def is_posed_images(path: Path) -> bool:
    """Whether a folder holds a frame named by its number and beside it intrinsics or a pose in this layout's names."""
    if not path.is_dir():
        return False
    with os.scandir(path) as entries:
        first = next((entry.name for entry in entries if _COLOUR_FILE.fullmatch(entry.name)), None)
    if first is None:
        return False
    beside = (*COLOUR_INTRINSICS, *DEPTH_INTRINSICS, first.removesuffix("jpg") + "txt")
    return any((path / name).is_file() for name in beside)


def data_root(path: Path) -> Path | None:
    """The folder above a scene's folder that holds EmbodiedScan's records; None where there is none near."""
    for start in dict.fromkeys((path.absolute(), path.resolve())):
        for folder in start.parents[:_LEVELS_UP]:
            if info_files(folder):
                return folder
    return None


def frame_names(path: Path) -> list[str]:
    """Names of the frames that have a colour image in a scene's folder, in order.

    Raises:
        SceneError: there is no such folder, or no frame in it.
    """
    if not path.is_dir():
        raise SceneError(f"{path}: no such folder; expected one that holds {EXPECTED_FILES}; check the path")
    names = sorted(name.removesuffix(".jpg") for name in os.listdir(path) if _COLOUR_FILE.fullmatch(name))
    if not names:
        scenes = sorted(entry.name for entry in path.iterdir() if is_posed_images(entry))[:3]
        remedy = f"open one of its scenes instead: {', '.join(scenes)}, ..." if scenes else "check the path"
        raise SceneError(f"{path}: found no frames; expected {EXPECTED_FILES}; {remedy}")
    return sorted(names, key=int)


def read_posed_images(
    path: Path,
    *,
    root: Path | None = None,
    frames: Frames = "listed",
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open one scene; images are read when asked for, their headers and the poses now.

    Args:
        path: the scene's folder, ``.../posed_images/SCENE``.
        root: the data root, which holds ``embodiedscan/``; None looks for it above the folder.
        frames: "listed" takes the frames that EmbodiedScan's record lists, in its order, as the systems named above
            do; "present" (and any scene without a record) takes all that are in the folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them. ScanNet has
            poses of -inf or NaN where tracking was lost: these frames are bad.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Returns:
        A scene named after the folder. ``provenance["skipped"]`` maps the frames left out to the reasons,
        ``["infos"]`` names the record's file; ``["poses_from_infos"]`` counts poses that are from there, because the
        frame has no NNNNN.txt; ``["alignment"]`` says where the alignment is from and is absent where
        none was found, in which case ``T_aligned_world`` is the identity.

    Raises:
        FrameError: a frame lacks a file, or its pose or an image header is wrong, and the policy is "raise".
        SceneError: no folder, no frames, unusable intrinsics or record, or too many bad frames.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    conventions = Conventions().with_options(options, str(path))
    present = frame_names(path)
    scene_id = given_name(path)
    root = data_root(path) if root is None else Path(root)
    info = find_info(root, scene_id) if root is not None else None
    names = list(info.names) if info is not None and frames == "listed" else present
    with_depth = any((path / f"{name}.png").is_file() for name in names)
    collected = collect(
        str(path),
        names,
        lambda index: _check_files(path, names[index], with_depth, info, conventions),
        on_bad_frame=on_bad_frame,
        max_bad_fraction=max_bad_fraction,
    )
    sizes = collections.Counter(item.sizes for item in collected.items).most_common(1)[0][0]
    collected = collected.only(
        lambda item: item.sizes == sizes, lambda item: item.name, lambda item: _other_sizes(item, sizes)
    )
    alignment = _alignment(path, scene_id, info)
    recorded = sum(item.pose_recorded for item in collected.items)
    return Scene(
        id=scene_id,
        frames=_frames(collected.items, path, info, sizes, conventions.depth_scale),
        T_aligned_world=np.eye(4) if alignment is None else alignment[0],
        provenance={
            "format": "posed_images",
            "path": str(path),
            "infos": None if info is None else str(info.source),
            "skipped": collected.skipped,
            **conventions.record(),
            **({"poses_from_infos": recorded} if recorded else {}),
            **({} if alignment is None else {"alignment": {"method": "given", "source": alignment[1]}}),
        },
    )


def _check_files(
    path: Path, name: str, with_depth: bool, info: SceneInfo | None, conventions: Conventions
) -> _FrameFiles:
    pose_file, colour_file, depth_file = (path / f"{name}.{suffix}" for suffix in ("txt", "jpg", "png"))
    recorded = None if info is None or pose_file.exists() else info.poses.get(name)
    stored = read_matrix(pose_file, ((4, 4),), "pose", FrameError) if recorded is None else recorded
    pose = conventions.camera_to_world(stored)
    check_frame_pose(pose, str(pose_file) if recorded is None else f"{path}: the record's pose of frame '{name}'")
    if info is not None and name in info.names and not colour_file.exists():
        raise FrameError(
            f"{colour_file}: does not exist, but {info.source} lists this frame; extract it again, take what is "
            "there with frames='present', or leave the frame out with on_bad_frame='skip'"
        )
    colour = read_header(colour_file, kind="colour")
    return _FrameFiles(
        name=name,
        pose=pose,
        pose_recorded=recorded is not None,
        colour=colour_file,
        depth=depth_file if with_depth else None,
        sizes=(colour.size, read_header(depth_file, kind="depth").size if with_depth else None),
    )


def _other_sizes(item: _FrameFiles, sizes: tuple[tuple[int, int], tuple[int, int] | None]) -> str:
    def words(pair: tuple[tuple[int, int], tuple[int, int] | None]) -> str:
        return " and ".join(f"{size[0]}x{size[1]}" for size in pair if size is not None)

    return (
        f"{item.colour}: colour and depth are {words(item.sizes)}, expected {words(sizes)} as most frames have (one "
        "set of intrinsics serves all); restore the originals, or leave the frame out with on_bad_frame='skip'"
    )


def _frames(
    found: Sequence[_FrameFiles],
    path: Path,
    info: SceneInfo | None,
    sizes: tuple[tuple[int, int], tuple[int, int] | None],
    depth_scale: float | int,
) -> tuple[Frame, ...]:
    given = None if info is None else info.colour_matrix
    colour = _intrinsics(path, COLOUR_INTRINSICS, given, sizes[0])
    if colour is None:
        raise SceneError(
            f"{path / COLOUR_INTRINSICS[0]}: does not exist, and EmbodiedScan's record gives no 'cam2img' either; "
            "expected a 3x3 or 4x4 matrix, pixels; export it with ScanNet's SensReader"
        )
    depth = None
    if sizes[1] is not None:
        depth = _intrinsics(path, DEPTH_INTRINSICS, None if info is None else info.depth_matrix, sizes[1])
        if depth is None and sizes[0] != sizes[1]:
            raise SceneError(
                f"{path / DEPTH_INTRINSICS[0]}: does not exist, and EmbodiedScan's record gives no 'depth_cam2img' "
                f"either, but colour is {sizes[0][0]}x{sizes[0][1]} and depth {sizes[1][0]}x{sizes[1][1]}; expected a "
                "3x3 or 4x4 matrix, pixels; export it with ScanNet's SensReader"
            )
    return tuple(
        Frame(
            name=item.name,
            T_world_camera=item.pose,
            intrinsics=colour,
            load_colour=functools.partial(read_colour, item.colour, size=sizes[0]),
            load_depth=None
            if item.depth is None
            else functools.partial(read_depth, item.depth, scale=depth_scale, size=sizes[1]),
            depth_intrinsics=depth,
        )
        for item in found
    )


def _intrinsics(
    path: Path, names: tuple[str, ...], given: np.ndarray | None, size: tuple[int, int]
) -> Intrinsics | None:
    """The record's intrinsics, else those of the folder's file, else None."""
    file = next((path / name for name in names if (path / name).exists()), None)
    if given is None and file is None:
        return None
    where = "EmbodiedScan's intrinsics" if file is None or given is not None else str(file)
    matrix = given if given is not None else read_matrix(Path(where), ((3, 3), (4, 4)), "intrinsics", SceneError)
    try:
        camera = Intrinsics.from_matrix(matrix, *size)
    except ValueError as error:
        raise SceneError(f"{where} of {path}: {error}; expected a pinhole matrix in pixels; correct it") from error
    check_intrinsics(camera, f"{where} of {path}")
    return camera


def _alignment(path: Path, scene_id: str, info: SceneInfo | None) -> tuple[np.ndarray, str] | None:
    """World to aligned frame, and where it is from."""
    if info is not None and info.T_aligned_world is not None:
        return info.T_aligned_world, str(info.source)
    for start in dict.fromkeys((path.absolute(), path.resolve())):
        for folder in start.parents[:2]:
            file = folder / "scans" / scene_id / f"{scene_id}.txt"
            matrix = read_axis_alignment(file) if file.is_file() else None
            if matrix is not None:
                return matrix, str(file)
    return None


def read_axis_alignment(path: Path) -> Float[np.ndarray, "4 4"] | None:
    """The line ``axisAlignment = <16 numbers>`` of ScanNet's SCENE.txt: world to aligned frame, metres.

    Returns:
        [4, 4] float64; None where the file has no such line (ScanNet's first release).

    Raises:
        SceneError: the file is unreadable, or the line holds no rigid transform.
    """
    try:
        lines = read_text(path, "scan's description", expected="lines of 'key = value'").splitlines()
        line = next((line for line in lines if line.split("=")[0].strip() == "axisAlignment"), None)
        if line is None:
            return None
        matrix = np.array([float(value) for value in line.split("=", 1)[1].split()]).reshape(4, 4)
        check_pose(matrix, "axisAlignment")
    except (OSError, ValueError) as error:
        raise SceneError(
            f"{path}: unusable axisAlignment ({error}); expected 16 numbers of a rigid 4x4 transform; restore the file"
        ) from error
    return matrix
