import shutil

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics, project, unproject
from stereopsis.scenes import verify_scene
from stereopsis.scenes.readers.seven_scenes import DEFAULT_INTRINSICS, read_pose, read_seven_scenes


def test_a_capture_by_hand(make_capture):
    folder = make_capture(frames=3)
    scene = read_seven_scenes(folder)
    assert scene.id == "capture"
    assert [frame.name for frame in scene.frames] == ["frame-000000", "frame-000001", "frame-000002"]
    assert scene.frames[2].intrinsics == Intrinsics(fx=20.0, fy=20.0, cx=12.0, cy=8.0, width=24, height=16)
    assert scene.frames[2].T_world_camera[0, 3] == 0.2
    assert abs(scene.frames[2].colour().mean() - 55.5) < 1
    raw = np.asarray(Image.open(folder / "frame-000002.depth.png"))
    np.testing.assert_array_equal(scene.frames[2].depth(), raw.astype(np.float32) / 1000)
    np.testing.assert_array_equal(scene.T_aligned_world, np.eye(4))
    assert scene.provenance == {"format": "seven_scenes", "path": str(folder), "skipped": {}}


def test_order_is_by_number_and_other_files_are_ignored(make_capture):
    folder = make_capture(frames=2)
    (folder / "SOURCE.txt").write_text("notes")
    (folder / "frame-12.thumbnail.png").write_bytes(b"")
    assert len(read_seven_scenes(folder).frames) == 2


def test_png_colour(make_capture):
    folder = make_capture(frames=2)
    colour = Image.open(folder / "frame-000001.color.jpg")
    colour.save(folder / "frame-000001.color.png")
    (folder / "frame-000001.color.jpg").unlink()
    np.testing.assert_array_equal(read_seven_scenes(folder).frames[1].colour(), np.asarray(colour))


def _spoil_pose(text):
    return lambda stem: stem.with_name(stem.name + ".pose.txt").write_text(text)


def _pose_text(change):
    pose = np.eye(4)
    change(pose)
    return "\n".join(" ".join(str(value) for value in row) for row in pose)


def _save(suffix, array):
    return lambda stem: Image.fromarray(array).save(stem.with_name(stem.name + suffix))


def _truncate(suffix):
    def spoil(stem):
        file = stem.with_name(stem.name + suffix)
        file.write_bytes(file.read_bytes()[:-200])

    return spoil


def _remove(suffix):
    return lambda stem: stem.with_name(stem.name + suffix).unlink()


