"""The camera's poses in a rosbag: a chain of tf transforms, or one topic of poses and static transforms behind it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes.readers.rosbag_messages import pose_of, seconds
from stereopsis.scenes.readers.trajectories import Trajectory, moment_at, pose_at

MAX_POSE_GAP = 0.2
"""Seconds between two samples between which poses are interpolated."""
SAME_TIME = 1e-3
"""Seconds within which a sample's time counts as the image's own."""
SAME_PLACE, SAME_TURN = 0.01, 0.01
"""Metres and radians by which a registered depth camera's frame may differ from the colour camera's."""
TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
POSES = {
    "nav_msgs/msg/Odometry": ("pose", "pose"),
    "geometry_msgs/msg/PoseStamped": ("pose",),
    "geometry_msgs/msg/PoseWithCovarianceStamped": ("pose", "pose"),
    "geometry_msgs/msg/TransformStamped": ("transform",),
}
"""Type of a topic of poses -> the way to the pose in its messages."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PoseSource:
    """Where the camera was, from one chain of transforms.

    Attributes:
        name: "tf", or the topic.
        moving: the links that change with time, from the world down.
        links: from the world down to the camera: an index into `moving`, or a fixed [4, 4] transform.
        fixed: (parent, child) -> [4, 4], all static transforms.
    """

    name: str
    moving: tuple[Trajectory, ...]
    links: tuple[int | np.ndarray, ...]
    fixed: Mapping[tuple[str, str], np.ndarray]

    def times(self) -> Float[np.ndarray, "n"]:
        """The samples' times, seconds."""
        return self.moving[0].times

    def covers(self, time: float) -> bool:
        """Whether every moving link has samples about this time."""
        return all(moment_at(each, time, tolerance=SAME_TIME, max_gap=MAX_POSE_GAP) is not None for each in self.moving)

    def at(self, time: float, where: str) -> Float[np.ndarray, "4 4"]:
        """Camera to world.

        Raises:
            FrameError: a sample that is needed is unusable, or there is none.
        """
        pose = np.eye(4)
        for link in self.links:
            if isinstance(link, int):
                moment = moment_at(self.moving[link], time, tolerance=SAME_TIME, max_gap=MAX_POSE_GAP)
                if moment is None:
                    raise FrameError(f"{where}: {self.name} has no pose within {MAX_POSE_GAP:g} s")
                pose = pose @ pose_at(self.moving[link], moment)
            else:
                pose = pose @ link
        return pose

    def require_same_camera(self, colour: str, depth: str, *, named: bool) -> None:
        """Refuse depth that was taken from another place than colour.

        Raises:
            SceneError: the static transforms between the two frames say so, or nothing does.
        """
        if named or colour == depth:
            return
        between = _between(self.fixed, colour, depth)
        if between is None:
            raise SceneError(
                f"depth is in the frame '{depth}', colour in '{colour}', and no static transform leads from one to the "
                "other; expected depth that is registered to colour (aligned_depth_to_color, depth_registered)"
            )
        turn = float(np.arccos(np.clip((np.trace(between[:3, :3]) - 1) / 2, -1, 1)))
        away = float(np.linalg.norm(between[:3, 3]))
        if away > SAME_PLACE or turn > SAME_TURN:
            raise SceneError(
                f"depth ('{depth}') was taken {away:.3f} m from colour ('{colour}'), turned by {turn:.3f} rad: it does "
                "not show the same pixels; record depth that is registered to colour (aligned_depth_to_color, "
                "depth_registered), or register it first (depth_image_proc)"
            )


@dataclasses.dataclass(kw_only=True)
class _Link:
    """Timed poses of one child in one parent, as they are met."""

    stamps: dict[float, np.ndarray] = dataclasses.field(default_factory=dict)
    faults: dict[float, str] = dataclasses.field(default_factory=dict)

    def add(self, time: float, message: Any, where: str) -> None:
        try:
            self.stamps[time] = pose_of(message)
        except ValueError as error:
            self.stamps[time] = np.eye(4)
            self.faults[time] = f"{where} at {time:.6f} s: unusable pose: {error}"

    def trajectory(self, file: Path) -> Trajectory:
        times = sorted(self.stamps)
        faults = {times.index(time): text for time, text in self.faults.items()}
        return Trajectory(
            file=file, times=np.array(times), poses=np.array([self.stamps[time] for time in times]), faults=faults
        )


