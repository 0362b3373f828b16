"""Rosbags of both ROS versions, written by the package that reads them, and made of a room that is known exactly."""

import dataclasses
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_room import K, box_room, quaternion
from PIL import Image

from stereopsis.errors import FrameError, MissingExtraError, SceneError
from stereopsis.scenes import open_scene
from stereopsis.scenes.agreement import depth_agreement
from stereopsis.scenes.conventions import ReadOptions
from stereopsis.scenes.formats import detect_format, scene_id_at, scenes_at
from stereopsis.scenes.readers import rosbag_messages

rosbags = pytest.importorskip("rosbags")

from rosbags.rosbag1 import Writer as Writer1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin  # noqa: E402
from rosbags.rosbag2 import Writer as Writer2  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

ROOM = box_room()
START, STEP = 1_700_000_000_000_000_000, 100_000_000
"""Nanoseconds: ten pictures a second."""
OPTICAL = "camera_color_optical_frame"
MOUNTED = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.0], [0, -1, 0, 0.05], [0, 0, 0, 1]])
"""Pose of the camera's optical frame on a robot: forward is the camera's z."""


class Bag:
    """Writes messages of one bag; makes them by the names of ROS 2, in the types of its version."""

    def __init__(self, path: Path, kind: str) -> None:
        self.ros1 = kind == "ros1"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        if self.ros1:
            self.store.register(
                get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage")
            )
            self.writer: Any = Writer1(path)
        else:
            plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
            self.writer = Writer2(path, version=9, storage_plugin=plugin)
        self.writer.open()
        self.connections: dict[str, Any] = {}

    def make(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)

    def header(self, time: int, frame: str) -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", sec=time // 10**9, nanosec=time % 10**9)
        more = {"seq": 0} if self.ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame, **more)

    def write(self, topic: str, message: Any, time: int) -> None:
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        serialise = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        self.writer.write(self.connections[topic], time + 3_000_000, serialise(message, kind))

    def image(self, topic: str, pixels: np.ndarray, encoding: str, time: int, frame: str, pad: int = 0) -> None:
        rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
        data = np.pad(rows, ((0, 0), (0, pad))).ravel()
        size = {"height": pixels.shape[0], "width": pixels.shape[1], "step": rows.shape[1] + pad}
        fields = {"header": self.header(time, frame), "encoding": encoding, "is_bigendian": 0, "data": data}
        self.write(topic, self.make("sensor_msgs/msg/Image", **size, **fields), time)

    def compressed(self, topic: str, data: bytes, format: str, time: int, frame: str) -> None:
        packed = np.frombuffer(data, dtype=np.uint8)
        header = self.header(time, frame)
        self.write(topic, self.make("sensor_msgs/msg/CompressedImage", header=header, format=format, data=packed), time)

    def camera(self, topic: str, time: int, frame: str, bent=(0.0,) * 5, size=(64, 48)) -> None:
        matrix = K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # ROS counts pixel centres as whole numbers
        region = self.make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        fields: dict[str, Any] = {"d": np.array(bent), "k": matrix.ravel(), "r": np.eye(3).ravel(), "p": np.zeros(12)}
        if self.ros1:
            fields = {name.upper(): value for name, value in fields.items()}
        fields |= {"height": size[1], "width": size[0], "distortion_model": "plumb_bob", "roi": region}
        header = self.header(time, frame)
        self.write(
            topic, self.make("sensor_msgs/msg/CameraInfo", header=header, binning_x=0, binning_y=0, **fields), time
        )

    def _parts(self, pose: np.ndarray, place: str) -> tuple[Any, Any]:
        x, y, z, w = quaternion(pose)
        turn = self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
        where = dict(zip("xyz", pose[:3, 3].tolist(), strict=True))
        return self.make(f"geometry_msgs/msg/{place}", **where), turn

    def transform(self, topic: str, time: int, parent: str, child: str, pose: np.ndarray) -> None:
        place, turn = self._parts(pose, "Vector3")
        inner = self.make("geometry_msgs/msg/Transform", translation=place, rotation=turn)
        one = self.make(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(time, parent),
            child_frame_id=child,
            transform=inner,
        )
        self.write(topic, self.make("tf2_msgs/msg/TFMessage", transforms=[one]), time)

    def pose(self, topic: str, time: int, pose: np.ndarray, child: str = "") -> None:
        """A PoseStamped; with a child frame an Odometry."""
        place, turn = self._parts(pose, "Point")
        inner = self.make("geometry_msgs/msg/Pose", position=place, orientation=turn)
        header = self.header(time, "map")
        if not child:
            self.write(topic, self.make("geometry_msgs/msg/PoseStamped", header=header, pose=inner), time)
            return
        zero = dict.fromkeys("xyz", 0.0)
        spin = [self.make("geometry_msgs/msg/Vector3", **zero) for _ in range(2)]
        twist = self.make("geometry_msgs/msg/Twist", linear=spin[0], angular=spin[1])
        with_covariance = [
            self.make(f"geometry_msgs/msg/{kind}WithCovariance", covariance=np.zeros(36), **{kind.lower(): value})
            for kind, value in (("Pose", inner), ("Twist", twist))
        ]
        fields = {"child_frame_id": child, "pose": with_covariance[0], "twist": with_covariance[1]}
        self.write(topic, self.make("nav_msgs/msg/Odometry", header=header, **fields), time)

    def close(self) -> Path:
        self.writer.close()
        return self.writer.path


