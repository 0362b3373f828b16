import numpy as np
import pytest
from capture_writers import write_colmap

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics, unproject
from stereopsis.scenes.readers.colmap import is_colmap, read_colmap, read_dense_depth


@pytest.fixture
def folder(tmp_path, make_scene):
    return write_colmap(tmp_path / "desk", make_scene(frames=6).frames)


def _images(folder, change):
    """Edit images.txt: a comment, then two lines per image."""
    file = folder / "sparse/0/images.txt"
    lines = file.read_text().split("\n")
    change(lines)
    file.write_text("\n".join(lines))


def _cameras(folder, text):
    (folder / "sparse/0/cameras.txt").write_text(text)


def test_a_world_to_camera_pose_by_hand(folder):
    """x_camera = R x_world + t with R a quarter turn about x (w = x = sqrt 1/2): the centre is -R^T t."""
    half = 0.5**0.5
    _images(folder, lambda lines: lines.__setitem__(1, f"1 {half} {half} 0 0 1 2 3 7 0000.png"))
    pose = read_colmap(folder).frames[0].T_world_camera
    np.testing.assert_allclose(pose[:3, :3], [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    np.testing.assert_allclose(pose[:3, 3], [-1, -3, 2], atol=1e-12)


def test_the_unit_is_said_and_scales_positions(folder):
    scene, twice = read_colmap(folder), read_colmap(folder, metres_per_unit=2.0)
    assert "1 metre per unit of the model, assumed" in scene.provenance["scale"]
    assert "arbitrary unit" in scene.provenance["scale"]
    assert "2 metres per unit" in twice.provenance["scale"]
    for frame, larger in zip(scene.frames, twice.frames, strict=True):
        np.testing.assert_allclose(larger.T_world_camera[:3, 3], 2 * frame.T_world_camera[:3, 3], atol=1e-12)
        np.testing.assert_allclose(larger.T_world_camera[:3, :3], frame.T_world_camera[:3, :3], atol=1e-12)
        np.testing.assert_array_equal(larger.depth(), frame.depth())  # millimetres as they are
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(SceneError, match="expected a positive number of metres"):
            read_colmap(folder, metres_per_unit=wrong)


def _observe(folder, frames, unit, *, points=40, noise=0.0, seed=0):
    """Points on the surfaces that depth shows, as if matched; then the model's unit is made `unit` metres."""
    generator = np.random.default_rng(seed)
    lines, points3d, number = (folder / "sparse/0/images.txt").read_text().split("\n"), ["# 3D point list\n"], 100
    for index, frame in enumerate(frames):
        depth, camera = frame.depth(), frame.intrinsics
        cloud = unproject(depth, camera, frame.T_world_camera).points
        observed = []
        for row, column in generator.permutation(np.argwhere(depth > 0))[:points]:
            stretch = 1 + noise * generator.standard_normal()
            centre = frame.T_world_camera[:3, 3]
            x, y, z = (centre + (cloud[row, column] - centre) * stretch) / unit
            observed.append(f"{column + 0.5} {row + 0.5} {number} {column + 0.5} {row + 0.5} -1")
            points3d.append(f"{number} {x} {y} {z} 1 2 3 0.5 1 2 2 4\n")
            number += 1
        words = lines[1 + 2 * index].split()
        words[5:8] = [str(float(word) / unit) for word in words[5:8]]
        lines[1 + 2 * index : 3 + 2 * index] = [" ".join(words), " ".join(observed)]
    (folder / "sparse/0/images.txt").write_text("\n".join(lines))
    (folder / "sparse/0/points3D.txt").write_text("".join(points3d))


@pytest.mark.parametrize("unit", [0.37, 12.5])
def test_the_unit_is_measured_where_depth_meets_points(folder, make_scene, unit):
    frames = make_scene(frames=6).frames
    _observe(folder, frames, unit, noise=0.01)
    scene = read_colmap(folder)
    assert f"{unit:.2g}"[:3] in scene.provenance["scale"]
    assert "240 points" in scene.provenance["scale"]
    for frame, original in zip(scene.frames, frames, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=2e-3)
    told = read_colmap(folder, metres_per_unit=unit)
    np.testing.assert_allclose(told.frames[5].T_world_camera, frames[5].T_world_camera, atol=1e-9)


def test_a_metric_model_stays_as_it_is(folder, make_scene):
    frames = make_scene(frames=6).frames
    _observe(folder, frames, 1.01)
    before = read_colmap(folder, metres_per_unit=1.0).frames[5].T_world_camera
    scene = read_colmap(folder)
    np.testing.assert_array_equal(scene.frames[5].T_world_camera, before)
    assert (
        "1 metres per unit of the model: depth images over distances of its points give 1.01"
        in (scene.provenance["scale"])
    )


def test_too_few_points_measure_nothing(folder, make_scene):
    _observe(folder, make_scene(frames=6).frames, 0.5, points=3)
    assert "assumed" in read_colmap(folder).provenance["scale"]


def test_depth_and_model_that_disagree(folder, make_scene):
    _observe(folder, make_scene(frames=6).frames, 0.5, noise=0.5)
    with pytest.raises(SceneError, match=r"points disagree at every scale .*say metres_per_unit"):
        read_colmap(folder)
    assert len(read_colmap(folder, metres_per_unit=0.5).frames) == 6


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("points3D.txt", "100 1 2\n", "line 1: found '100 1 2'; expected POINT3D_ID X Y Z"),
        ("points3D.txt", "# none\n", "points file is empty"),
        ("points3D.txt", "a 1 2 3 0 0 0 0\n", "line 1: found 'a 1 2 3"),
        ("images.txt", None, "line 2: cannot reshape.*expected X Y POINT3D_ID"),
    ],
)
def test_points_that_cannot_be_read(folder, make_scene, file, text, message):
    _observe(folder, make_scene(frames=6).frames, 0.5)
    if text is not None:
        (folder / "sparse/0" / file).write_text(text)
    else:
        _images(folder, lambda lines: lines.__setitem__(2, "1.0 2.0"))
    with pytest.raises(SceneError, match=message):
        read_colmap(folder)