# What is done to a frame, the file that the message must name, and what it must say.
FAULTS = {
    "missing depth": (_remove(".depth.png"), ".depth.png", "does not exist.*restore the file"),
    "missing colour": (_remove(".color.jpg"), ".color.jpg", "does not exist.*restore the file"),
    "missing pose": (_remove(".pose.txt"), ".pose.txt", "does not exist; expected 4x4 numbers.*restore it"),
    "8-bit depth": (
        _save(".depth.png", np.ones((16, 24), np.uint8)),
        ".depth.png",
        "found PNG L 24x16, expected 16-bit greyscale.*export",
    ),
    "RGB depth": (
        _save(".depth.png", np.ones((16, 24, 3), np.uint8)),
        ".depth.png",
        "found PNG RGB 24x16, expected 16-bit greyscale.*export",
    ),
    "depth of another size": (
        _save(".depth.png", np.ones((8, 12), np.uint16)),
        ".depth.png",
        "depth is 12x8, expected the colour image's 24x16.*resample",
    ),
    "NaN pose": (
        _spoil_pose(_pose_text(lambda p: p.__setitem__((0, 0), np.nan))),
        ".pose.txt",
        "NaN or inf.*correct",
    ),
    "inf pose": (
        _spoil_pose(_pose_text(lambda p: p.__setitem__((1, 3), -np.inf))),
        ".pose.txt",
        "NaN or inf.*correct",
    ),
    "sheared pose": (
        _spoil_pose(_pose_text(lambda p: p.__setitem__((0, 1), 0.02))),
        ".pose.txt",
        "not orthonormal.*tolerance 0.01.*correct",
    ),
    "mirrored pose": (
        _spoil_pose(_pose_text(lambda p: p.__setitem__((2, 2), -1.0))),
        ".pose.txt",
        "reflection.*correct",
    ),
    "3x4 pose": (
        _spoil_pose("1 0 0 0\n0 1 0 0\n0 0 1 0\n"),
        ".pose.txt",
        r"found 3 rows of \[4\] numbers.*expected 4x4",
    ),
    "ragged pose": (
        _spoil_pose("1 0 0 0\n0 1 0\n0 0 1 0\n0 0 0 1"),
        ".pose.txt",
        r"4 rows of \[3, 4\] numbers.*expected 4x4",
    ),
    "empty pose": (_spoil_pose("\n"), ".pose.txt", "found nothing as pose; expected 4x4"),
    "pose in words": (
        _spoil_pose("not a pose"),
        ".pose.txt",
        "unreadable pose.*could not convert.*expected 4x4",
    ),
    "binary pose": (
        lambda s: s.with_name(s.name + ".pose.txt").write_bytes(b"\xff\x00"),
        ".pose.txt",
        "unreadable",
    ),
}
LATE_FAULTS = {
    "truncated JPEG": (_truncate(".color.jpg"), ".color.jpg", "cannot be decoded.*found .* bytes.*again"),
    "truncated depth": (_truncate(".depth.png"), ".depth.png", "cannot be decoded.*found .* bytes.*again"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_frame_stops_or_is_skipped_and_counted(make_capture, fault):
    spoil, file, message = FAULTS[fault]
    folder = make_capture()
    spoil(folder / "frame-000003")
    with pytest.raises(FrameError, match=message) as error:
        read_seven_scenes(folder)
    assert str(folder / f"frame-000003{file}") in str(error.value)
    assert "on_bad_frame='skip'" in str(error.value) or "export" in str(error.value)

    scene = read_seven_scenes(folder, on_bad_frame="skip")
    assert len(scene.frames) == 9
    assert "frame-000003" not in {frame.name for frame in scene.frames}
    assert scene.provenance["skipped"] == {"frame-000003": str(error.value)}
    assert verify_scene(scene).provenance["skipped"] == scene.provenance["skipped"]


@pytest.mark.parametrize("fault", LATE_FAULTS)
def test_a_truncated_image_is_found_when_pixels_are_decoded(make_capture, fault):
    spoil, file, message = LATE_FAULTS[fault]
    folder = make_capture()
    spoil(folder / "frame-000003")
    scene = read_seven_scenes(folder)
    with pytest.raises(FrameError, match=message) as error:
        verify_scene(scene)
    assert str(folder / f"frame-000003{file}") in str(error.value)
    kept = verify_scene(scene, on_bad_frame="skip")
    assert len(kept.frames) == 9
    assert kept.provenance["skipped"] == {"frame-000003": str(error.value)}


def test_too_many_bad_frames_stop_even_when_skipping(make_capture):
    folder = make_capture()
    for index in (1, 2):
        (folder / f"frame-00000{index}.depth.png").unlink()
    assert len(read_seven_scenes(folder, on_bad_frame="skip").frames) == 8
    (folder / "frame-000003.pose.txt").write_text("")
    with pytest.raises(SceneError, match=r"3 of 10 frames are unusable.*20%.*repair") as error:
        read_seven_scenes(folder, on_bad_frame="skip")
    assert "frame-000001.depth.png" in str(error.value)
    assert str(folder) in str(error.value)
    assert len(read_seven_scenes(folder, on_bad_frame="skip", max_bad_fraction=0.5).frames) == 7


def test_no_frame_is_left(make_capture):
    folder = make_capture(frames=2)
    for file in folder.glob("*.pose.txt"):
        file.write_text("")
    with pytest.raises(SceneError, match="2 of 2"):
        read_seven_scenes(folder, on_bad_frame="skip", max_bad_fraction=1.0)


def test_a_frame_of_another_size_than_the_rest(make_capture):
    folder = make_capture()
    _save(".depth.png", np.ones((8, 12), np.uint16))(folder / "frame-000000")
    _save(".color.jpg", np.ones((8, 12, 3), np.uint8))(folder / "frame-000000")
    with pytest.raises(FrameError, match=r"frame-000000.*12x8, expected 24x16 as most frames"):
        read_seven_scenes(folder)
    scene = read_seven_scenes(folder, on_bad_frame="skip")
    assert len(scene.frames) == 9
    assert scene.frames[0].intrinsics.width == 24


def test_zero_frames(tmp_path):
    with pytest.raises(SceneError, match=r"found no frames; expected frame-XXXXXX\.color\.jpg") as error:
        read_seven_scenes(tmp_path)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(SceneError, match=r"no such folder.*check the path"):
        read_seven_scenes(tmp_path / "nowhere")


def test_the_folder_above_the_sequences(tmp_path, make_capture):
    folder = make_capture(frames=1)
    shutil.move(folder, tmp_path / "room" / "seq-01")
    with pytest.raises(SceneError, match="open one of its sequences instead: seq-01"):
        read_seven_scenes(tmp_path / "room")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found nothing as intrinsics; expected 3x3"),
        ("585 0 320\n0 585 240\n", r"2 rows of \[3\] numbers"),
        ("585 0\n0 585\n0 0", r"3 rows of \[2\] numbers"),
        ("nan 0 12\n0 20 8\n0 0 1", "NaN or inf.*correct the file"),
        ("0 0 12\n0 20 8\n0 0 1", "positive.*correct the file"),
        ("20 5 12\n0 20 8\n0 0 1", "skew.*correct the file"),
        ("585 0 320\n0 585 240\n0 0 1", "principal point inside the 24x16 image"),
    ],
)
def test_intrinsics_that_cannot_be(make_capture, text, message):
    folder = make_capture(frames=1)
    (folder / "camera-intrinsics.txt").write_text(text)
    with pytest.raises(SceneError, match=message) as error:
        read_seven_scenes(folder)
    assert str(folder / "camera-intrinsics.txt") in str(error.value)


