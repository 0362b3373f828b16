"""Reader of rosbags: ROS 1 (``.bag``) and ROS 2 (a folder with ``metadata.yaml`` and ``.db3`` or ``.mcap``).

Colour and depth come from sensor_msgs/Image or CompressedImage, the camera from the CameraInfo beside the colour topic,
poses from tf, or else from one Odometry, PoseStamped, PoseWithCovarianceStamped or TransformStamped topic. All is put
together by the times in the messages' headers, as cameras and trackers tick on their own: colour and depth one to one,
closest first, within `MAX_DEPTH_DELAY`; a pose is interpolated between samples at most `MAX_POSE_GAP` apart. ROS calls
the camera's axes "optical", and they are OpenCV's.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.lens import Lens
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_frame_pose, check_intrinsics
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.readers.capture_files import distortion_note, straightened
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.readers.rosbag_messages import (
    NANOSECONDS,
    colour_of,
    depth_of,
    kind_of_image,
    lens_of,
    message_at,
    opened,
    seconds,
    size_of_image,
)
from stereopsis.scenes.readers.rosbag_poses import PoseSource, poses_of
from stereopsis.scenes.readers.trajectories import associate
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = "NAME.bag (ROS 1), or metadata.yaml with *.db3 or *.mcap (ROS 2)"
CONVENTIONS = Conventions(quaternion="xyzw")
MAX_DEPTH_DELAY = 0.02
"""Seconds between a colour image and its depth image."""
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA = "sensor_msgs/msg/CameraInfo"
REGISTERED = ("aligned_depth", "depth_registered", "depth_to_rgb", "depth_to_color")
"""What drivers call depth that shows what colour shows."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Images:
    """One topic's images: [n] header times (s) and recording times (ns), and the first of them.

    Attributes:
        topic: its name.
        frame: what tf calls the camera.
        times: of the pictures, seconds, increasing.
        recorded: by which they are found again.
        first: the first message.
    """

    topic: str
    frame: str
    times: Float[np.ndarray, "n"]
    recorded: tuple[int, ...]
    first: Any


def is_rosbag(path: Path) -> bool:
    """Whether a path is a bag, or a folder of .bag files."""
    return bool(rosbag_paths(path))


def rosbag_paths(path: Path) -> list[Path]:
    """The recordings at a path: a bag itself, a ROS 2 folder (or a file in it), or the .bag files in a folder."""
    if path.is_file():
        if path.suffix == ".bag":
            return [path]
        inside = path.suffix in (".db3", ".mcap") and (path.parent / "metadata.yaml").is_file()
        return [path.parent] if inside else []
    if not path.is_dir():
        return []
    if (path / "metadata.yaml").is_file() and (any(path.glob("*.db3*")) or any(path.glob("*.mcap*"))):
        return [path]
    return sorted(file for file in path.glob("*.bag") if file.is_file())


def rosbag_name(path: Path) -> str:
    """The bag's name without its suffix."""
    return Path(given_name(path)).stem if path.suffix == ".bag" else given_name(path)