def test_a_broken_depth_image_does_not_stop_the_measurement(folder, make_scene):
    _observe(folder, make_scene(frames=6).frames, 0.37)
    file = folder / "depth/0000.png"
    file.write_bytes(file.read_bytes()[:-60])
    assert "200 points" in read_colmap(folder).provenance["scale"]


def test_cameras_of_both_pinhole_models(folder):
    _cameras(folder, "# comment\n7 SIMPLE_PINHOLE 24 16 20.5 11.0 8.0\n9 PINHOLE 24 16 20 21 12 8\n")
    _images(folder, lambda lines: lines.__setitem__(3, lines[3].replace(" 7 0001", " 9 0001")))
    first, second, third = (frame.intrinsics for frame in read_colmap(folder).frames[:3])
    assert first == third == Intrinsics(fx=20.5, fy=20.5, cx=11.0, cy=8.0, width=24, height=16)
    assert second == Intrinsics(fx=20.0, fy=21.0, cx=12.0, cy=8.0, width=24, height=16)


@pytest.mark.parametrize("place", [".", "sparse", "colmap/sparse/0"])
def test_places_of_the_model(folder, place):
    assert is_colmap(folder)
    for name in ("cameras.txt", "images.txt"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / "sparse/0" / name).rename(folder / place / name)
    assert is_colmap(folder)
    assert len(read_colmap(folder).frames) == 6


def test_half_a_model_is_none(folder):
    (folder / "sparse/0/cameras.txt").unlink()
    assert not is_colmap(folder)
    with pytest.raises(SceneError, match="found no COLMAP model"):
        read_colmap(folder)


def test_names_with_folders_and_blanks_and_order(folder):
    (folder / "images/cam a").mkdir()
    (folder / "depth/cam a").mkdir()
    for kind in ("images", "depth"):
        (folder / kind / "0003.png").rename(folder / kind / "cam a" / "10.png")
        (folder / kind / "0004.png").rename(folder / kind / "cam a" / "9.png")

    def rename(lines):
        lines[7] = lines[7].replace("0003.png", "cam a/10.png")
        lines[9] = lines[9].replace("0004.png", "cam a/9.png")

    _images(folder, rename)
    assert [frame.name for frame in read_colmap(folder).frames] == ["0000", "0001", "0002", "0005", "9", "10"]


def test_depth_named_after_the_whole_file_name(folder):
    for file in list((folder / "depth").iterdir()):
        file.rename(file.with_name(file.name + ".png"))
    assert read_colmap(folder).frames[0].depth().shape == (16, 24)


def test_no_depth_at_all(folder):
    (folder / "depth").rename(folder / "elsewhere")
    assert read_colmap(folder).frames[0].depth() is None


def _dense(folder, depth, kind="geometric"):
    """COLMAP writes values row by row; x runs fastest."""
    file = folder / "stereo/depth_maps" / f"0000.png.{kind}.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    file.write_bytes(f"{width}&{height}&1&".encode() + depth.astype("<f4").tobytes())
    return file


