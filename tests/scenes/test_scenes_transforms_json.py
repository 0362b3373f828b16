import json
import math

import numpy as np
import pytest
from capture_writers import GL, write_transforms_json
from PIL import Image
from scipy.spatial.transform import Rotation

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.readers.depth_files import read_depth_array
from stereopsis.scenes.readers.transforms_json import read_transforms_json


@pytest.fixture
def folder(tmp_path, make_scene):
    return write_transforms_json(tmp_path / "desk", make_scene(frames=6).frames)


def _change(folder, change):
    """Edit the content; frames stand in the order of their names while it is edited."""
    file = folder / "transforms.json"
    content = json.loads(file.read_text())
    content["frames"].sort(key=lambda entry: entry["file_path"])
    change(content)
    file.write_text(json.dumps(content))


def test_an_opengl_camera_by_hand(folder):
    """A camera at (1, 2, 3) that looks along the world's x axis, z up, as nerfstudio writes it."""
    matrix = [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]]
    _change(folder, lambda content: content["frames"][0].update(transform_matrix=matrix))
    frame = read_transforms_json(folder).frames[0]
    assert frame.name == "frame_00001"
    right, down, forward, centre = frame.T_world_camera[:3].T
    np.testing.assert_array_equal([right, down, forward, centre], [[0, -1, 0], [0, 0, -1], [1, 0, 0], [1, 2, 3]])


def test_frames_are_sorted_by_name_numbers_by_value(folder):
    def rename(content):
        for number, entry in enumerate(content["frames"], start=8):
            (folder / entry["file_path"]).rename(folder / "images" / f"{number}.png")
            entry["file_path"] = f"images/{number}.png"

    _change(folder, rename)
    assert [frame.name for frame in read_transforms_json(folder).frames] == ["8", "9", "10", "11", "12", "13"]


def test_same_names_in_two_folders_stay_apart(folder):
    def move(content):
        for number, entry in enumerate(content["frames"][:2]):
            target = folder / "images" / f"cam{number}" / "0.png"
            target.parent.mkdir()
            (folder / entry["file_path"]).rename(target)
            entry["file_path"] = f"images/cam{number}/0.png"

    _change(folder, move)
    names = [frame.name for frame in read_transforms_json(folder).frames]
    assert names[:2] == ["images_cam0_0", "images_cam1_0"]


def test_what_was_applied_to_the_poses_is_undone(folder):
    """Poses moved as ns-process-data moves them (axes exchanged, then scaled): depth stays the capture's own."""
    before = read_transforms_json(folder)
    applied = np.eye(4)
    applied[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    applied[:3, 3] = 0.5, 0, -2

    def apply(content):
        content.update(applied_transform=applied[:3].tolist(), applied_scale=0.25)
        for entry in content["frames"]:
            moved = applied @ np.array(entry["transform_matrix"])
            moved[:3, 3] *= 0.25
            entry["transform_matrix"] = moved.tolist()

    _change(folder, apply)
    after = read_transforms_json(folder)
    for frame, original in zip(after.frames, before.frames, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=1e-12)
        np.testing.assert_array_equal(frame.depth(), original.depth())


def test_a_mirrored_world_is_mirrored_back(folder):
    before = read_transforms_json(folder).frames[1].T_world_camera

    def mirror(content):
        swap = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], dtype=float)
        content["applied_transform"] = swap.tolist()
        for entry in content["frames"]:
            entry["transform_matrix"] = (np.vstack([swap, [0, 0, 0, 1]]) @ entry["transform_matrix"]).tolist()

    _change(folder, mirror)
    np.testing.assert_allclose(read_transforms_json(folder).frames[1].T_world_camera, before, atol=1e-12)
    _change(folder, lambda content: content.pop("applied_transform"))
    with pytest.raises(FrameError, match="reflection"):
        read_transforms_json(folder)


def test_intrinsics_of_a_frame_go_before_the_common_ones(folder):
    _change(folder, lambda content: content["frames"][2].update(fl_x=30.0, cx=10.0))
    cameras = [frame.intrinsics for frame in read_transforms_json(folder).frames]
    assert cameras[2] == Intrinsics(fx=30.0, fy=21.25, cx=10.0, cy=8.0, width=24, height=16)
    assert cameras[3] == Intrinsics(fx=20.5, fy=21.25, cx=12.0, cy=8.0, width=24, height=16)


