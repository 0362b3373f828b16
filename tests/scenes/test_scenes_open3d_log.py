import json

import numpy as np
import pytest
from capture_writers import write_open3d

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes.readers.open3d_log import is_open3d_log, read_open3d_log


@pytest.fixture
def folder(tmp_path, make_scene):
    return write_open3d(tmp_path / "desk", make_scene(frames=6).frames)


def _log(folder, change):
    file = folder / "trajectory.log"
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("\n".join(lines) + "\n")


def test_a_pose_by_hand(folder):
    """The log's matrices are camera to world as they stand, the intrinsics column by column."""
    rows = ["1 0 0 10", "0 0 -1 20", "0 1 0 30", "0 0 0 1"]
    _log(folder, lambda lines: lines.__setitem__(slice(1, 5), rows))
    frame = read_open3d_log(folder).frames[0]
    np.testing.assert_array_equal(frame.T_world_camera, [[1, 0, 0, 10], [0, 0, -1, 20], [0, 1, 0, 30], [0, 0, 0, 1]])
    assert frame.name == "00000"
    content = json.loads((folder / "intrinsic.json").read_text())
    assert content["intrinsic_matrix"][6:8] == [11.5, 7.5]
    assert (frame.intrinsics.fx, frame.intrinsics.fy, frame.intrinsics.cx, frame.intrinsics.cy) == (20.5, 21.25, 12, 8)


def test_images_without_pose_are_counted_and_numbers_choose_the_image(folder):
    _log(folder, lambda lines: lines.__delitem__(slice(5, 15)))
    scene = read_open3d_log(folder)
    assert [frame.name for frame in scene.frames] == ["00000", "00003", "00004", "00005"]
    assert scene.provenance["unmatched"] == {"colour without pose": 2}


def test_redwood_names_and_places(folder, tmp_path):
    """image/0000001-000033.jpg beside depth/0000001-000047.png; ten comes after nine; the log in scene/."""
    (folder / "color").rename(folder / "image")
    for kind, delay in (("image", 33), ("depth", 47)):
        for index in range(6):
            number = index + 5
            (folder / kind / f"{index:05d}.png").rename(folder / kind / f"{number}-{number * delay}.png")
    (folder / "scene").mkdir()
    (folder / "trajectory.log").rename(folder / "scene" / "trajectory.log")
    (folder / "intrinsic.json").rename(folder / "camera_intrinsic.json")
    assert is_open3d_log(folder)
    expected = read_open3d_log(write_open3d(tmp_path / "again", read_open3d_log(folder).frames))
    scene = read_open3d_log(folder)
    assert [frame.name for frame in scene.frames][4:] == ["9-297", "10-330"]
    for frame, original in zip(scene.frames, expected.frames, strict=True):
        np.testing.assert_array_equal(frame.depth(), original.depth())
    np.testing.assert_allclose(scene.frames[5].T_world_camera[0, 3], 0.5)


def test_names_without_numbers_pair_by_order_or_not_at_all(folder):
    for kind in ("color", "depth"):
        for index in range(6):
            (folder / kind / f"{index:05d}.png").rename(folder / kind / f"{'abcdef'[index]}_{kind}.png")
    scene = read_open3d_log(folder)
    assert len(scene.frames) == 6
    (folder / "depth" / "c_depth.png").unlink()
    with pytest.raises(SceneError, match="6 colour and 5 depth images, whose names do not tell which belong together"):
        read_open3d_log(folder)


def test_a_missing_depth_image_is_a_bad_frame(folder):
    (folder / "depth/00001.png").unlink()
    with pytest.raises(FrameError, match=r"no image with the number of 00001\.png.*restore it"):
        read_open3d_log(folder)
    assert list(read_open3d_log(folder, on_bad_frame="skip").provenance["skipped"]) == ["00001"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nan 0 0 0", "line 11: unusable pose.*NaN"),
        ("5 0 0 0", "line 11: unusable pose.*not orthonormal"),
        ("-1 0 0 0", "line 11: unusable pose.*(reflection|orthonormal)"),
    ],
)
def test_a_bad_pose_is_a_bad_frame(folder, row, message):
    _log(folder, lambda lines: lines.__setitem__(slice(11, 15), [row, "0 1 0 0", "0 0 1 0", "0 0 0 1"]))
    with pytest.raises(FrameError, match=message):
        read_open3d_log(folder)
    scene = read_open3d_log(folder, on_bad_frame="skip")
    assert list(scene.provenance["skipped"]) == ["00002"]


def test_the_same_image_twice(folder):
    _log(folder, lambda lines: lines.__setitem__(10, "1 1 2"))
    with pytest.raises(FrameError, match=r"frame '00001' is listed more than once.*remove the repeated"):
        read_open3d_log(folder)
    scene = read_open3d_log(folder, on_bad_frame="skip")
    assert list(scene.provenance["skipped"]) == ["00001 (entry 3)"]
    assert scene.provenance["unmatched"] == {"colour without pose": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.clear(), "trajectory file is empty"),
        (lambda lines: lines.__delitem__(-1), "the file ends after 3 of 4 matrix lines"),
        (lambda lines: lines.__delitem__(7), r"found [34] numbers, not [34]"),
        (lambda lines: lines.__setitem__(5, "0.5 1 2"), "line 6: found '0.5 1 2' as the numbers of a pose"),
        (lambda lines: lines.__setitem__(5, "99 99 100"), "line 6: speaks of image 99, but .* holds 6 images"),
        (lambda lines: lines.__setitem__(6, "a b c d"), "line 7: could not convert"),
    ],
)
def test_a_log_that_cannot_be_read(folder, change, message):
    _log(folder, change)
    with pytest.raises(SceneError, match=message):
        read_open3d_log(folder, on_bad_frame="skip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "intrinsic.json: does not exist; expected width, height and intrinsic_matrix"),
        ("{", "not valid JSON"),
        ("[1, 2]", "holds a JSON list; expected an object"),
        ('{"width": 24, "height": 16}', "'intrinsic_matrix' is missing"),
        ('{"width": 24, "height": 16, "intrinsic_matrix": [1, 2]}', "cannot reshape"),
        ('{"width": 24, "height": 16, "intrinsic_matrix": [20, 0, 12, 0, 20, 8, 0, 0, 1]}', "skew or a wrong row"),
        ('{"width": 4, "height": 3, "intrinsic_matrix": [20, 0, 0, 0, 20, 0, 12, 8, 1]}', "principal point inside"),
        ('{"width": 48, "height": 32, "intrinsic_matrix": [20, 0, 0, 0, 20, 0, 12, 8, 1]}', "speaks of 48x32 pixels"),
    ],
)
def test_intrinsics_that_cannot_be(folder, text, message):
    (folder / "intrinsic.json").unlink()
    if text is not None:
        (folder / "intrinsic.json").write_text(text)
    with pytest.raises(SceneError, match=message) as error:
        read_open3d_log(folder)
    assert str(folder / "intrinsic.json") in str(error.value)