def test_colmaps_own_depth_maps(folder):
    (folder / "depth").rename(folder / "elsewhere")
    _images(folder, lambda lines: lines.__delitem__(slice(3, None)))
    depth = np.arange(96, dtype=np.float32).reshape(8, 12) / 8 - 1
    depth[7, 11] = np.nan
    _dense(folder, np.ones((8, 12)), kind="photometric")
    assert read_colmap(folder).frames[0].depth().max() == 1
    _dense(folder, depth)
    frame = read_colmap(folder, metres_per_unit=3.0).frames[0]
    expected = np.where(np.isfinite(depth) & (depth > 0), depth, 0) * 3
    np.testing.assert_array_equal(frame.depth(), expected)
    assert frame.depth_intrinsics == frame.intrinsics.resized(12, 8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-4], "holds 1532 bytes of values, expected 1536 for 24x16"),
        (lambda data: data + b"0000", "holds 1540 bytes"),
        (lambda data: data.replace(b"&1&", b"&3&"), "is no depth map"),
        (lambda data: b"0&0&1&", "expected 0 for 0x0"),
        (lambda data: b"999999&999999&1&" + data, "expected 3999992000004 for 999999x999999"),
        (lambda data: b"", "is no depth map; expected 'width&height&1&'"),
    ],
)
def test_damaged_depth_maps(folder, spoil, message):
    file = _dense(folder, np.ones((16, 24)))
    assert read_dense_depth(file).shape == (16, 24)
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(FrameError, match=message):
        read_dense_depth(file)
    with pytest.raises(FrameError, match="cannot be read"):
        read_dense_depth(file.with_name("none.bin"))


BAD_LINES = {
    "NaN quaternion": ("3 1 0 nan 0 0 0 0 7 0002.png", "line 6: unusable pose: .*NaN"),
    "zero quaternion": ("3 0 0 0 0 0 0 0 7 0002.png", "line 6: unusable pose: .*length 0"),
    "infinite position": ("3 1 0 0 0 inf 0 0 7 0002.png", "line 6: unusable pose: .*inf"),
    "pose in words": ("3 1 0 0 0 a b c 7 0002.png", "line 6: unusable pose: could not convert"),
    "unknown camera": ("3 1 0 0 0 0 0 0 8 0002.png", "line 6: names camera 8, but cameras.txt has 7"),
    "path that leads out": ("3 1 0 0 0 0 0 0 7 ../../secret.png", "line 6: .*leads out of the scene's folder"),
    "absent image": ("3 1 0 0 0 0 0 0 7 none.png", r"images.none.png: .*does not exist|depth.none.png: .*not exist"),
    "twice the same": ("3 1 0 0 0 0 0 0 7 0001.png", "'0001' is listed more than once"),
}


@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_bad_frame_stops_or_is_skipped_and_counted(folder, fault):
    text, message = BAD_LINES[fault]
    _images(folder, lambda lines: lines.__setitem__(5, text))
    with pytest.raises(FrameError, match=message) as error:
        read_colmap(folder)
    scene = read_colmap(folder, on_bad_frame="skip")
    assert len(scene.frames) == 5
    assert list(scene.provenance["skipped"].values()) == [str(error.value)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.clear(), "images file is empty"),
        (lambda lines: lines.__delitem__(2), "line 4: found '.*'; expected IMAGE_ID QW"),
        (lambda lines: lines.__setitem__(3, "2 1 0 0 0"), "line 4: found '2 1 0 0 0'; expected IMAGE_ID QW"),
    ],
)
def test_an_image_list_that_cannot_be_read(folder, change, message):
    """Lines 3 and 5 hold the points of images 1 and 2: without the first, the pairs of lines do not fit any more."""
    _images(folder, change)
    with pytest.raises(SceneError, match=message):
        read_colmap(folder, on_bad_frame="skip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cameras file is empty"),
        (
            "7 FOV 24 16 20 20 12 8 0.01\n",
            r"camera model FOV, expected one of SIMPLE_PINHOLE, PINHOLE.*image_undistorter",
        ),
        ("7 OPENCV 24 16 20 20 12 8 0 0 0\n", "found 9 numbers, not 10"),
        ("7 PINHOLE 24 16 20 12 8\n", "found 5 numbers, not 6; expected CAMERA_ID MODEL"),
        ("7 PINHOLE 24 16 20 20 nan 8\n", "found NaN or inf"),
        ("7 PINHOLE 24 16 20 20 99 8\n", "principal point inside the 24x16"),
        ("7 PINHOLE\n", "found '7 PINHOLE'"),
    ],
)
def test_cameras_that_cannot_be_used(folder, text, message):
    _cameras(folder, text)
    with pytest.raises(SceneError, match=message) as error:
        read_colmap(folder, on_bad_frame="skip")
    assert "cameras.txt" in str(error.value)


def test_images_of_another_size_than_their_camera(folder):
    _cameras(folder, "7 PINHOLE 48 32 40 40 24 16\n")
    with pytest.raises(FrameError, match=r"image is 24x16, but camera 7 of .*cameras.txt speaks of 48x32 pixels"):
        read_colmap(folder)
