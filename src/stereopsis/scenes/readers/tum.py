"""Reader of recordings in the layout of the TUM RGB-D benchmark, which many SLAM systems also read and write.

``rgb.txt`` and ``depth.txt`` list images by time; depth is 16-bit PNG with 5000 units per metre, registered to colour
pixel by pixel. A trajectory (``groundtruth.txt``, or what a SLAM system wrote in the same form) gives the colour
camera's pose, camera to world, OpenCV axes, metres: ``timestamp tx ty tz qx qy qz qw``. The layout (file formats page
of the benchmark; Sturm et al., IROS 2012) has no file for intrinsics: they come from ``camera.txt``, or are the
published ones of the benchmark's own cameras.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_intrinsics, check_policy, collect
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import DEPTH_MODES, read_any_header
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, read_rows
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import common_size, frame_names, given_name, listed_file
from stereopsis.scenes.readers.trajectories import (
    Moment,
    Trajectory,
    associate,
    check_increasing,
    moment_at,
    pose_at,
    pose_from_quaternion,
    read_trajectory,
)
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = (
    "rgb.txt and depth.txt (timestamp and file name per line) or associations.txt (both in one line), groundtruth.txt "
    "or another trajectory (timestamp tx ty "
    "tz qx qy qz qw), camera.txt (fx fy cx cy) unless the folder's name holds freiburg1, freiburg2 or freiburg3"
)
TRAJECTORIES = ("groundtruth.txt", "trajectory.txt", "CameraTrajectory.txt", "KeyFrameTrajectory.txt")
ASSOCIATIONS = ("associations.txt", "association.txt", "associated.txt", "associate.txt")
CONVENTIONS = Conventions(quaternion="xyzw", depth_scale=5000.0)
MAX_DEPTH_DELAY = 0.02
"""Seconds between a colour image and its depth image, as in the benchmark's own association script."""
MAX_POSE_GAP = 0.1
"""Seconds between two samples of the trajectory between which poses are interpolated."""
SAME_TIME = 1e-3
"""Seconds within which a sample's time counts as the image's own."""
_POSE_LINE = "timestamp tx ty tz qx qy qz qw (seconds, metres, unit quaternion)"
_PAIR_LINE = "timestamp, file, timestamp, file: of colour and depth, or of depth and colour"
_CAMERA_LINE = "fx fy cx cy in pixels (OpenCV's convention: whole numbers are pixel centres)"

# Focal lengths and principal points of the colour cameras as the benchmark publishes them, for 640x480 images.
_CAMERAS = {
    "freiburg1": (517.306408, 516.469215, 318.643040, 255.313989),
    "freiburg2": (520.908620, 521.007327, 325.141442, 249.701764),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
    # ICL-NUIM (Handa et al., ICRA 2014): rendered with y up, hence the negative focal length.
    "living_room_traj": (481.20, -480.00, 319.50, 239.50),
    "office_room_traj": (481.20, -480.00, 319.50, 239.50),
}
_UPRIGHT = np.diag([1.0, -1.0, 1.0, 1.0])
_DISTORTED = ("freiburg1", "freiburg2")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _TimedImages:
    times: Float[np.ndarray, "n"]
    names: list[str]
    where: list[str]

    def rows(self) -> Int[np.ndarray, "n"]:
        """Each image's own place, for lists that are paired already."""
        return np.arange(len(self.times))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Match:
    colour: int
    depth: int
    moment: Moment


def is_tum(path: Path) -> bool:
    """Whether a folder holds the two image lists of this layout."""
    return _has_lists(path) or (_associations(path) is not None and bool(_trajectories(path)))