def times() -> list[int]:
    return [START + STEP * index for index in range(len(ROOM.frames))]


def written(path: Path, kind: str = "ros1", poses: str = "tf", late: int = 5_000_000, **changes: Any) -> Path:
    """The room as a RealSense driver would record it; depth comes a little late."""
    bag = Bag(path, kind)
    frame = changes.get("depth_frame", OPTICAL)
    for time, view in zip(times(), ROOM.frames, strict=True):
        bag.camera("/camera/color/camera_info", time, OPTICAL, **changes.get("camera", {}))
        bag.image("/camera/color/image_raw", view.colour(), "rgb8", time, OPTICAL, pad=8)
        depth = np.rint(view.depth() * 1000).astype(np.uint16)
        bag.image(changes.get("depth_topic", "/camera/depth/image"), depth, "16UC1", time + late, frame)
        if poses == "tf":
            bag.transform("/tf", time, "map", "base_link", view.T_world_camera @ np.linalg.inv(MOUNTED))
        elif poses == "odometry":
            bag.pose("/odom", time, view.T_world_camera @ np.linalg.inv(MOUNTED), child="base_link")
        elif poses == "pose":
            bag.pose("/orb_slam/pose", time, view.T_world_camera)
    if changes.get("static", True):
        bag.transform("/tf_static", START, "base_link", OPTICAL, MOUNTED)
    return bag.close()


@pytest.mark.parametrize("kind", ["ros1", "sqlite", "mcap"])
@pytest.mark.parametrize("poses", ["tf", "odometry", "pose"])
def test_a_bag_is_the_room(tmp_path, kind, poses):
    path = written(tmp_path / ("kitchen.bag" if kind == "ros1" else "kitchen"), kind, poses)
    assert detect_format(path) == "rosbag"
    scene = open_scene(path)
    assert scene.id == "kitchen" == scene_id_at(path, format="rosbag")
    assert len(scene.frames) == len(ROOM.frames)
    for found, true in zip(scene.frames, ROOM.frames, strict=True):
        np.testing.assert_allclose(found.T_world_camera, true.T_world_camera, atol=1e-9)
    for found, true in list(zip(scene.frames, ROOM.frames, strict=True))[::4]:
        np.testing.assert_array_equal(found.colour(), true.colour())
        np.testing.assert_allclose(found.depth(), true.depth(), atol=0.00051)
        assert dataclasses.astuple(found.intrinsics) == dataclasses.astuple(true.intrinsics)
    pickle.loads(pickle.dumps(scene.frames[0]))
    topics = {"tf": "tf", "odometry": "/odom", "pose": "/orb_slam/pose"}
    assert scene.provenance["topics"] == {
        "colour": "/camera/color/image_raw",
        "depth": "/camera/depth/image",
        "poses": topics[poses],
    }