def test_an_angle_of_view_instead_of_a_focal_length(folder):
    """90 degrees across 24 pixels: f = 12; the size is the image's own, the principal point its centre."""

    def change(content):
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del content[key]
        content["camera_angle_x"] = math.pi / 2

    _change(folder, change)
    camera = read_transforms_json(folder).frames[0].intrinsics
    assert (camera.fx, camera.fy) == pytest.approx((12.0, 12.0))
    assert (camera.cx, camera.cy, camera.width, camera.height) == (12.0, 8.0, 24, 16)
    _change(folder, lambda content: content.pop("camera_angle_x"))
    with pytest.raises(SceneError, match="no focal length; expected fl_x"):
        read_transforms_json(folder)


def test_names_without_suffix(folder):
    _change(folder, lambda content: content["frames"][0].update(file_path="./images/frame_00001"))
    assert len(read_transforms_json(folder).frames) == 6


def test_frames_without_depth_are_counted(folder):
    _change(folder, lambda content: content["frames"][1].pop("depth_file_path"))
    scene = read_transforms_json(folder)
    assert scene.frames[1].depth() is None
    assert scene.provenance["without_depth"] == 1
    _change(folder, lambda content: [entry.pop("depth_file_path", None) for entry in content["frames"]])
    assert "without_depth" not in read_transforms_json(folder).provenance


def test_smaller_depth_has_intrinsics_of_its_own(folder):
    units = np.full((8, 12), 1500, np.uint16)
    for file in (folder / "depth").iterdir():
        Image.fromarray(units).save(file)
    frame = read_transforms_json(folder).frames[0]
    assert frame.depth_intrinsics == Intrinsics(fx=10.25, fy=10.625, cx=6.0, cy=4.0, width=12, height=8)
    np.testing.assert_array_equal(frame.depth(), np.full((8, 12), 1.5, np.float32))


def test_units_of_depth(folder):
    millimetres = read_transforms_json(folder).frames[0].depth()
    _change(folder, lambda content: content.update(depth_unit_scale_factor=0.00025))
    np.testing.assert_allclose(read_transforms_json(folder).frames[0].depth(), millimetres / 4, rtol=1e-6)
    told = read_transforms_json(folder, depth_unit=0.002).frames[0].depth()
    np.testing.assert_allclose(told, millimetres * 2, rtol=1e-6)


def test_depth_as_an_array(folder):
    depth = np.array([[1.5, np.nan, -1.0], [np.inf, 0.0, 2.0]])
    depth = np.kron(depth, np.ones((8, 8)))
    np.save(folder / "depth" / "one.npy", depth)
    _change(folder, lambda content: content["frames"][0].update(depth_file_path="depth/one.npy"))
    found = read_transforms_json(folder, depth_unit=1.0).frames[0].depth()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[::8, ::8], [[1.5, 0, 0], [0, 0, 2.0]])


def test_arrays_that_are_no_depth(tmp_path):
    file = tmp_path / "d.npy"
    for value, message in (
        (np.array([{"a": 1}], dtype=object), "cannot be read as a depth array"),
        (np.ones(3), r"holds float64 \[3\], expected \[height, width\]"),
        (np.array([["a"]]), "expected .height, width. numbers"),
    ):
        np.save(file, value, allow_pickle=True)
        with pytest.raises(FrameError, match=message):
            read_depth_array(file, unit=1.0)
    np.save(file, np.ones((9, 9)))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(FrameError, match="cannot be read as a depth array"):
        read_depth_array(file, unit=1.0)
    with pytest.raises(FrameError, match="cannot be read"):
        read_depth_array(tmp_path / "none.npy", unit=1.0)


def test_small_distortion_is_noted_and_large_removed(folder):
    before = read_transforms_json(folder).frames[0]
    _change(folder, lambda content: content.update(k1=0.01))
    scene = read_transforms_json(folder)
    assert "not removed; it moves no pixel by more than 0.1 pixels" in scene.provenance["distortion"]
    assert scene.frames[0].intrinsics == before.intrinsics
    _change(folder, lambda content: content.update(k1=-0.2))
    scene = read_transforms_json(folder)
    assert "removed: it moved pixels by up to" in scene.provenance["distortion"]
    frame = scene.frames[0]
    assert (frame.intrinsics.width, frame.intrinsics.height) == (24, 16)
    assert frame.intrinsics.fx < before.intrinsics.fx  # barrel distortion saw more than the pinhole
    assert frame.colour().shape == (16, 24, 3)
    assert set(np.unique(frame.depth())) <= set(np.unique(before.depth()))  # depth is never mixed


