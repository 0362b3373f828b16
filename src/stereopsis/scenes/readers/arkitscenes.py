"""Reader of ARKitScenes recordings, as Apple's download script leaves them (raw and 3dod alike).

A recording's folder VIDEO (or ``VIDEO_frames`` inside it) holds ``lowres_wide/`` (colour), ``lowres_depth/`` (16-bit
millimetres), ``lowres_wide_intrinsics/`` (.pincam files: width height fx fy cx cy), all named ``VIDEO_TIMESTAMP``,
and ``lowres_wide.traj`` (timestamp, axis-angle rx ry rz, tx ty tz: world to camera, metres, OpenCV axes; ten lines a
second). Beside it may lie ``VIDEO_3dod_annotation.json`` with oriented boxes in the same world, which is z up
(DATA.md and threedod/README.md of apple/ARKitScenes; Baruch et al., NeurIPS 2021 Datasets).
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.boxes import box_from_points
from stereopsis.geometry.camera import ORTHONORMAL_TOLERANCE, Intrinsics, transform
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy, collect
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, read_json, read_rows
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import frame_names, given_name
from stereopsis.scenes.readers.trajectories import moment_at, nearest, pose_at, pose_from_axis_angle, read_trajectory
from stereopsis.scenes.scene import Frame, Scene, SceneObject

EXPECTED_FILES = (
    "lowres_wide/ (VIDEO_TIMESTAMP.png), lowres_depth/ (16-bit millimetres), lowres_wide_intrinsics/ (.pincam), "
    "lowres_wide.traj; optionally VIDEO_3dod_annotation.json"
)
SAME_TIME = 5e-3
"""Seconds within which files and poses belong together, as in the data set's own loader."""
_POSE_LINE = "timestamp rx ry rz tx ty tz (seconds, radians, metres; world to camera)"
_PINCAM_LINE = "width height fx fy cx cy"
_BOXES = (
    '"data": a list of objects with "label" and "segments": {"obbAligned": {centroid, axesLengths, normalizedAxes}}'
)
_SIGNS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _TimedFiles:
    times: Float[np.ndarray, "n"]
    files: list[Path]

    def at(self, time: float) -> Path | None:
        index = nearest(self.times, time, SAME_TIME)
        return None if index is None else self.files[index]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _OrientedBox:
    uid: str
    label: str
    centre: Float[np.ndarray, "3"]
    sides: Float[np.ndarray, "3"]
    axes: Float[np.ndarray, "3 3"]  # rows

    def corners(self) -> np.ndarray:
        return self.centre + (_SIGNS * self.sides) @ self.axes


def is_arkitscenes(path: Path) -> bool:
    """Whether a folder, or its VIDEO_frames folder, is a recording of this layout."""
    return any((folder / "lowres_wide.traj").is_file() for folder in _folders(path))