def test_the_views_of_a_bag_agree(tmp_path):
    assert depth_agreement(open_scene(written(tmp_path / "x.bag"))).agreement > 0.99


def test_poses_are_interpolated_between_samples_that_are_near_enough(tmp_path):
    """Samples 0.1 s apart; pictures half way between, by hand the mean; none where a gap is longer."""
    bag = Bag(tmp_path / "walk.bag", "ros1")
    for index in range(4):
        time = START + STEP * (index + (3 if index == 3 else 0))
        place = np.eye(4)
        place[0, 3] = 0.2 * index
        bag.pose("/pose", time, place)
    view = ROOM.frames[0]
    asked = [0.5, 1.5, 4.0, 9.0]  # in steps: between samples, between samples, in the gap, behind the last
    for step in asked:
        bag.camera("/cam/camera_info", START, OPTICAL)
        bag.image("/cam/image", view.colour(), "rgb8", START + int(step * STEP), OPTICAL)
    scene = open_scene(bag.close())
    assert [frame.T_world_camera[0, 3] for frame in scene.frames] == pytest.approx([0.1, 0.3], abs=1e-6)
    assert scene.provenance["unmatched"] == {"colour without pose": 2}
    assert scene.frames[0].depth() is None
    assert scene.provenance["topics"]["depth"] is None


def test_depth_that_comes_too_late_belongs_to_nothing(tmp_path):
    path = written(tmp_path / "late.bag", late=21_000_000)
    with pytest.raises(SceneError, match=r"none of 6 colour images has both a depth image within 20 ms .* runs from"):
        open_scene(path)


def test_registered_depth_goes_first_and_other_places_are_refused(tmp_path):
    name = "/camera/aligned_depth_to_color/image_raw"
    aligned = written(tmp_path / "a.bag", depth_topic=name, depth_frame="camera_depth_optical_frame")
    assert open_scene(aligned).provenance["topics"]["depth"] == name
    unknown = written(tmp_path / "b.bag", depth_frame="camera_depth_optical_frame")
    with pytest.raises(SceneError, match="no static transform leads from one to the other"):
        open_scene(unknown)
    bag = Bag(tmp_path / "c.bag", "ros1")
    beside = np.eye(4)
    beside[0, 3] = 0.015
    bag.transform("/tf_static", START, OPTICAL, "depth_frame", beside)
    for time, view in zip(times(), ROOM.frames, strict=True):
        bag.camera("/camera/color/camera_info", time, OPTICAL)
        bag.image("/camera/color/image_raw", view.colour(), "rgb8", time, OPTICAL)
        bag.image("/camera/depth/image", view.depth(), "32FC1", time, "depth_frame")
        bag.pose("/pose", time, view.T_world_camera)
    with pytest.raises(SceneError, match=r"was taken 0\.015 m from colour .* record depth that is registered"):
        open_scene(bag.close())


def png(values: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(values).save(held, "PNG")
    return held.getvalue()


def test_compressed_images_and_quantised_depth(tmp_path):
    """compressed_depth of metres keeps inverse depth: A / (value - B), here with A = 2000, B = 10."""
    bag = Bag(tmp_path / "small.bag", "ros1")
    for time, view in zip(times(), ROOM.frames, strict=True):
        bag.camera("/cam/rgb/camera_info", time, OPTICAL)
        bag.compressed("/cam/rgb/compressed", png(view.colour()), "rgb8; png compressed bgr8", time, OPTICAL)
        values = np.rint(2000.0 / view.depth() + 10.0).astype(np.uint16)
        values[0, 0] = 0
        packed = struct.pack("<iff", 0, 2000.0, 10.0) + png(values)
        bag.compressed("/cam/depth/compressedDepth", packed, "32FC1; compressedDepth png", time, OPTICAL)
        bag.pose("/pose", time, view.T_world_camera)
    scene = open_scene(bag.close())
    np.testing.assert_array_equal(scene.frames[2].colour(), ROOM.frames[2].colour())
    found, true = scene.frames[2].depth(), ROOM.frames[2].depth().copy()
    true[0, 0] = 0.0
    np.testing.assert_allclose(found, true, rtol=2e-3)


@pytest.mark.parametrize(
    ("encoding", "make"),
    [
        ("bgr8", lambda rgb: rgb[..., ::-1].copy()),
        ("rgba8", lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])),
        ("bgra8", lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)])),
    ],
)
def test_encodings_of_colour(encoding, make):
    rgb = ROOM.frames[0].colour()
    message = _message(make(rgb), encoding)
    np.testing.assert_array_equal(rosbag_messages.colour_of(message, "here"), rgb)


