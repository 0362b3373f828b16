"""Poses as captures store them: quaternions, axis-angle vectors, OpenGL cameras, and lists of timed poses.

Rotations are SciPy's; a pose here is always a [4, 4] float64 matrix. A trajectory is a text file with one timed
pose per line; cameras and depth sensors tick on their own, so images find their pose, and colour finds its depth,
by time.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation, Slerp

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes.readers.capture_files import read_rows

UNIT_TOLERANCE = 1e-2
_OPENGL_AXES = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Timed poses.

    Attributes:
        file: where they were read, for messages.
        times: [n] seconds, strictly increasing.
        poses: [n, 4, 4], as the file means them (camera to world or the inverse); the identity where faulty.
        faults: {sample: what is wrong with it}.
    """

    file: Path
    times: Float[np.ndarray, "n"]
    poses: Float[np.ndarray, "n 4 4"]
    faults: Mapping[int, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """A time between two samples of a trajectory (or at one: then both are the same).

    Attributes:
        before: sample.
        after: sample.
        weight: 0..1, the share of `after`.
    """

    before: int
    after: int
    weight: float


def pose_from_quaternion(quaternion: Float[np.ndarray, "4"], translation: Float[np.ndarray, "3"]) -> np.ndarray:
    """The [4, 4] pose of a quaternion in the order x y z w and a translation.

    Files round quaternions, so a length within 1 % of 1 is taken and normalised.

    Raises:
        ValueError: not finite, or not of unit length (other columns, or another order, than expected).
    """
    if not (np.isfinite(quaternion).all() and np.isfinite(translation).all()):
        raise ValueError("the quaternion or the translation holds NaN or inf")
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1.0) > UNIT_TOLERANCE:
        raise ValueError(f"the quaternion has length {length:.4g}, expected 1")
    return _pose(Rotation.from_quat(quaternion), translation)


def pose_from_axis_angle(axis_angle: Float[np.ndarray, "3"], translation: Float[np.ndarray, "3"]) -> np.ndarray:
    """The [4, 4] pose of an axis-angle vector (its direction the axis, its length the angle in radians).

    Raises:
        ValueError: not finite.
    """
    if not (np.isfinite(axis_angle).all() and np.isfinite(translation).all()):
        raise ValueError("the rotation or the translation holds NaN or inf")
    return _pose(Rotation.from_rotvec(axis_angle), translation)


