import json

import numpy as np
import pytest
from capture_writers import write_arkitscenes
from scipy.spatial.transform import Rotation

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.boxes import box_corners
from stereopsis.geometry.camera import transform
from stereopsis.scenes import verify_scene
from stereopsis.scenes.alignment import has_alignment
from stereopsis.scenes.formats import open_scene
from stereopsis.scenes.readers.arkitscenes import is_arkitscenes, read_arkitscenes
from stereopsis.scenes.stored import write_scene


@pytest.fixture
def folder(tmp_path, make_scene):
    return write_arkitscenes(tmp_path / "41069021", make_scene(frames=6).frames)


def _trajectory(folder, change):
    file = folder / "lowres_wide.traj"
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("\n".join(lines))


def _box(centre, sides, axes, label="chair", uid="u"):
    shape = {"centroid": list(centre), "axesLengths": list(sides), "normalizedAxes": np.ravel(axes).tolist()}
    return {"uid": uid, "label": label, "segments": {"obbAligned": shape}}


def _annotate(folder, boxes, name="41069021_3dod_annotation.json"):
    (folder / name).write_text(json.dumps({"data": boxes, "skipped": False}))


def _about_z(degrees):
    """Rows are the box's axes: the first at this angle from the world's x axis."""
    return Rotation.from_euler("z", degrees, degrees=True).as_matrix().T