def poses_of(reader: Any, path: Path, camera: str, topics: Sequence[str]) -> PoseSource:
    """What a bag says about where the camera was.

    tf goes first, if some transform on the way from its root down to the camera's frame moves. Else the topic of poses
    with most messages: its child frame is taken as the message names it, with static transforms from there to the
    camera; a PoseStamped names none, and is taken as the camera's own.

    Args:
        reader: the open bag.
        path: the bag, for messages.
        camera: the colour images' frame.
        topics: look only at these; empty = at all (tf is always looked at).

    Raises:
        SceneError: it says nothing, or not of the camera.
    """
    moving, fixed = _transforms(reader, path)
    chain = _chain(moving, fixed, camera)
    if any(key in moving for key in chain):
        moved = [moving[key].trajectory(path) for key in chain if key in moving]
        places = {key: place for place, key in enumerate(key for key in chain if key in moving)}
        links = tuple(places[key] if key in places else fixed[key] for key in chain)
        return PoseSource(name="tf", moving=tuple(moved), links=links, fixed=fixed)
    given = [each for each in reader.connections if each.msgtype in POSES and (not topics or each.topic in topics)]
    if not given:
        raise SceneError(
            f"{path}: says nowhere how the camera moved; expected tf with a moving transform above the frame "
            f"'{camera}', or a topic of {', '.join(kind.rsplit('/', 1)[-1] for kind in POSES)}; record what your "
            "tracker publishes"
        )
    chosen = max(given, key=lambda each: (each.msgcount, each.topic))
    link, child = _Link(), ""
    for _, _, raw in reader.messages([chosen]):
        message = reader.deserialize(raw, chosen.msgtype)
        child = str(getattr(message, "child_frame_id", "")).lstrip("/") or child
        inside = message
        for step in POSES[chosen.msgtype]:
            inside = getattr(inside, step)
        link.add(seconds(message.header.stamp), inside, f"{path}, {chosen.topic}")
    mounted = np.eye(4) if not child or child == camera else _between(fixed, child, camera)
    if mounted is None:
        raise SceneError(
            f"{path}: {chosen.topic} says where '{child}' was, but no static transform leads from there to the "
            f"camera's frame '{camera}'; record /tf_static as well"
        )
    return PoseSource(name=chosen.topic, moving=(link.trajectory(path),), links=(0, mounted), fixed=fixed)


def _transforms(reader: Any, path: Path) -> tuple[dict[tuple[str, str], _Link], dict[tuple[str, str], np.ndarray]]:
    """Moving and static transforms by (parent, child); static are those of a topic that calls itself so."""
    moving: dict[tuple[str, str], _Link] = {}
    fixed: dict[tuple[str, str], np.ndarray] = {}
    for connection in reader.connections:
        if connection.msgtype not in TRANSFORMS:
            continue
        for _, _, raw in reader.messages([connection]):
            for each in reader.deserialize(raw, connection.msgtype).transforms:
                key = str(each.header.frame_id).lstrip("/"), str(each.child_frame_id).lstrip("/")
                if connection.topic.endswith("static"):
                    try:
                        fixed[key] = pose_of(each.transform)
                    except ValueError as error:
                        raise SceneError(f"{path}, {connection.topic}, {key[0]} to {key[1]}: {error}") from error
                else:
                    link = moving.setdefault(key, _Link())
                    link.add(seconds(each.header.stamp), each.transform, f"{path}, tf {key[0]} to {key[1]}")
    return moving, fixed


def _chain(
    moving: Mapping[tuple[str, str], Any], fixed: Mapping[tuple[str, str], Any], camera: str
) -> list[tuple[str, str]]:
    """The transforms from the root of the tree down to a frame."""
    parents = {child: parent for parent, child in (*fixed, *moving)}
    chain: list[tuple[str, str]] = []
    seen = {camera}
    while camera in parents and parents[camera] not in seen:
        chain.insert(0, (parents[camera], camera))
        camera = parents[camera]
        seen.add(camera)
    return chain


def _between(fixed: Mapping[tuple[str, str], np.ndarray], start: str, end: str) -> np.ndarray | None:
    """The pose of one frame in another by static transforms alone, up and down the tree; None where none lead there."""
    reached: dict[str, np.ndarray] = {start: np.eye(4)}
    waiting = [start]
    while waiting:
        here = waiting.pop()
        for (parent, child), transform in fixed.items():
            for source, target, step in ((parent, child, transform), (child, parent, np.linalg.inv(transform))):
                if source == here and target not in reached:
                    reached[target] = reached[here] @ step
                    waiting.append(target)
    return reached.get(end)