def opencv_from_opengl(T_world_camera: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """The pose of the same camera with OpenCV's axes (y down, z forward) instead of OpenGL's (y up, z backward)."""
    return T_world_camera @ _OPENGL_AXES


def read_trajectory(
    path: Path, numbers: int, build: Callable[[np.ndarray], np.ndarray], *, expected: str
) -> Trajectory:
    """Read a text file with one line per pose: a timestamp in seconds, then numbers; "#" starts a comment.

    Args:
        path: the file.
        numbers: how many follow the timestamp.
        build: makes the [4, 4] pose of them; a ValueError marks the sample as faulty, which matters only to the
            frames that need it.
        expected: the line's layout, for messages.

    Raises:
        SceneError: the file is absent, unreadable, empty, not in this layout, or its times do not increase.
    """
    rows = read_rows(path, "trajectory", expected=expected)
    times, poses, faults = [], [], {}
    for sample, row in enumerate(rows):
        values = row.numbers(numbers + 1)
        times.append(values[0])
        try:
            poses.append(build(values[1:]))
        except ValueError as error:
            poses.append(np.eye(4))
            faults[sample] = f"{row.where}: unusable pose: {error}; expected {expected}"
    check_increasing(np.array(times), [row.where for row in rows])
    return Trajectory(file=path, times=np.array(times), poses=np.array(poses), faults=faults)


def check_increasing(times: Float[np.ndarray, "n"], where: list[str]) -> None:
    """Refuse timestamps that are not finite, repeat, or go back.

    Args:
        times: [n] seconds.
        where: the file and line of each, for the message.

    Raises:
        SceneError: they do.
    """
    for index, time in enumerate(times):
        if not np.isfinite(time):
            raise SceneError(f"{where[index]}: the timestamp is {time}, expected seconds; correct or remove the line")
        if index and time <= times[index - 1]:
            raise SceneError(
                f"{where[index]}: timestamp {time:.6f} does not come after {times[index - 1]:.6f} of the line before; "
                "expected strictly increasing times; if two recordings were mixed, separate them, otherwise sort the "
                "file and remove repeated lines (sort -n -u)"
            )


def associate(first: Float[np.ndarray, "n"], second: Float[np.ndarray, "m"], tolerance: float) -> Int[np.ndarray, "n"]:
    """One-to-one partners by time: the closest pairs are made first, as TUM's own script does it.

    Args:
        first: [n] seconds, increasing.
        second: [m] seconds, increasing.
        tolerance: the largest difference, seconds.

    Returns:
        For each of `first` its partner in `second`, or -1.
    """
    low = np.searchsorted(second, first - tolerance, side="left")
    high = np.searchsorted(second, first + tolerance, side="right")
    pairs = [(abs(first[i] - second[j]), i, j) for i in range(len(first)) for j in range(low[i], high[i])]
    partners = np.full(len(first), -1, dtype=np.int64)
    taken: set[int] = set()
    for _, i, j in sorted(pairs):
        if partners[i] < 0 and j not in taken:
            partners[i] = j
            taken.add(j)
    return partners


def nearest(times: Float[np.ndarray, "n"], time: float, tolerance: float) -> int | None:
    """The index of the time nearest to `time`, or None where none lies within the tolerance (seconds)."""
    if not len(times):
        return None
    right = int(np.searchsorted(times, time))
    index = min((i for i in (right - 1, right) if 0 <= i < len(times)), key=lambda i: abs(times[i] - time))
    return index if abs(times[index] - time) <= tolerance else None


def moment_at(trajectory: Trajectory, time: float, *, tolerance: float, max_gap: float) -> Moment | None:
    """Where a time falls in a trajectory.

    Args:
        trajectory: timed poses.
        time: seconds.
        tolerance: a sample this near (seconds) is taken as it is.
        max_gap: samples at most this far apart (seconds) are interpolated; 0: none are.

    Returns:
        None where the trajectory does not cover the time.
    """
    at = nearest(trajectory.times, time, tolerance)
    if at is not None:
        return Moment(before=at, after=at, weight=0.0)
    after = int(np.searchsorted(trajectory.times, time))
    if not 0 < after < len(trajectory.times):
        return None
    gap = trajectory.times[after] - trajectory.times[after - 1]
    if gap > max_gap:
        return None
    return Moment(before=after - 1, after=after, weight=float((time - trajectory.times[after - 1]) / gap))


def pose_at(trajectory: Trajectory, moment: Moment) -> Float[np.ndarray, "4 4"]:
    """The pose at a moment: positions interpolated along the line, rotations along the shortest turn.

    Raises:
        FrameError: a sample that is needed is faulty.
    """
    for sample in (moment.before, moment.after):
        if sample in trajectory.faults:
            raise FrameError(
                f"{trajectory.faults[sample]}; correct or remove the line, or leave the frames that need it out with "
                "on_bad_frame='skip'"
            )
    ends = trajectory.poses[[moment.before, moment.after]]
    if moment.before == moment.after:
        return ends[0].copy()
    rotation = Slerp([0.0, 1.0], Rotation.from_matrix(ends[:, :3, :3]))(moment.weight)
    return _pose(rotation, (1 - moment.weight) * ends[0, :3, 3] + moment.weight * ends[1, :3, 3])


def _pose(rotation: Rotation, translation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation.as_matrix()
    pose[:3, 3] = translation
    return pose