def test_a_world_to_camera_pose_by_hand(folder):
    """A quarter turn about x, then t = (1, 2, 3): the centre is -R^T t."""
    _trajectory(folder, lambda lines: lines.__setitem__(0, f"305.377 {np.pi / 2} 0 0 1 2 3"))
    pose = read_arkitscenes(folder).frames[0].T_world_camera
    np.testing.assert_allclose(pose[:3, :3], [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    np.testing.assert_allclose(pose[:3, 3], [-1, -3, 2], atol=1e-12)


def test_images_between_two_poses_are_counted(folder):
    """The recordings have 60 images a second and ten poses."""
    _trajectory(folder, lambda lines: lines.__delitem__(slice(1, 3)))
    stamp = "41069021_305.577.png"
    (folder / "lowres_depth" / stamp).unlink()
    scene = read_arkitscenes(folder)
    assert [frame.name for frame in scene.frames] == [f"41069021_305.{n}77" for n in (3, 6, 7, 8)]
    assert scene.provenance["unmatched"] == {
        "colour without depth": 1,
        "depth without colour": 0,
        "colour without pose": 2,
    }


def test_the_layout_of_the_3dod_download(folder, tmp_path):
    """VIDEO/VIDEO_frames/..., the annotation beside the frames' folder; either folder can be opened."""
    video = tmp_path / "Training" / "41069021"
    video.mkdir(parents=True)
    frames = folder.rename(video / "41069021_frames")
    _annotate(video, [_box((0, 0, 0), (1, 1, 1), np.eye(3))])
    for path in (video, frames):
        assert is_arkitscenes(path)
        scene = open_scene(path)
        assert len(scene.frames) == 6
        assert len(scene.objects) == 1
    assert scene.id == "41069021_frames"


def test_boxes_by_hand(folder):
    """Two boxes of one yaw, 30 degrees: aligned, they are their own axis-aligned boxes; the lower one stands at 0."""
    turn = _about_z(30)
    _annotate(
        folder,
        [
            _box((1, 2, -0.5), (2.0, 1.0, 1.0), turn, label="dining_table", uid="a"),
            _box((0, 0, 0.5), (0.4, 0.6, 0.2), turn, label="tv_monitor", uid="b"),
        ],
    )
    scene = read_arkitscenes(folder)
    table, monitor = scene.objects
    assert (table.id, table.label, table.attributes["uid"]) == (0, "dining table", "a")
    assert monitor.label == "tv monitor"
    centre = turn @ [1, 2, 0]
    np.testing.assert_allclose(table.box, [centre[0], centre[1], 0.5, 2.0, 1.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(monitor.box, [0, 0, 1.5, 0.4, 0.6, 0.2], atol=1e-12)
    np.testing.assert_allclose(scene.T_aligned_world @ [0, 0, -1, 1], [0, 0, 0, 1], atol=1e-12)
    assert has_alignment(scene)
    assert scene.provenance["alignment"]["method"] == "given"


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_quarter_turns_of_a_box_change_nothing_but_the_order_of_its_sides(folder, quarter):
    """The yaw is a mean modulo 90 degrees; axes may come in any order and with any sign."""
    sides = (2.0, 1.0, 0.5) if quarter % 2 == 0 else (1.0, 2.0, 0.5)
    _annotate(
        folder,
        [
            _box((1, 2, 0.25), (3.0, 1.0, 0.5), _about_z(20)),
            _box((1, 2, 0.25), sides, _about_z(20 + 90 * quarter)),
            _box((1, 2, 0.25), (0.5, *sides[:2]), np.roll(_about_z(20 + 90 * quarter), 1, axis=0)),
        ],
    )
    boxes = [item.box for item in read_arkitscenes(folder).objects]
    np.testing.assert_allclose(boxes[1][3:], [2.0, 1.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(boxes[2], boxes[1], atol=1e-12)


def test_an_odd_box_is_enclosed_and_kept_as_it_was(folder):
    """One large box decides the yaw; a small one at 45 degrees to it grows by sqrt 2, its oriented box is kept."""
    _annotate(folder, [_box((0, 0, 0), (40, 10, 2), _about_z(10)), _box((0, 0, 0), (0.5, 0.5, 1), _about_z(55))])
    scene = read_arkitscenes(folder)
    odd = scene.objects[1]
    np.testing.assert_allclose(odd.box[3:], [0.5 * 2**0.5, 0.5 * 2**0.5, 1], rtol=1e-3)
    kept = odd.attributes["oriented_box"]
    corners = np.array(kept["centre"]) + (box_corners(np.array([0.0, 0, 0, *kept["sides"]])) @ np.array(kept["axes"]))
    world = transform(np.linalg.inv(scene.T_aligned_world), corners)
    np.testing.assert_allclose(np.abs(world @ _about_z(55).T).max(axis=0), [0.25, 0.25, 0.5], atol=1e-9)


def test_a_scene_with_boxes_can_be_stored(folder, tmp_path):
    _annotate(folder, [_box((1, 2, 0.25), (3.0, 1.0, 0.5), _about_z(20))])
    scene = verify_scene(read_arkitscenes(folder))
    stored = open_scene(write_scene(scene, tmp_path / "stored"))
    np.testing.assert_array_equal(stored.objects[0].box, scene.objects[0].box)
    assert stored.objects[0].attributes == scene.objects[0].attributes


def test_an_annotation_without_boxes(folder):
    _annotate(folder, [])
    scene = read_arkitscenes(folder)
    assert scene.objects == ()
    assert not has_alignment(scene)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "found no list under 'data'"),
        ('{"data": [{"label": "chair"}]}', r"box 0 is unreadable \(KeyError\('segments'\)\)"),
        ('{"data": [3]}', "box 0 is unreadable"),
        (json.dumps({"data": [_box((0, 0), (1, 1, 1), np.eye(3))]}), "box 0 is unreadable .*reshape"),
        (json.dumps({"data": [_box((0, 0, np.nan), (1, 1, 1), np.eye(3))]}), r"box 0 \(chair\): holds NaN or inf"),
        (json.dumps({"data": [_box((0, 0, 0), (1, -1, 1), np.eye(3))]}), "negative sides"),
        (json.dumps({"data": [_box((0, 0, 0), (1, 1, 1), 2 * np.eye(3))]}), "axes that are not orthonormal"),
    ],
)
def test_annotations_that_cannot_be_used(folder, text, message):
    (folder / "41069021_3dod_annotation.json").write_text(text)
    with pytest.raises(SceneError, match=message) as error:
        read_arkitscenes(folder, on_bad_frame="skip")
    assert "41069021_3dod_annotation.json" in str(error.value)


def test_two_annotations(folder):
    for name in ("a_3dod_annotation.json", "b_3dod_annotation.json"):
        _annotate(folder, [], name=name)
    with pytest.raises(SceneError, match="holds 2 annotation files, expected one"):
        read_arkitscenes(folder)


PINCAM = "lowres_wide_intrinsics/41069021_305.577.pincam"
BAD_FRAMES = {
    "absent intrinsics": (None, "no .pincam file within 5 ms of 41069021_305.577.png"),
    "empty intrinsics": ("", "intrinsics file is empty; expected lines with width height fx"),
    "short intrinsics": ("24 16 20 20", "found 4 numbers, not 6; expected width height fx fy cx cy"),
    "NaN focal length": ("24 16 nan 20 12 8", "implausible intrinsics"),
    "NaN width": ("nan 16 20 20 12 8", "is unusable"),
    "infinite width": ("inf 16 20 20 12 8", "is unusable"),
    "another size": ("256 192 200 200 128 96", "image is 24x16, but .*pincam speaks of 256x192 pixels"),
}


@pytest.mark.parametrize("fault", BAD_FRAMES)
def test_bad_intrinsics_are_a_bad_frame(folder, fault):
    text, message = BAD_FRAMES[fault]
    if text is None:
        (folder / PINCAM).unlink()
    else:
        (folder / PINCAM).write_text(text)
    with pytest.raises(FrameError, match=message) as error:
        read_arkitscenes(folder)
    scene = read_arkitscenes(folder, on_bad_frame="skip")
    assert scene.provenance["skipped"] == {"41069021_305.577": str(error.value)}


@pytest.mark.parametrize("values", ["nan 0 0 0 0 0", "0 0 0 inf 0 0"])
def test_a_bad_pose_is_a_bad_frame(folder, values):
    _trajectory(folder, lambda lines: lines.__setitem__(2, f"305.577 {values}"))
    with pytest.raises(FrameError, match=r"lowres_wide.traj, line 3: unusable pose: .*NaN or inf"):
        read_arkitscenes(folder)
    assert list(read_arkitscenes(folder, on_bad_frame="skip").provenance["skipped"]) == ["41069021_305.577"]


def test_nothing_matches(folder):
    _trajectory(folder, lambda lines: lines.__setitem__(slice(None), ["1.0 0 0 0 0 0 0", "2.0 0 0 0 0 0 0"]))
    with pytest.raises(SceneError, match=r"none of 6 colour images \(305.377 to 305.877 s\).*runs from 1.000 to 2.000"):
        read_arkitscenes(folder)


@pytest.mark.parametrize("name", ["lowres_wide", "lowres_depth", "lowres_wide_intrinsics"])
def test_absent_empty_and_misnamed_folders(folder, name):
    moved = folder / name
    moved.rename(folder / "elsewhere")
    with pytest.raises(SceneError, match=f"{name}: no such folder"):
        read_arkitscenes(folder)
    moved.mkdir()
    with pytest.raises(SceneError, match=f"{name}: holds no "):
        read_arkitscenes(folder)
    suffix = "pincam" if name.endswith("intrinsics") else "png"
    (moved / f"first.{suffix}").write_bytes(b"")
    with pytest.raises(SceneError, match=f"expected a name like VIDEO_TIMESTAMP.{suffix}"):
        read_arkitscenes(folder)
