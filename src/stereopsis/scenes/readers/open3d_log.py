"""Reader of captures for Open3D's reconstruction system: colour and depth folders and a ``trajectory.log``.

``color/`` (also ``rgb/`` or ``image/``) and ``depth/`` hold numbered images, depth in 16-bit millimetres and
registered to colour; ``trajectory.log`` (or ``scene/trajectory.log``) has five lines per pose: three whole numbers,
the first of which is the image's place in the sorted folder, and a 4x4 matrix, camera to world, metres, OpenCV axes;
or ``camera_trajectory.json`` (Open3D's PinholeCameraTrajectory) has world-to-camera matrices with their intrinsics;
``intrinsic.json`` holds width, height and intrinsic_matrix, nine numbers column by column. Open3D puts pixel centres
at whole numbers, this package at +0.5: half a pixel is added to the principal point.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_intrinsics, check_policy, collect
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, read_json, read_rows
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import frame_names, given_name, images_in
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "color/ and depth/ (numbered images, depth 16-bit millimetres), trajectory.log (three whole numbers and a 4x4 "
    "camera to world per image), intrinsic.json (width, height, intrinsic_matrix column by column)"
)
COLOUR_FOLDERS = ("color", "rgb", "image")
TRAJECTORIES = ("trajectory.log", "scene/trajectory.log")
CAMERA_TRAJECTORY = "camera_trajectory.json"
INTRINSICS = ("intrinsic.json", "camera_intrinsic.json")
_BLOCK = "blocks of five lines: three whole numbers (the first is the image's number, from 0), then a 4x4 matrix"
_PARAMETERS = '"parameters": a list of {"extrinsic": 16 numbers, "intrinsic": {width, height, intrinsic_matrix}}'
_INTRINSIC_KEYS = "width, height and intrinsic_matrix (nine numbers, column by column: fx 0 0 0 fy 0 cx cy 1)"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    where: str
    image: int
    pose: Float[np.ndarray, "4 4"]
    intrinsics: Intrinsics
    intrinsics_from: str


def is_open3d_log(path: Path) -> bool:
    """Whether a folder holds this layout's trajectory and depth folder."""
    return (path / "depth").is_dir() and any((path / name).is_file() for name in (*TRAJECTORIES, CAMERA_TRAJECTORY))


