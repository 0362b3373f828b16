"""What a person says of poses and depth goes before the layout's own, in every reader alike."""

import dataclasses
import functools

import numpy as np
import pytest
from box_room import box_room, same_views, write_posed_images, write_scannet_export, write_seven_scenes
from capture_writers import WRITERS
from scipy.spatial.transform import Rotation

from stereopsis.errors import SceneError
from stereopsis.scenes import open_scene, write_scene
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.readers.trajectories import pose_from_quaternion

OWN = Conventions()
LAYOUTS = {
    "tum": Conventions(quaternion="xyzw", depth_scale=5000),
    "open3d": OWN,
    "transforms_json": Conventions(axes="opengl"),
    "colmap": Conventions(pose="world-to-camera", quaternion="wxyz"),
    "arkitscenes": Conventions(pose="world-to-camera"),
    "seven_scenes": OWN,
    "scannet": OWN,
    "posed_images": OWN,
    "stored": OWN,
}
WRITE = {
    **{name: lambda folder, scene, write=write: write(folder, scene.frames) for name, write in WRITERS.items()},
    "seven_scenes": write_seven_scenes,
    "scannet": write_scannet_export,
    "posed_images": write_posed_images,
    "stored": lambda folder, scene: write_scene(scene, folder),
}


def _pose(seed=0):
    generator = np.random.default_rng(seed)
    return pose_from_quaternion(Rotation.random(random_state=seed).as_quat(), generator.normal(size=3))


def test_each_convention_by_hand():
    """A camera at (1, 2, 3) that looks along the world's x axis, z up."""
    opencv = np.array([[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1.0]])
    opengl = np.array([[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1.0]])
    inverse = np.array([[0, -1, 0, 2], [0, 0, -1, 3], [1, 0, 0, -1], [0, 0, 0, 1.0]])
    thousandths = opencv * np.array([[1, 1, 1, 1000.0]])
    for conventions, stored in (
        (OWN, opencv),
        (Conventions(axes="opengl"), opengl),
        (Conventions(pose="world-to-camera"), inverse),
        (Conventions(pose_unit=0.001), np.vstack([thousandths[:3], [0, 0, 0, 1.0]])),
    ):
        np.testing.assert_allclose(conventions.camera_to_world(stored), opencv, atol=1e-12)
        np.testing.assert_allclose(conventions.stored(opencv), stored, atol=1e-12)
    np.testing.assert_array_equal(Conventions(quaternion="wxyz").xyzw(np.arange(4.0)), [1, 2, 3, 0])
    np.testing.assert_array_equal(Conventions(quaternion="xyzw").xyzw(np.arange(4.0)), [0, 1, 2, 3])


@pytest.mark.parametrize("axes", ["opencv", "opengl"])
@pytest.mark.parametrize("pose", ["camera-to-world", "world-to-camera"])
@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_storing_is_the_inverse_of_reading(axes, pose, unit):
    conventions = Conventions(axes=axes, pose=pose, pose_unit=unit)
    for seed in range(3):
        T = _pose(seed)
        np.testing.assert_allclose(conventions.camera_to_world(conventions.stored(T)), T, atol=1e-12)


def test_rereading_needs_no_files():
    """Read as x y z w and OpenCV; what would have come out as w x y z, inverse and OpenGL?"""
    read = Conventions(quaternion="xyzw")
    other = Conventions(quaternion="wxyz", pose="world-to-camera", axes="opengl")
    stored, translation = Rotation.random(random_state=5).as_quat(), np.array([1.0, 2.0, 3.0])
    as_read = read.camera_to_world(pose_from_quaternion(read.xyzw(stored), translation))
    expected = other.camera_to_world(pose_from_quaternion(other.xyzw(stored), translation))
    np.testing.assert_allclose(read.reread(as_read, other), expected, atol=1e-12)
    np.testing.assert_allclose(other.reread(expected, read), as_read, atol=1e-12)


