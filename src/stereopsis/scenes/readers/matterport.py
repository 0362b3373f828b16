"""Reader of a house of Matterport3D: its undistorted images, as the data set describes them (Chang et al., 3DV 2017).

``undistorted_camera_parameters/HOUSE.conf`` lists intrinsics and, per image, the names of depth and colour and a
camera-to-world matrix, metres, for a camera that looks along -z with y up; image coordinates begin at the bottom left.
Depth is z-depth with 4000 units per metre. The houses' worlds are z up.
"""

import dataclasses
from pathlib import Path

import numpy as np

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import read_header
from stereopsis.scenes.readers.capture_files import TextRow, capture_frame, check_folder, read_rows
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import listed_file
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "undistorted_camera_parameters/HOUSE.conf, undistorted_color_images/ and undistorted_depth_images/ (4000 units per "
    "metre)"
)
CONVENTIONS = Conventions(axes="opengl", depth_scale=4000.0)
_LINE = "intrinsics_matrix (9 numbers), or scan DEPTH COLOUR and a 4x4 matrix camera to world"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scan:
    row: TextRow
    depth: str
    colour: str
    matrix: str
    intrinsics: tuple[float, ...]


def is_matterport(path: Path) -> bool:
    """Whether a folder is a house with undistorted images."""
    return _conf(path) is not None and (path / "undistorted_color_images").is_dir()


def read_matterport(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open a house; each of its images is a frame, named after its colour file.

    Args:
        path: the house's folder.
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
    conf = _conf(path)
    if conf is None:
        raise SceneError(f"{path}: found no undistorted_camera_parameters/*.conf; expected {EXPECTED_FILES}; check it")
    conventions = CONVENTIONS.with_options(options, str(path))
    scans = _scans(conf)

    def build(index: int, name: str) -> Frame:
        scan = scans[index]
        colour = listed_file(path / "undistorted_color_images", scan.colour, scan.row.where)
        header = read_header(colour)
        fx, _, cx, _, fy, cy = scan.intrinsics[:6]
        camera = Intrinsics(
            fx=fx, fy=fy, cx=cx, cy=header.height - cy, width=header.width, height=header.height
        )  # the file counts rows from the bottom
        try:
            stored = dataclasses.replace(scan.row, text=scan.matrix).numbers(16).reshape(4, 4)
        except SceneError as error:
            raise FrameError(str(error)) from error
        return capture_frame(
            name,
            conventions.camera_to_world(stored),
            camera,
            colour,
            depth_file(
                listed_file(path / "undistorted_depth_images", scan.depth, scan.row.where), conventions.depth_scale
            ),
            pose_from=scan.row.where,
            intrinsics_from=str(conf),
        )

    return capture_scene(path, "matterport3d", [scan.colour for scan in scans], build, conventions, policy)


def _conf(path: Path) -> Path | None:
    return next(iter(sorted(path.glob("undistorted_camera_parameters/*.conf"))), None)


def _scans(conf: Path) -> list[_Scan]:
    scans, intrinsics = [], None
    for row in read_rows(conf, "camera parameters", expected=_LINE):
        words = row.text.split()
        if words[0] == "intrinsics_matrix":
            values = dataclasses.replace(row, text=" ".join(words[1:])).numbers(9)
            if not np.isfinite(values).all():
                raise row.error("found NaN or inf")
            intrinsics = tuple(values.tolist())
        elif words[0] == "scan":
            if intrinsics is None or len(words) < 4:
                raise row.error("found an image without intrinsics before it" if intrinsics is None else "a short line")
            scans.append(
                _Scan(row=row, depth=words[1], colour=words[2], matrix=" ".join(words[3:]), intrinsics=intrinsics)
            )
    if not scans:
        raise SceneError(f"{conf}: lists no images; expected lines with {_LINE}; restore the file")
    return scans