def read_open3d_log(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a capture in the layout of Open3D's reconstruction system; images are read when asked for.

    Colour and depth images are paired by the first number in their names where these numbers are unique, and by their
    order otherwise. Images to which the trajectory gives no pose are counted in ``provenance["unmatched"]``.

    Args:
        path: the capture's folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a pose, an image header or a pair is unusable, and the policy is "raise".
        SceneError: the trajectory, the intrinsics or the folders are absent or unusable, or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    own, blocks = _trajectory(path)
    conventions = own.with_options(options, str(path))
    colour = _images(path, COLOUR_FOLDERS, COLOUR_SUFFIXES)
    depth = _pair(colour, _images(path, ("depth",), DEPTH_SUFFIXES))
    outside = [block for block in blocks if not 0 <= block.image < len(colour)]
    if outside:
        raise SceneError(
            f"{outside[0].where}: speaks of image {outside[0].image}, but {colour[0].parent} holds {len(colour)} "
            "images, numbered from 0; restore the missing images, or the trajectory that belongs to them"
        )
    names = frame_names([colour[block.image].name for block in blocks])

    def build(index: int) -> Frame:
        block = blocks[index]
        partner = depth.get(block.image)
        if partner is None:
            raise FrameError(
                f"{path / 'depth'}: holds no image with the number of {colour[block.image].name}; expected one depth "
                "image per colour image; restore it, or leave the frame out with on_bad_frame='skip'"
            )
        return capture_frame(
            names[index],
            conventions.camera_to_world(block.pose),
            block.intrinsics,
            colour[block.image],
            depth_file(partner, conventions.depth_scale),
            pose_from=block.where,
            intrinsics_from=block.intrinsics_from,
        )

    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    return Scene(
        id=given_name(path),
        frames=collected.items,
        provenance={
            "format": "open3d",
            "path": str(path),
            "skipped": dict(collected.skipped),
            **conventions.record(),
            "unmatched": {"colour without pose": len(colour) - len({block.image for block in blocks})},
        },
    )


def _first(path: Path, names: tuple[str, ...], expected: str) -> Path:
    for name in names:
        if (path / name).is_file():
            return path / name
    raise SceneError(f"{path / names[0]}: does not exist; expected {expected}; write or restore that file")


def _trajectory(path: Path) -> tuple[Conventions, list[_Block]]:
    """How poses are stored, and the poses: of a log, else of Open3D's camera_trajectory.json."""
    file = path / CAMERA_TRAJECTORY
    if file.is_file() and not any((path / name).is_file() for name in TRAJECTORIES):
        return Conventions(pose="world-to-camera"), _read_camera_trajectory(file)
    intrinsics_file = _first(path, INTRINSICS, _INTRINSIC_KEYS)
    intrinsics = _read_intrinsics(intrinsics_file)
    return Conventions(), _read_log(_first(path, TRAJECTORIES, _BLOCK), intrinsics, str(intrinsics_file))


def _read_camera_trajectory(file: Path) -> list[_Block]:
    """A PinholeCameraTrajectory: per image an extrinsic (world to camera) and an intrinsic, both column by column."""
    items = read_json(file, "trajectory", expected=_PARAMETERS).get("parameters")
    if not isinstance(items, list) or not items:
        raise SceneError(f"{file}: found no list under 'parameters'; expected {_PARAMETERS}; write the file again")
    blocks = []
    for number, item in enumerate(items):
        where = f"{file}, camera {number}"
        try:
            stored = np.array(item["extrinsic"], dtype=np.float64).reshape(4, 4).T.copy()
            intrinsics = _intrinsics(item["intrinsic"], where)
        except (KeyError, TypeError, ValueError) as error:
            raise SceneError(f"{where}: {error!r}; expected {_PARAMETERS}; write the file again") from error
        blocks.append(_Block(where=where, image=number, pose=stored, intrinsics_from=where, intrinsics=intrinsics))
    return blocks


def _read_intrinsics(file: Path) -> Intrinsics:
    return _intrinsics(read_json(file, "intrinsics", expected=_INTRINSIC_KEYS), str(file))


def _intrinsics(content: Mapping[str, Any], file: str) -> Intrinsics:
    try:
        matrix = np.array(content["intrinsic_matrix"], dtype=np.float64).reshape(3, 3).T.copy()
        width, height = int(content["width"]), int(content["height"])
        intrinsics = Intrinsics.from_matrix(matrix, width, height)
    except (KeyError, TypeError, ValueError) as error:
        found = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SceneError(f"{file}: {found}; expected {_INTRINSIC_KEYS}; correct the file") from error
    intrinsics = dataclasses.replace(intrinsics, cx=intrinsics.cx + 0.5, cy=intrinsics.cy + 0.5)
    check_intrinsics(intrinsics, file)
    return intrinsics


def _read_log(file: Path, intrinsics: Intrinsics, intrinsics_from: str) -> list[_Block]:
    rows = read_rows(file, "trajectory", expected=_BLOCK)
    blocks = []
    for start in range(0, len(rows), 5):
        head, body = rows[start], rows[start + 1 : start + 5]
        numbers = head.numbers(3)
        if not (np.isfinite(numbers).all() and numbers[0] == round(numbers[0])):
            raise head.error(f"found '{head.text}' as the numbers of a pose")
        if len(body) < 4:
            raise head.error(f"the file ends after {len(body)} of 4 matrix lines")
        pose = np.array([row.numbers(4) for row in body])
        blocks.append(
            _Block(
                where=head.where,
                image=int(numbers[0]),
                pose=pose,
                intrinsics=intrinsics,
                intrinsics_from=intrinsics_from,
            )
        )
    return blocks


def _images(path: Path, folders: tuple[str, ...], suffixes: tuple[str, ...]) -> list[Path]:
    for name in folders:
        if found := images_in(path / name, suffixes):
            return found
    raise SceneError(
        f"{path}: found no images in {' or '.join(f'{name}/' for name in folders)}; expected {EXPECTED_FILES}; "
        "restore the folder"
    )


def _pair(colour: list[Path], depth: list[Path]) -> Mapping[int, Path]:
    """{index of the colour image: its depth image}."""
    numbers = [_numbers(colour), _numbers(depth)]
    if all(len(set(each)) == len(each) and None not in each for each in numbers) and set(numbers[0]) & set(numbers[1]):
        partners = dict(zip(numbers[1], depth, strict=True))
        return {index: partners[number] for index, number in enumerate(numbers[0]) if number in partners}
    if len(colour) != len(depth):
        raise SceneError(
            f"{colour[0].parent.parent}: {len(colour)} colour and {len(depth)} depth images, whose names do not tell "
            "which belong together; expected pairs with the same number; rename them, or remove those without partner"
        )
    return dict(enumerate(depth))


def _numbers(files: list[Path]) -> list[int | None]:
    """The first number in each name: 0000012-000000363.jpg is image 12."""
    found = [re.search(r"\d+", file.stem) for file in files]
    return [int(match[0]) if match else None for match in found]