@pytest.mark.parametrize("change", [{"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}])
def test_fisheye_pictures_are_straightened(folder, change):
    _change(folder, lambda content: content.update(change))
    scene = read_transforms_json(folder)
    assert "fisheye images were straightened" in scene.provenance["distortion"]
    assert scene.frames[0].colour().shape == (16, 24, 3)


def test_a_lens_of_an_unknown_kind(folder):
    _change(folder, lambda content: content.update(camera_model="EQUIRECTANGULAR"))
    with pytest.raises(SceneError, match=r"camera model EQUIRECTANGULAR, expected.*undistort"):
        read_transforms_json(folder, on_bad_frame="skip")


def _frame(**changes):
    return lambda content: content["frames"][2].update(changes)


def _turned():
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", 20, degrees=True).as_matrix() * 1.5
    return (pose @ GL).tolist()


BAD_FRAMES = {
    "NaN pose": (_frame(transform_matrix=[[math.nan] * 4] * 4), "unusable pose.*NaN"),
    "scaled rotation": (_frame(transform_matrix=_turned()), "not orthonormal"),
    "no pose": (_frame(transform_matrix=None), r"matrix has shape \(\)"),
    "pose in words": (_frame(transform_matrix="identity"), "matrix is unreadable"),
    "ragged pose": (_frame(transform_matrix=[[1, 0], [0]]), "matrix is unreadable|has shape"),
    "wrong size of intrinsics": (_frame(w=48, h=32), "speaks of 48x32 pixels"),
    "focal length in words": (_frame(fl_x="20"), "fl_x is '20', expected a finite number"),
    "infinite focal length": (_frame(fl_x=math.inf), "fl_x is inf"),
    "negative focal length": (_frame(fl_y=-20.0), "positive focal lengths"),
    "principal point outside": (_frame(cx=99.0), "principal point inside"),
    "file outside": (_frame(file_path="../secret.png"), "leads out of the scene's folder"),
    "depth outside": (_frame(depth_file_path="/etc/hosts"), "leads out of the scene's folder"),
    "file is a number": (_frame(file_path=3), "found 3, expected the name of a file"),
    "absent depth": (_frame(depth_file_path="depth/none.png"), "none.png: the depth image does not exist"),
    "colour as depth": (_frame(depth_file_path="images/frame_00003.png"), "not a depth image"),
}


@pytest.mark.parametrize("fault", BAD_FRAMES)
def test_a_bad_frame_stops_or_is_skipped_and_counted(folder, fault):
    change, message = BAD_FRAMES[fault]
    _change(folder, lambda content: change(content) if fault != "file is a number" else None)
    if fault == "file is a number":
        content = json.loads((folder / "transforms.json").read_text())
        content["frames"][2]["file_path"] = 3
        (folder / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(FrameError, match=message) as error:
        read_transforms_json(folder)
    scene = read_transforms_json(folder, on_bad_frame="skip")
    assert len(scene.frames) == 5
    assert list(scene.provenance["skipped"].values()) == [str(error.value)]


def test_the_same_frame_twice(folder):
    _change(folder, lambda content: content["frames"].append(content["frames"][0]))
    with pytest.raises(FrameError, match="'frame_00001' is listed more than once"):
        read_transforms_json(folder)
    scene = read_transforms_json(folder, on_bad_frame="skip")
    assert len(scene.frames) == 6
    assert len(scene.provenance["skipped"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(frames=[]), "found 0 entries under 'frames'"),
        (lambda content: content.pop("frames"), "found NoneType under 'frames'"),
        (lambda content: content.update(frames=["a"]), "found 1 entries"),
        (lambda content: content.update(applied_scale=0), "applied_scale is 0, expected a positive number"),
        (lambda content: content.update(applied_scale=True), "applied_scale is True, expected a finite number"),
        (lambda content: content.update(applied_transform=[[1, 0], [0, 1]]), "applied_transform: the matrix has shape"),
        (lambda content: content.update(applied_transform=(2 * np.eye(4)).tolist()), "applied_transform is not a rot"),
        (lambda content: content["frames"][0].update(depth_path=content["frames"][0].pop("depth_file_path")), "rename"),
    ],
)
def test_a_file_that_cannot_be_used(folder, change, message):
    _change(folder, change)
    with pytest.raises(SceneError, match=message) as error:
        read_transforms_json(folder, on_bad_frame="skip")
    assert str(folder / "transforms.json") in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"frames": 1e9999}', "\x00"])
def test_what_is_no_json(folder, text):
    (folder / "transforms.json").write_text(text)
    with pytest.raises(SceneError, match=r"transforms.json.*(not valid JSON|found float under)"):
        read_transforms_json(folder)