def read_tum(
    path: Path,
    *,
    trajectory: str | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a recording in the TUM RGB-D layout; images are read when asked for, their headers and the lists now.

    Colour and depth are paired one to one, closest first, within 20 ms. A frame's pose is the trajectory's at the
    time of its colour image: a sample within 1 ms as it is, otherwise interpolated between the samples before and
    after, provided that these are at most 0.1 s apart. Images without partner or pose are usual in this layout (the
    sensors tick on their own; motion capture loses sight): they are left out, and ``provenance["unmatched"]`` counts
    them.

    Args:
        path: the recording's folder.
        trajectory: the trajectory's file name; None takes the first that exists of `TRAJECTORIES`.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: an image or a pose that a frame needs is unusable, and the policy is "raise".
        SceneError: a list or the intrinsics are absent or unusable, nothing matches, or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    conventions = CONVENTIONS.with_options(options, str(path))
    build_pose = functools.partial(_pose, conventions=conventions)
    associations = None if _has_lists(path) else _associations(path)
    if associations is None:
        colour, depth = _read_list(path / "rgb.txt"), _read_list(path / "depth.txt")
    else:
        colour, depth = _read_associations(path, associations)
    poses = read_trajectory(_trajectory_file(path, trajectory), 7, build_pose, expected=_POSE_LINE)
    partners = associate(colour.times, depth.times, MAX_DEPTH_DELAY) if associations is None else depth.rows()
    moments = [moment_at(poses, time, tolerance=SAME_TIME, max_gap=MAX_POSE_GAP) for time in colour.times]
    matches = [
        _Match(colour=index, depth=int(partner), moment=moment)
        for index, (partner, moment) in enumerate(zip(partners, moments, strict=True))
        if partner >= 0 and moment is not None
    ]
    if not matches:
        raise SceneError(_no_match(path, colour, depth, poses))
    names = frame_names([colour.names[match.colour] for match in matches])
    camera = _camera_of(path)
    intrinsics, mirror = _intrinsics(path, camera, colour, matches)

    def build(index: int) -> Frame:
        match = matches[index]
        where = colour.where[match.colour]
        return capture_frame(
            names[index],
            mirror @ conventions.camera_to_world(pose_at(poses, match.moment)) @ mirror,
            intrinsics,
            listed_file(path, colour.names[match.colour], where),
            depth_file(listed_file(path, depth.names[match.depth], depth.where[match.depth]), conventions.depth_scale),
            pose_from=f"{poses.file}, at {colour.times[match.colour]:.6f}",
            intrinsics_from=str(path / "camera.txt") if camera is None else f"the camera of {camera}",
        )

    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    provenance = {
        "format": "tum",
        "path": str(path),
        "trajectory": poses.file.name,
        "skipped": dict(collected.skipped),
        **conventions.record(),
        "unmatched": {
            "colour without depth": int((partners < 0).sum()),
            "colour without pose": sum(moment is None for moment in moments),
        },
    }
    if camera in _DISTORTED:
        provenance["distortion"] = (
            f"not removed: the images of {camera} are distorted, by a few per cent of the width in the corners"
        )
    return Scene(id=given_name(path), frames=collected.items, provenance=provenance)


def _read_list(file: Path) -> _TimedImages:
    rows = read_rows(file, "image list", expected="timestamp and file name")
    times, names = [], []
    for row in rows:
        words = row.text.split(maxsplit=1)
        if len(words) != 2:
            raise row.error(f"found '{row.text}'")
        try:
            times.append(float(words[0]))
        except ValueError as error:
            raise row.error(str(error)) from error
        names.append(words[1])
    where = [row.where for row in rows]
    check_increasing(np.array(times), where)
    return _TimedImages(times=np.array(times), names=names, where=where)


def _pose(values: np.ndarray, conventions: Conventions) -> np.ndarray:
    return pose_from_quaternion(conventions.xyzw(values[3:]), values[:3])


def _trajectory_file(path: Path, name: str | None) -> Path:
    if name is not None:
        return path / name
    if found := _trajectories(path):
        return found[0]
    raise SceneError(
        f"{path}: found no trajectory; expected one of {', '.join(TRAJECTORIES)} with lines {_POSE_LINE}; add what "
        "your SLAM system wrote under one of these names, or name it with read_tum(path, trajectory=...)"
    )


def _trajectories(path: Path) -> list[Path]:
    """By preference; ICL-NUIM names its own livingRoom2.gt.freiburg."""
    named = [path / name for name in TRAJECTORIES if (path / name).is_file()]
    return named + sorted(path.glob("*.gt.freiburg"))


def _has_lists(path: Path) -> bool:
    return (path / "rgb.txt").is_file() and (path / "depth.txt").is_file()


def _associations(path: Path) -> Path | None:
    return next((path / name for name in ASSOCIATIONS if (path / name).is_file()), None)


def _read_associations(path: Path, file: Path) -> tuple[_TimedImages, _TimedImages]:
    """Colour and depth, paired line by line; either may come first, as its images tell."""
    rows = read_rows(file, "list of pairs", expected=_PAIR_LINE)
    table = [row.text.split() for row in rows]
    for row, words in zip(rows, table, strict=True):
        if len(words) != 4:
            raise row.error(f"found {len(words)} words")
    first = read_any_header(listed_file(path, table[0][1], rows[0].where)).mode in DEPTH_MODES
    lists = []
    for column in (2, 0) if first else (0, 2):
        try:
            times = np.array([float(words[column]) for words in table])
        except ValueError as error:
            raise rows[0].error(str(error)) from error
        where = [row.where for row in rows]
        check_increasing(times, where)
        lists.append(_TimedImages(times=times, names=[words[column + 1] for words in table], where=where))
    return lists[0], lists[1]


def _camera_of(path: Path) -> str | None:
    """Which of the benchmark's cameras the folder is named after; None where camera.txt says it."""
    if (path / "camera.txt").exists():
        return None
    names = given_name(path), path.resolve().name
    return next((camera for camera in _CAMERAS for name in names if camera in name), None)


def _intrinsics(
    path: Path, camera: str | None, colour: _TimedImages, matches: list[_Match]
) -> tuple[Intrinsics, Float[np.ndarray, "4 4"]]:
    """The camera, and what turns its poses round: a negative fy means that y points up in camera and world alike."""
    file = path / "camera.txt"
    if camera is not None:
        values, size = np.array(_CAMERAS[camera]), (640, 480)
    elif file.exists():
        rows = read_rows(file, "camera", expected=_CAMERA_LINE)
        used = [match.colour for match in matches]
        size = common_size(path, [colour.names[index] for index in used], [colour.where[index] for index in used])
        values = rows[0].numbers(4)
    else:
        raise SceneError(
            f"{file}: does not exist, and the folder's name '{path.resolve().name}' holds none of "
            f"{', '.join(_CAMERAS)}; this layout has no intrinsics of its own: write the colour camera's into that "
            f"file, one line: {_CAMERA_LINE}"
        )
    fx, fy, cx, cy = (float(value) for value in values)
    # Published for OpenCV, where pixel centres are whole numbers; here they lie at +0.5.
    intrinsics = Intrinsics(fx=fx, fy=abs(fy), cx=cx + 0.5, cy=cy + 0.5, width=size[0], height=size[1])
    check_intrinsics(intrinsics, str(file))
    return intrinsics, _UPRIGHT if fy < 0 else np.eye(4)


def _no_match(path: Path, colour: _TimedImages, depth: _TimedImages, poses: Trajectory) -> str:
    spans = "; ".join(
        f"{what} runs from {times[0]:.3f} to {times[-1]:.3f}"
        for what, times in (("colour", colour.times), ("depth", depth.times), ("the trajectory", poses.times))
    )
    return (
        f"{path}: none of {len(colour.times)} colour images has both a depth image within {MAX_DEPTH_DELAY * 1000:g} "
        f"ms and a pose (samples at most {MAX_POSE_GAP:g} s apart); {spans}; use timestamps of one clock, in seconds, "
        "in all three files"
    )