def test_absent_intrinsics_have_a_default_for_the_data_sets_own_size_only(make_capture):
    folder = make_capture(frames=1, width=640, height=480)
    (folder / "camera-intrinsics.txt").unlink()
    intrinsics = read_seven_scenes(folder).frames[0].intrinsics
    assert intrinsics == DEFAULT_INTRINSICS
    assert intrinsics == Intrinsics(fx=585.0, fy=585.0, cx=320.0, cy=240.0, width=640, height=480)
    other = make_capture(frames=1, name="other")
    (other / "camera-intrinsics.txt").unlink()
    with pytest.raises(SceneError, match=r"camera-intrinsics\.txt: does not exist.*24x16.*write the 3x3"):
        read_seven_scenes(other)


def test_read_pose(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("  1.0e+00 0 0 0.5\n\n0 1 0 0\n0 0 1 0\n0 0 0 1\n\n")
    expected = np.eye(4)
    expected[0, 3] = 0.5
    np.testing.assert_array_equal(read_pose(file), expected)


def test_the_real_kitchen(kitchen):
    scene = read_seven_scenes(kitchen)
    assert len(scene.frames) == 125
    assert scene.provenance["skipped"] == {}
    few = verify_scene(scene.replace(frames=scene.frames[::40]))
    assert few.frames[0].colour().shape == (480, 640, 3)
    depth = few.frames[0].depth()
    assert depth.shape == (480, 640)
    assert 0.5 < np.median(depth[depth > 0]) < 4
    assert depth.max() < 10  # no 65.535 m: the invalid marker is gone


def test_poses_of_the_kitchen_are_camera_to_world(kitchen):
    """Points of frame 300 fall, in frame 500, onto surfaces at the depth that was measured there."""
    frames = {frame.name: frame for frame in read_seven_scenes(kitchen).frames}
    first, second = frames["frame-000304"], frames["frame-000504"]
    cloud = unproject(first.depth(), first.intrinsics, first.T_world_camera)
    seen = project(cloud.points[cloud.valid], second.intrinsics, second.T_world_camera)
    ahead = seen.depth > 0
    columns, rows = np.floor(seen.pixels[ahead]).astype(int).T
    inside = (columns >= 0) & (columns < 640) & (rows >= 0) & (rows < 480)
    measured = second.depth()[rows[inside], columns[inside]]
    known = measured > 0
    error = np.abs(measured[known] - seen.depth[ahead][inside][known])
    assert known.sum() > 10_000
    assert np.median(error) < 0.02
    assert (error < 0.05).mean() > 0.85