def _message(pixels: np.ndarray, encoding: str, **changes: Any) -> Any:
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
    plain = {"height": pixels.shape[0], "width": pixels.shape[1], "step": rows.shape[1], "data": rows.ravel()}
    return type("Image", (), {**plain, "encoding": encoding, "is_bigendian": 0, **changes})()


def test_depth_in_both_byte_orders_and_both_units():
    depth = np.array([[1000, 2500], [0, 65535]], dtype=np.uint16)
    big = _message(depth.astype(">u2"), "mono16", is_bigendian=1)
    for message in (_message(depth, "16UC1"), big):
        np.testing.assert_allclose(rosbag_messages.depth_of(message, "here", 1000.0), [[1.0, 2.5], [0.0, 65.535]])
    metres = np.array([[1.5, np.nan], [np.inf, -1.0]], dtype=np.float32)
    np.testing.assert_array_equal(
        rosbag_messages.depth_of(_message(metres, "32FC1"), "here", 1000.0), [[1.5, 0.0], [0.0, 0.0]]
    )
    with pytest.raises(FrameError, match="do not fit its 8 bytes"):
        rosbag_messages.depth_of(_message(depth, "16UC1", height=3), "here", 1000.0)


def test_bent_lenses_are_straightened_and_options_heeded(tmp_path):
    path = written(tmp_path / "bent.bag", camera={"bent": (-0.2, 0.05, 0.0, 0.0, 0.0)})
    scene = open_scene(path)
    assert "removed" in scene.provenance["distortion"]
    assert scene.frames[0].intrinsics.fx != ROOM.frames[0].intrinsics.fx
    plain = written(tmp_path / "units.bag")
    halves = open_scene(plain, options=ReadOptions(depth_scale=500))
    np.testing.assert_allclose(halves.frames[0].depth(), 2 * ROOM.frames[0].depth(), atol=0.0011)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": "none"}, "says nowhere how the camera moved"),
        ({"poses": "odometry", "static": False}, "says where 'base_link' was, but no static transform"),
        ({"camera": {"size": (32, 24)}}, "has 64x48 pixels, its camera_info speaks of 32x24"),
        ({"camera": {"bent": (0.1,) * 3}}, "a lens of the model 'plumb_bob' with 3 coefficients"),
    ],
)
def test_what_is_missing_is_said(tmp_path, changes, message):
    with pytest.raises(SceneError, match=message):
        open_scene(written(tmp_path / "x.bag", **changes))


def test_damaged_bags_and_missing_packages_are_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "x.bag"
    path.write_bytes(b"#ROSBAG V2.0\n" + bytes(200))
    with pytest.raises(SceneError, match="cannot be read as a rosbag"):
        open_scene(path)
    whole = written(tmp_path / "y.bag").read_bytes()
    for end in (13, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:end])
        with pytest.raises((SceneError, FrameError)):
            open_scene(path)
    monkeypatch.setitem(__import__("sys").modules, "rosbags.highlevel", None)
    with pytest.raises(MissingExtraError, match=r"rosbags.*pip install 'stereopsis\[rosbag\]'"):
        open_scene(tmp_path / "y.bag")


def test_a_folder_of_bags_is_several_scenes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.bag").write_bytes(b"")
    found = scenes_at(tmp_path)
    assert (found.format, [path.name for path in found.paths]) == ("rosbag", ["one.bag", "two.bag"])
    folder = written(tmp_path / "ros2" / "walk", "mcap")
    (inside,) = folder.glob("*.mcap")
    assert scenes_at(inside).paths == (folder,)
