"""Reader of Replica as NICE-SLAM renders it (also Co-SLAM, SplaTAM and others).

``traj.txt`` has one 4x4 matrix per line, camera to world, metres, OpenCV axes; ``results/`` holds
``frame000000.jpg`` and ``depth000000.png`` with 6553.5 units per metre. The camera stands in ``cam_params.json`` of the
folder above; without it the published one holds for 1200x680 images (Zhu et al., NICE-SLAM, CVPR 2022; Straub et al.,
Replica, 2019). Its principal point counts whole numbers as pixel centres: half a pixel is added.
"""

from pathlib import Path

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from stereopsis.scenes.readers.capture_files import TextRow, capture_frame, check_folder, read_json, read_rows
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import common_size, images_in
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "traj.txt (16 numbers per line, camera to world) and results/ (frame000000.jpg, depth000000.png, 6553.5 units per "
    "metre); cam_params.json there or in the folder above"
)
PUBLISHED = Intrinsics(fx=600.0, fy=600.0, cx=600.0, cy=340.0, width=1200, height=680)
_CAMERA = '"camera": {"w", "h", "fx", "fy", "cx", "cy", "scale"}'


def is_replica(path: Path) -> bool:
    """Whether a folder holds the trajectory and the rendered frames."""
    return (path / "traj.txt").is_file() and (path / "results").is_dir()


def read_replica(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open one room of Replica as NICE-SLAM distributes it.

    Args:
        path: the room's folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: files are absent or unusable, or too many frames are bad.
    """
    path = Path(path)
    policy = Policy(on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    check_folder(path, EXPECTED_FILES)
    rows = read_rows(path / "traj.txt", "trajectory", expected="16 numbers, a 4x4 matrix camera to world")
    colour = [file for file in images_in(path / "results", COLOUR_SUFFIXES) if file.name.startswith("frame")]
    depth = [file for file in images_in(path / "results", DEPTH_SUFFIXES) if file.name.startswith("depth")]
    if len(colour) != len(depth) or len(colour) != len(rows) or not colour:
        raise SceneError(
            f"{path}: found {len(colour)} colour images, {len(depth)} depth images and {len(rows)} poses; expected as "
            "many "
            "of each; restore the missing ones"
        )
    camera, scale = _camera(path, colour)
    conventions = Conventions(depth_scale=scale).with_options(options, str(path))

    def build(index: int, name: str) -> Frame:
        return capture_frame(
            name,
            conventions.camera_to_world(_matrix(rows[index])),
            camera,
            colour[index],
            depth_file(depth[index], conventions.depth_scale),
            pose_from=rows[index].where,
            intrinsics_from="cam_params.json",
        )

    return capture_scene(path, "replica", [file.name for file in colour], build, conventions, policy)


def _matrix(row: TextRow) -> np.ndarray:
    try:
        return row.numbers(16).reshape(4, 4)
    except SceneError as error:
        raise FrameError(str(error)) from error


def _camera(path: Path, colour: list[Path]) -> tuple[Intrinsics, float]:
    file = next((each for each in (path / "cam_params.json", path.parent / "cam_params.json") if each.is_file()), None)
    if file is None:
        size = common_size(path, [f"results/{each.name}" for each in colour], [str(path)] * len(colour))
        if size != (PUBLISHED.width, PUBLISHED.height):
            raise SceneError(
                f"{path}: no cam_params.json here or above, and the images are {size[0]}x{size[1]}; the published "
                "camera "
                f"holds for {PUBLISHED.width}x{PUBLISHED.height}; write that file: {_CAMERA}"
            )
        return PUBLISHED, 6553.5
    content = read_json(file, "camera", expected=_CAMERA).get("camera")
    try:
        values = {key: float(content[key]) for key in ("w", "h", "fx", "fy", "cx", "cy")}  # type: ignore[index]
        scale = float(content.get("scale", 6553.5))  # type: ignore[union-attr]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise SceneError(f"{file}: {error!r}; expected {_CAMERA}; restore the file") from error
    return Intrinsics(
        fx=values["fx"],
        fy=values["fy"],
        cx=values["cx"] + 0.5,
        cy=values["cy"] + 0.5,
        width=round(values["w"]),
        height=round(values["h"]),
    ), scale
