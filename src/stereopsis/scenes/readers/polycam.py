"""Reader of Polycam's raw data (LiDAR and room mode, "export raw data").

``keyframes/`` holds ``corrected_cameras/`` with ``corrected_images/`` (where the app has optimised the poses), else
``cameras/`` with ``images/``; and ``depth/``, 16-bit millimetres, smaller than colour. All files of a frame are named
after its time. A camera's JSON has ``fx fy cx cy width height`` and ``t_00`` to ``t_23``, the rows of a camera-to-world
matrix, metres, ARKit's axes (y up, z backward), the world's y up (the format of Polycam's own polyform converter).
"""

from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, read_json
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import images_in
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "keyframes/ with corrected_cameras/ and corrected_images/ (or cameras/ and images/), and depth/ (16-bit "
    "millimetres)"
)
CONVENTIONS = Conventions(axes="opengl")
_KINDS = (("corrected_cameras", "corrected_images"), ("cameras", "images"))
_CAMERA = "fx, fy, cx, cy, width, height and t_00 to t_23"


def is_polycam(path: Path) -> bool:
    """Whether a folder is a raw export of Polycam, or the keyframes of one."""
    return _kind(path) is not None


def read_polycam(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open a raw export of Polycam; frames without depth are counted in ``provenance["without_depth"]``.

    Args:
        path: the export's folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: files are absent, or too many frames are bad.
    """
    path = Path(path)
    policy = Policy(on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    check_folder(path, EXPECTED_FILES)
    found = _kind(path)
    if found is None:
        raise SceneError(f"{path}: is no raw export of Polycam; expected {EXPECTED_FILES}; export the raw data")
    cameras, images = found
    conventions = CONVENTIONS.with_options(options, str(path))
    colour = images_in(images, COLOUR_SUFFIXES)
    depths = {file.stem: file for file in images_in(images.parent / "depth", DEPTH_SUFFIXES)}
    if not colour:
        raise SceneError(f"{images}: holds no images; expected {EXPECTED_FILES}; export the raw data again")

    def build(index: int, name: str) -> Frame:
        file = cameras / f"{colour[index].stem}.json"
        camera, stored = _camera(file)
        partner = depths.get(colour[index].stem)
        return capture_frame(
            name,
            conventions.camera_to_world(stored),
            camera,
            colour[index],
            None if partner is None else depth_file(partner, conventions.depth_scale),
            pose_from=str(file),
            intrinsics_from=str(file),
        )

    without = sum(file.stem not in depths for file in colour)
    facts: dict[str, Any] = {"without_depth": without} if without else {}
    names = [file.name for file in colour]
    return capture_scene(path, "polycam", names, build, conventions, policy, poses=cameras.name, **facts)


def _kind(path: Path) -> tuple[Path, Path] | None:
    """The folders of cameras and of images."""
    for folder in (path / "keyframes", path):
        for cameras, images in _KINDS:
            if (folder / cameras).is_dir() and (folder / images).is_dir() and any((folder / cameras).glob("*.json")):
                return folder / cameras, folder / images
    return None


def _camera(file: Path) -> tuple[Intrinsics, np.ndarray]:
    try:
        content = read_json(file, "camera", expected=_CAMERA)
        stored = np.eye(4)
        stored[:3] = [[float(content[f"t_{row}{column}"]) for column in range(4)] for row in range(3)]
        fx, fy, cx, cy = (float(content[key]) for key in ("fx", "fy", "cx", "cy"))
        size = round(float(content["width"])), round(float(content["height"]))
    except (KeyError, TypeError, ValueError, OverflowError, SceneError) as error:
        raise FrameError(
            f"{file}: {error}; expected {_CAMERA}; export the raw data again, or leave the frame out with "
            "on_bad_frame='skip'"
        ) from error
    return Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy, width=size[0], height=size[1]), stored
