import numpy as np
import pytest
from capture_writers import START, write_tum

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes.readers.tum import read_tum


@pytest.fixture
def folder(tmp_path, make_scene):
    return write_tum(tmp_path / "desk", make_scene(frames=6).frames)


def _edit(file, change):
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("\n".join(lines) + "\n")


def test_names_and_order(folder):
    scene = read_tum(folder)
    assert [frame.name for frame in scene.frames][:2] == ["1305031102.000000", "1305031102.033333"]
    assert scene.provenance["trajectory"] == "groundtruth.txt"


def test_poses_are_interpolated_between_neighbours_and_not_over_gaps(folder, make_scene):
    """Samples 25 ms before and after each image, along a line: the middle one; then a gap at the fourth image."""
    file = folder / "groundtruth.txt"
    times = [START + index / 30 for index in range(6)]
    lines = [
        f"{time + shift:.6f} {10 * (time + shift - START):.9f} 0 0 0 0 0 1\n"
        for time in (times[0], times[2], times[5])
        for shift in (-0.025, 0.025)
    ]
    file.write_text("".join(lines))
    scene = read_tum(folder)
    # Between the pairs lie gaps of 17, 50 and 50 ms, all within 0.1 s.
    found = [frame.T_world_camera[0, 3] for frame in scene.frames]
    np.testing.assert_allclose(found, [10 * index / 30 for index in range(6)], atol=1e-4)
    file.write_text("".join(lines[:2] + lines[4:]))
    few = read_tum(folder)
    assert [frame.name for frame in few.frames] == [scene.frames[index].name for index in (0, 5)]
    assert few.provenance["unmatched"] == {"colour without depth": 0, "colour without pose": 4}
    assert few.provenance["skipped"] == {}


def test_depth_farther_than_20_ms_is_no_partner(folder):
    _edit(folder / "depth.txt", lambda lines: lines.__setitem__(2, f"{START + 1 / 30 - 0.022:.6f} depth/none.png"))
    scene = read_tum(folder)
    assert len(scene.frames) == 5
    assert scene.provenance["unmatched"] == {"colour without depth": 1, "colour without pose": 0}


def test_clocks_that_differ(folder):
    text = (folder / "depth.txt").read_text().replace("\n130503", "\n140503")
    (folder / "depth.txt").write_text(text)
    with pytest.raises(SceneError, match=r"none of 6 colour images.*depth runs from 140503.*one clock"):
        read_tum(folder)


def test_other_names_of_the_trajectory(folder):
    (folder / "groundtruth.txt").rename(folder / "KeyFrameTrajectory.txt")
    assert read_tum(folder).provenance["trajectory"] == "KeyFrameTrajectory.txt"
    (folder / "KeyFrameTrajectory.txt").rename(folder / "mine.txt")
    with pytest.raises(SceneError, match=r"found no trajectory; expected one of groundtruth.txt.*add what your SLAM"):
        read_tum(folder)
    assert len(read_tum(folder, trajectory="mine.txt").frames) == 6


def test_cameras_of_the_benchmark_by_the_folders_name(tmp_path, make_scene):
    """Published for pixel centres at whole numbers: half a pixel is added."""
    folder = write_tum(tmp_path / "rgbd_dataset_freiburg1_xyz", make_scene(frames=1, width=640, height=480).frames)
    (folder / "camera.txt").unlink()
    scene = read_tum(folder)
    camera = scene.frames[0].intrinsics
    assert (camera.fx, camera.cx, camera.cy) == pytest.approx((517.306408, 319.14304, 255.813989))
    assert "freiburg1 are distorted" in scene.provenance["distortion"]
    third = folder.rename(tmp_path / "rgbd_dataset_freiburg3_office")
    scene = read_tum(third)
    assert scene.frames[0].intrinsics.fy == 539.2
    assert "distortion" not in scene.provenance


def test_a_camera_file_goes_before_the_folders_name(tmp_path, make_scene):
    scene = read_tum(write_tum(tmp_path / "rgbd_dataset_freiburg2_desk", make_scene(frames=1).frames))
    assert scene.frames[0].intrinsics.fx == 20.5
    assert "distortion" not in scene.provenance


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"camera.txt: does not exist, and the folder's name 'desk' holds none of freiburg1.*write the colour"),
        ("", "camera file is empty; expected lines with fx fy cx cy"),
        ("525 525 319.5\n", "line 1: found 3 numbers, not 4; expected fx fy cx cy"),
        ("525 525 319.5 239.5\n", "principal point inside the 24x16 image"),
        ("nan 525 11.5 7.5\n", "implausible intrinsics"),
        ("-20 20 11.5 7.5\n", "positive focal lengths"),
    ],
)
def test_intrinsics_that_cannot_be(folder, text, message):
    (folder / "camera.txt").unlink()
    if text is not None:
        (folder / "camera.txt").write_text(text)
    with pytest.raises(SceneError, match=message) as error:
        read_tum(folder)
    assert str(folder / "camera.txt") in str(error.value)


BAD_LINES = {
    "NaN quaternion": ("groundtruth.txt", 3, " nan 0 0 1", "line 4: unusable pose.*NaN"),
    "zero quaternion": ("groundtruth.txt", 3, " 0 0 0 0", "line 4: unusable pose.*length 0"),
    "quaternion in another unit": ("groundtruth.txt", 3, " 0 0 0 100", "line 4: unusable pose.*length 100"),
}


@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_bad_pose_is_a_bad_frame(folder, fault):
    file, line, tail, message = BAD_LINES[fault]
    _edit(folder / file, lambda lines: lines.__setitem__(line, " ".join(lines[line].split()[:4]) + tail))
    with pytest.raises(FrameError, match=message):
        read_tum(folder)
    scene = read_tum(folder, on_bad_frame="skip")
    assert list(scene.provenance["skipped"]) == ["1305031102.066667"]
    assert len(scene.frames) == 5


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "rgb/../../secret.png", "rgb/\0.png"])
def test_names_that_lead_out_of_the_folder(folder, name):
    def spoil(lines):
        lines[3] = lines[3].split()[0] + " " + name

    _edit(folder / "rgb.txt", spoil)
    (folder.parent / "secret.png").write_bytes((folder / "rgb/1305031102.000000.png").read_bytes())
    with pytest.raises(FrameError, match=r"rgb.txt, line 4: .*file inside"):
        read_tum(folder)
    assert len(read_tum(folder, on_bad_frame="skip").frames) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.reverse(), "does not come after"),
        (lambda lines: lines.insert(3, lines[2]), "line 4: timestamp .* does not come after .*remove repeated lines"),
        (lambda lines: lines.__setitem__(2, "12.5"), "line 3: found '12.5'; expected timestamp and file name"),
        (lambda lines: lines.__setitem__(2, "noon rgb/1.png"), "line 3: could not convert"),
        (lambda lines: lines.clear(), "image list file is empty"),
    ],
)
def test_an_image_list_that_cannot_be_read(folder, change, message):
    _edit(folder / "rgb.txt", change)
    with pytest.raises(SceneError, match=message) as error:
        read_tum(folder, on_bad_frame="skip")
    assert str(folder / "rgb.txt") in str(error.value)