def read_rosbag(
    path: Path,
    *,
    topics: Sequence[str] = (),
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open a recording; pictures stay in the bag until asked for.

    Of several colour topics the one with most images is taken, of several depth topics the one that is registered to
    colour by its name or frame; ``provenance["topics"]`` says which. Images without depth or pose are usual (sensors
    tick on their own): they are left out and counted in ``provenance["unmatched"]``.

    Args:
        path: the .bag file, or the ROS 2 folder.
        topics: take only these for colour, depth and poses; others are not looked at.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: the bag is damaged, lacks colour, camera or poses, nothing matches, or too many frames are bad.
        MissingExtraError: the package rosbags is not installed.
    """
    path = Path(path)
    policy = Policy(on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    conventions = CONVENTIONS.with_options(options, str(path))
    bag = _recording(path, topics)
    if not bag.kept:
        raise SceneError(_no_match(bag))
    depth = bag.depth
    return capture_scene(
        path,
        "rosbag",
        [f"{round(bag.colour.times[number] * NANOSECONDS):019d}.png" for number in bag.kept],
        functools.partial(_frame, bag, conventions),
        conventions,
        policy,
        scene_id=rosbag_name(path),
        topics={"colour": bag.colour.topic, "depth": None if depth is None else depth.topic, "poses": bag.poses.name},
        unmatched=bag.unmatched,
        **distortion_note([bag.lens]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Recording:
    """What of a bag makes a scene.

    Attributes:
        path: the bag.
        colour: the colour images.
        depth: the depth images, if any.
        lens: of colour.
        depth_lens: of depth; `lens` itself where they are the same.
        poses: where the camera was.
        partners: [n] for each colour image its depth image, or -1; None without depth.
        kept: the colour images that have all that they need.
        unmatched: how many have not, by what they lack.
    """

    path: Path
    colour: _Images
    depth: _Images | None
    lens: Lens
    depth_lens: Lens
    poses: PoseSource
    partners: np.ndarray | None
    kept: tuple[int, ...]
    unmatched: dict[str, int]


def _recording(path: Path, topics: Sequence[str]) -> _Recording:
    with opened(path) as reader:
        images = _image_topics(reader, path, topics)
        colour, depth = _colour_topic(images, path), _depth_topic(images, path)
        lens = _camera(reader, path, colour)
        depth_lens = lens if depth is None else _camera(reader, path, depth, lens)
        poses = poses_of(reader, path, colour.frame, topics)
    posed = [poses.covers(time) for time in colour.times.tolist()]
    unmatched = {"colour without pose": posed.count(False)}
    partners = None
    if depth is not None:
        poses.require_same_camera(colour.frame, depth.frame, named=_says_registered(depth))
        partners = associate(colour.times, depth.times, MAX_DEPTH_DELAY)
        unmatched["colour without depth"] = int((partners < 0).sum())
    kept = tuple(i for i, known in enumerate(posed) if known and (partners is None or partners[i] >= 0))
    return _Recording(
        path=path,
        colour=colour,
        depth=depth,
        lens=lens,
        depth_lens=depth_lens,
        poses=poses,
        partners=partners,
        kept=kept,
        unmatched=unmatched,
    )


def _frame(bag: _Recording, conventions: Conventions, index: int, name: str) -> Frame:
    """One picture with its pose; straightened where the lens bends it.

    Raises:
        FrameError: its pose is unusable.
    """
    colour, depth, number = bag.colour, bag.depth, bag.kept[index]
    where = f"{bag.path}, {colour.topic} at {colour.times[number]:.6f} s"
    pose = conventions.camera_to_world(bag.poses.at(float(colour.times[number]), where))
    check_frame_pose(pose, where)
    load_depth = None
    if depth is not None and bag.partners is not None:
        recorded = depth.recorded[int(bag.partners[number])]
        load_depth = functools.partial(_load_depth, bag.path, depth.topic, recorded, conventions.depth_scale)
    frame = Frame(
        name=name,
        T_world_camera=pose,
        intrinsics=bag.lens.camera,
        load_colour=functools.partial(_load_colour, bag.path, colour.topic, colour.recorded[number]),
        load_depth=load_depth,
        depth_intrinsics=None if depth is None or bag.depth_lens is bag.lens else bag.depth_lens.camera,
    )
    return straightened(frame, bag.lens, f"{bag.path}, the camera of {colour.topic}")


def _image_topics(reader: Any, path: Path, topics: Sequence[str]) -> dict[str, list[_Images]]:
    """Colour and depth topics with the times of their images."""
    found: dict[str, list[_Images]] = {"colour": [], "depth": []}
    for connection in reader.connections:
        if connection.msgtype not in IMAGES or (topics and connection.topic not in topics):
            continue
        stamps: list[tuple[float, int]] = []
        first: Any = None
        for _, recorded, raw in reader.messages([connection]):
            message = reader.deserialize(raw, connection.msgtype)
            first = message if first is None else first
            if kind_of_image(first) is None:
                break
            stamps.append((seconds(message.header.stamp), recorded))
        kind = None if first is None else kind_of_image(first)
        if kind is None:
            continue
        stamps = sorted(dict(sorted(stamps, reverse=True)).items())  # of one time the picture recorded first
        times = np.array([time for time, _ in stamps])
        found[kind].append(
            _Images(
                topic=connection.topic,
                frame=str(first.header.frame_id).lstrip("/"),
                times=times,
                recorded=tuple(recorded for _, recorded in stamps),
                first=first,
            )
        )
    if not found["colour"]:
        kinds = ", ".join(f"{each.topic} ({each.msgtype})" for each in reader.connections[:8])
        raise SceneError(
            f"{path}: holds no colour images that can be read; expected {' or '.join(IMAGES)} with colour, found "
            f"{kinds or 'nothing'}; record the camera's topics"
        )
    return found


def _colour_topic(images: dict[str, list[_Images]], path: Path) -> _Images:
    """With most pictures; among equals a raw one, then by name."""
    return max(
        images["colour"],
        key=lambda each: (len(each.times), hasattr(each.first, "encoding"), [-ord(c) for c in each.topic]),
    )


def _says_registered(images: _Images) -> bool:
    return any(word in images.topic for word in REGISTERED)


def _depth_topic(images: dict[str, list[_Images]], path: Path) -> _Images | None:
    """Depth that shows what colour shows: by its name, then by its camera's frame; None where there is none at all."""
    colour = _colour_topic(images, path)
    return max(
        images["depth"],
        key=lambda each: (_says_registered(each), each.frame == colour.frame, len(each.times), each.topic),
        default=None,
    )


def _camera(reader: Any, path: Path, images: _Images, like: Lens | None = None) -> Lens:
    """The lens that the CameraInfo beside a topic states; `like` where depth has none of its own or the same."""
    cameras = {each.topic: each for each in reader.connections if each.msgtype == CAMERA}
    folders = [images.topic.rsplit("/", level)[0] for level in (1, 2, 3)]
    named = next((cameras[f"{folder}/camera_info"] for folder in folders if f"{folder}/camera_info" in cameras), None)
    said = None
    for connection in [named] if named is not None else list(cameras.values()):
        for _, _, raw in reader.messages([connection]):
            message = reader.deserialize(raw, connection.msgtype)
            if named is not None or str(message.header.frame_id).lstrip("/") == images.frame:
                said = lens_of(message, f"{path}, {connection.topic}")
            break
        if said is not None:
            break
    size = size_of_image(images.first, f"{path}, {images.topic}")
    if said is None and like is not None:
        return like if size == (like.camera.width, like.camera.height) else like.resized(*size)
    if said is None:
        raise SceneError(
            f"{path}: has no camera for {images.topic}; expected {folders[0]}/camera_info (sensor_msgs/CameraInfo), or "
            f"one whose frame is '{images.frame}'; record it as well"
        )
    check_intrinsics(said.camera, f"{path}, the camera of {images.topic}")
    if size != (said.camera.width, said.camera.height):
        raise SceneError(
            f"{path}: {images.topic} has {size[0]}x{size[1]} pixels, its camera_info speaks of "
            f"{said.camera.width}x{said.camera.height}; record both from one node"
        )
    return like if like is not None and said == like else said


def _load_colour(path: Path, topic: str, recorded: int) -> np.ndarray:
    return colour_of(message_at(path, topic, recorded), f"{path}, {topic} at {recorded} ns")


def _load_depth(path: Path, topic: str, recorded: int, units_per_metre: float | int) -> np.ndarray:
    return depth_of(message_at(path, topic, recorded), f"{path}, {topic} at {recorded} ns", units_per_metre)


def _no_match(bag: _Recording) -> str:
    images = [bag.colour] if bag.depth is None else [bag.colour, bag.depth]
    spans = [*((each.topic, each.times) for each in images), (bag.poses.name, bag.poses.times())]
    told = "; ".join(f"{name} runs from {times[0]:.3f} to {times[-1]:.3f}" for name, times in spans if len(times))
    return (
        f"{bag.path}: none of {len(bag.colour.times)} colour images has both a depth image within "
        f"{MAX_DEPTH_DELAY * 1000:g} ms and a pose; {told}; record with one "
        "clock (use_sim_time), or all topics in one bag"
    )