def read_arkitscenes(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Scene:
    """Open a recording of ARKitScenes; images are read when asked for, their headers and the poses now.

    Every colour image takes the depth image, intrinsics and pose of its own time, within 5 ms. The recordings have 60
    images a second and ten poses: images between two poses, or without depth, are left out and counted in
    ``provenance["unmatched"]``; what is left has a measured, not an interpolated, pose.

    Boxes, where they are annotated, become objects with axis-aligned boxes. The world is z up, but its yaw and its
    height are the phone's at the start: so that boxes fit tightly, the aligned frame is turned to the boxes' own yaw
    (their mean, modulo 90 degrees, weighted by floor area), and its zero height is the lowest box's bottom. The
    oriented box is kept under ``attributes["oriented_box"]`` (aligned frame; axes as rows). Without annotation
    nothing is aligned here.

    Args:
        path: the recording's folder.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame's pose, intrinsics or image header is unusable, and the policy is "raise".
        SceneError: files are absent or unusable, nothing matches, or too many frames are bad.
    """
    path = Path(path)
    check_policy(on_bad_frame)
    check_folder(path, EXPECTED_FILES)
    conventions = Conventions(pose="world-to-camera").with_options(options, str(path))
    folder = next((each for each in _folders(path) if (each / "lowres_wide").is_dir()), path)
    trajectory = read_trajectory(folder / "lowres_wide.traj", 6, _pose, expected=_POSE_LINE)
    colour = _timed_files(folder / "lowres_wide", COLOUR_SUFFIXES)
    depth = _timed_files(folder / "lowres_depth", DEPTH_SUFFIXES)
    cameras = _timed_files(folder / "lowres_wide_intrinsics", (".pincam",))
    depths = [depth.at(time) for time in colour.times]
    moments = [moment_at(trajectory, time, tolerance=SAME_TIME, max_gap=0.0) for time in colour.times]
    usable = [
        (index, found, moment)
        for index, (found, moment) in enumerate(zip(depths, moments, strict=True))
        if found is not None and moment is not None
    ]
    if not usable:
        raise SceneError(
            f"{folder}: none of {len(colour.files)} colour images ({colour.times[0]:.3f} to {colour.times[-1]:.3f} s) "
            f"has both a depth image and a pose within {SAME_TIME * 1000:g} ms; the trajectory runs from "
            f"{trajectory.times[0]:.3f} to {trajectory.times[-1]:.3f} s; download the recording again"
        )
    names = frame_names([colour.files[index].name for index, _, _ in usable])

    def build(number: int) -> Frame:
        index, depth_image, moment = usable[number]
        time = float(colour.times[index])
        camera_file = cameras.at(time)
        if camera_file is None:
            raise FrameError(
                f"{folder / 'lowres_wide_intrinsics'}: holds no .pincam file within {SAME_TIME * 1000:g} ms of "
                f"{colour.files[index].name}; restore it, or leave the frame out with on_bad_frame='skip'"
            )
        return capture_frame(
            names[number],
            conventions.camera_to_world(pose_at(trajectory, moment)),
            _read_pincam(camera_file),
            colour.files[index],
            depth_file(depth_image, conventions.depth_scale),
            pose_from=f"{trajectory.file}, at {time:.3f}",
            intrinsics_from=str(camera_file),
        )

    collected = collect(str(path), names, build, on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    provenance: dict[str, Any] = {
        "format": "arkitscenes",
        "path": str(path),
        "skipped": dict(collected.skipped),
        **conventions.record(),
        "unmatched": {
            "colour without depth": sum(found is None for found in depths),
            "colour without pose": sum(moment is None for moment in moments),
            "depth without colour": sum(nearest(colour.times, time, SAME_TIME) is None for time in depth.times),
        },
    }
    scene = Scene(id=given_name(path), frames=collected.items, provenance=provenance)
    annotation = _annotation_file(path, folder)
    return scene if annotation is None else _with_boxes(scene, _read_boxes(annotation))


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [path, *sorted(path.glob("*_frames"))]


def _timed_files(folder: Path, suffixes: tuple[str, ...]) -> _TimedFiles:
    if not folder.is_dir():
        raise SceneError(f"{folder}: no such folder; expected {EXPECTED_FILES}; download the recording again")
    found: list[tuple[float, Path]] = []
    for file in (entry for entry in folder.iterdir() if entry.suffix.lower() in suffixes):
        try:
            found.append((float(file.stem.rsplit("_", 1)[-1]), file))
        except ValueError as error:
            raise SceneError(
                f"{file}: expected a name like VIDEO_TIMESTAMP{file.suffix}; rename or remove the file"
            ) from error
    if not found:
        raise SceneError(
            f"{folder}: holds no *{suffixes[0]} files; expected {EXPECTED_FILES}; download the recording again"
        )
    found.sort()
    return _TimedFiles(times=np.array([time for time, _ in found]), files=[file for _, file in found])


def _pose(values: np.ndarray) -> np.ndarray:
    return pose_from_axis_angle(values[:3], values[3:])


def _read_pincam(file: Path) -> Intrinsics:
    rows = read_rows(file, "intrinsics", expected=_PINCAM_LINE, error=FrameError)
    try:
        width, height, fx, fy, cx, cy = (float(value) for value in rows[0].numbers(6))
        return Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy, width=round(width), height=round(height))
    except (SceneError, ValueError, OverflowError) as error:
        raise FrameError(f"{error}; {file.name} is unusable; leave the frame out with on_bad_frame='skip'") from error


def _annotation_file(path: Path, folder: Path) -> Path | None:
    """The annotation beside the frames: in the recording's folder, or one above where VIDEO_frames was opened."""
    candidates = [path, folder] + ([path.parent] if path.name.endswith("_frames") else [])
    for candidate in candidates:
        found = sorted(candidate.glob("*_3dod_annotation.json"))
        if len(found) > 1:
            raise SceneError(
                f"{candidate}: holds {len(found)} annotation files, expected one; keep the one of this recording"
            )
        if found:
            return found[0]
    return None


def _read_boxes(file: Path) -> list[_OrientedBox]:
    content = read_json(file, "annotation", expected=_BOXES)
    items = content.get("data")
    if not isinstance(items, list):
        raise SceneError(f"{file}: found no list under 'data'; expected {_BOXES}; download the annotation again")
    boxes = []
    for number, item in enumerate(items):
        try:
            shape = item["segments"]["obbAligned"]
            box = _OrientedBox(
                uid=str(item.get("uid", number)),
                label=str(item["label"]).replace("_", " "),
                centre=np.array(shape["centroid"], dtype=np.float64).reshape(3),
                sides=np.array(shape["axesLengths"], dtype=np.float64).reshape(3),
                axes=np.array(shape["normalizedAxes"], dtype=np.float64).reshape(3, 3),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SceneError(
                f"{file}: box {number} is unreadable ({error!r}); expected {_BOXES}; restore the file"
            ) from error
        _check_box(box, f"{file}: box {number} ({box.label})")
        boxes.append(box)
    return boxes


def _check_box(box: _OrientedBox, where: str) -> None:
    values = np.concatenate([box.centre, box.sides, box.axes.ravel()])
    square = np.isfinite(values).all() and np.abs(box.axes @ box.axes.T - np.eye(3)).max() <= ORTHONORMAL_TOLERANCE
    if not square or (box.sides < 0).any():
        raise SceneError(
            f"{where}: holds NaN or inf, negative sides, or axes that are not orthonormal; expected {_BOXES}; restore "
            "the file"
        )


def _with_boxes(scene: Scene, boxes: list[_OrientedBox]) -> Scene:
    if not boxes:
        return scene
    T_aligned_world = _aligned(boxes)
    objects = tuple(_object(number, box, T_aligned_world) for number, box in enumerate(boxes))
    alignment = {"method": "given", "up": "the data set's", "yaw": "of the boxes", "height": "bottom of the lowest box"}
    return scene.replace(
        T_aligned_world=T_aligned_world, objects=objects, provenance={**scene.provenance, "alignment": alignment}
    )


def _aligned(boxes: list[_OrientedBox]) -> Float[np.ndarray, "4 4"]:
    """Turned about z so that most box walls stand along x and y; the lowest corner at height 0."""
    votes = 0j
    for box in boxes:
        upright = int(np.abs(box.axes[:, 2]).argmax())
        across = (upright + 1) % 3
        # Four times the angle: walls a quarter turn apart vote for the same yaw.
        yaw = math.atan2(box.axes[across, 1], box.axes[across, 0])
        votes += float(np.delete(box.sides, upright).prod()) * np.exp(4j * yaw)
    yaw = float(np.angle(votes)) / 4
    T = np.eye(4)
    T[:2, :2] = [[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]]
    T[2, 3] = -min(float(box.corners()[:, 2].min()) for box in boxes)
    return T


def _object(number: int, box: _OrientedBox, T_aligned_world: np.ndarray) -> SceneObject:
    oriented = {
        "centre": transform(T_aligned_world, box.centre).tolist(),
        "sides": box.sides.tolist(),
        "axes": (box.axes @ T_aligned_world[:3, :3].T).tolist(),
    }
    return SceneObject(
        id=number,
        label=box.label,
        box=box_from_points(transform(T_aligned_world, box.corners())),
        attributes={"uid": box.uid, "oriented_box": oriented},
    )