def test_what_is_no_pose_stays_none():
    singular = np.zeros((4, 4))
    np.testing.assert_array_equal(Conventions(pose="world-to-camera").camera_to_world(singular), singular)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"axes": "unity"}, "axes 'unity' is unknown; choose opencv or opengl"),
        ({"pose": "c2w"}, "choose camera-to-world or world-to-camera"),
        ({"quaternion": "wzyx"}, "choose xyzw or wxyz"),
        ({"depth_scale": 0}, "depth_scale is 0; expected a positive number"),
        ({"depth_scale": 1e300}, "depth_scale is 1e[+]300"),
        ({"pose_unit": float("nan")}, "pose_unit is nan"),
    ],
)
def test_words_and_numbers_are_checked(said, message):
    with pytest.raises(SceneError, match=message):
        ReadOptions(**said)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "said",
    [
        {"axes": "opengl"},
        {"axes": "opencv"},
        {"pose": "world-to-camera"},
        {"pose": "camera-to-world", "axes": "opengl"},
        {"depth_scale": 2000.0},
        {"pose_unit": 0.1},
        {"pose": "world-to-camera", "depth_scale": 8000.0},
    ],
    ids=str,
)
def test_a_departing_export_is_read_by_what_is_said(layout, said, tmp_path):
    """The writers follow their layout; frames are bent beforehand, so that the files hold what is said instead."""
    expected, own = box_room(3, step=6.0), LAYOUTS[layout]
    really = dataclasses.replace(own, **said)
    bent = tuple(
        dataclasses.replace(
            frame,
            T_world_camera=own.camera_to_world(really.stored(frame.T_world_camera)),
            load_depth=functools.partial(_times, frame.load_depth, really.depth_scale / own.depth_scale),
        )
        for frame in expected.frames
    )
    folder = tmp_path / "room"
    WRITE[layout](folder, expected.replace(frames=bent))
    same_views(open_scene(folder, format=layout, options=ReadOptions(**said)), expected, metres=2e-3)


def _times(load, factor):
    return load() * np.float32(factor)


@pytest.mark.parametrize("layout", ["tum", "colmap"])
def test_quaternions_in_the_other_order(layout, tmp_path):
    expected, own = box_room(3, step=6.0), LAYOUTS[layout]
    order = "wxyz" if own.quaternion == "xyzw" else "xyzw"
    really = dataclasses.replace(own, quaternion=order)
    bent = tuple(
        dataclasses.replace(frame, T_world_camera=really.reread(frame.T_world_camera, own)) for frame in expected.frames
    )
    WRITE[layout](tmp_path / "room", expected.replace(frames=bent))
    scene = open_scene(tmp_path / "room", options=ReadOptions(quaternion=order))
    for frame, original in zip(scene.frames, expected.frames, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=1e-6)
    assert scene.provenance["conventions"]["said"] == ["quaternion"]


def test_no_quaternions_no_order(tmp_path):
    write_seven_scenes(tmp_path / "room", box_room(1))
    with pytest.raises(SceneError, match="stores no quaternions; leave their order"):
        open_scene(tmp_path / "room", options=ReadOptions(quaternion="wxyz"))


def test_a_stored_scene_is_in_our_own_conventions(tmp_path):
    """What the source was like is kept, but does not apply to what has been stored."""
    WRITE["transforms_json"](tmp_path / "room", box_room(2))
    scene = open_scene(tmp_path / "room")
    assert scene.provenance["conventions"]["axes"] == "opengl"
    stored = open_scene(write_scene(scene, tmp_path / "stored"))
    assert "conventions" not in stored.provenance
    assert stored.provenance["source_conventions"]["axes"] == "opengl"
    assert Conventions.of_record(stored.provenance.get("conventions")) == OWN
    assert Conventions.of_record(scene.provenance["conventions"]).axes == "opengl"
