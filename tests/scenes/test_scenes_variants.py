"""What people's files really look like: each variant is the same room, or a sentence that says what to do."""

import json
import shutil
import struct

import numpy as np
import pytest
from box_room import (
    CAMERA,
    GL,
    K,
    box_room,
    cast,
    quaternion,
    rays_of,
    same_views,
    save_colour,
    save_depth,
    save_text,
    table,
    write_scannet_export,
    write_seven_scenes,
    write_transforms,
)
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.lens import Lens, pinhole_for
from stereopsis.scenes import open_scene, verify_scene, write_scene
from stereopsis.scenes.agreement import depth_agreement
from stereopsis.scenes.conventions import ReadOptions
from stereopsis.scenes.prepare import PrepareSettings, find_captures, prepare, prepare_source

ROOM = box_room()


# Text and names


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_pose_files_with_a_byte_order_mark(encoding, tmp_path):
    write_seven_scenes(tmp_path / "room", ROOM)
    for file in tmp_path.glob("room/*.pose.txt"):
        file.write_bytes(file.read_text().replace("\n", "\r\n").encode(encoding))
    same_views(open_scene(tmp_path / "room"), ROOM)


def test_numbers_separated_by_commas(tmp_path):
    write_seven_scenes(tmp_path / "room", ROOM)
    for file in tmp_path.glob("room/*.pose.txt"):
        file.write_text(file.read_text().replace(" ", ", "))
    same_views(open_scene(tmp_path / "room"), ROOM)


def test_windows_separators(tmp_path):
    write_transforms(tmp_path / "room", ROOM, listed=lambda name: name.replace("/", "\\"))
    same_views(open_scene(tmp_path / "room"), ROOM)


@pytest.mark.parametrize("name", ["..\\..\\secret.png", "C:\\images\\0.png", "images\\..\\..\\secret.png"])
def test_windows_separators_do_not_lead_out(name, tmp_path):
    content = write_transforms(tmp_path / "room", ROOM)
    content["frames"][0]["file_path"] = name
    save_text(tmp_path / "room/transforms.json", json.dumps(content))
    with pytest.raises(FrameError, match="leads out of the scene's folder"):
        open_scene(tmp_path / "room")


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [
        ("images/{}.JPG", lambda name: name.replace("JPG", "jpg")),
        ("images/{}.jpg", lambda name: name.removesuffix(".jpg")),
        ("Images/{}.png", lambda name: name.replace("Images", "images")),
        ("images/e\u0301{}.png", lambda name: name.replace("e\u0301", "\u00e9")),
    ],
)
def test_names_that_differ_in_nothing_but_spelling(on_disk, listed, tmp_path):
    write_transforms(tmp_path / "room", ROOM, colour=on_disk, listed=listed)
    scene = open_scene(tmp_path / "room")
    assert len(scene.frames) == 6
    verify_scene(scene)


def test_a_name_that_fits_two_files(tmp_path):
    write_transforms(tmp_path / "room", ROOM, colour="images/{}.jpg", listed=lambda name: name.removesuffix(".jpg"))
    shutil.copy(tmp_path / "room/images/0.jpg", tmp_path / "room/images/0.png")
    with pytest.raises(FrameError, match=r"'0' fits 0\.jpg and 0\.png"):
        open_scene(tmp_path / "room")


def test_which_file_was_found_instead(tmp_path):
    write_transforms(tmp_path / "room", ROOM, colour="images/{}.jpg", listed=lambda name: name.replace("jpg", "png"))
    with pytest.raises(
        FrameError, match=r"0\.png: the colour image does not exist \(but 0\.jpg does; correct the name"
    ):
        open_scene(tmp_path / "room")


def test_frame_names_keep_every_script_and_can_be_had_back(tmp_path):
    from urllib.parse import unquote

    names = ["厨房 1", "厨房 2", "リビング", "кухня", "दरवाज़ा", "a:b?"]
    content = write_transforms(tmp_path / "room", ROOM)
    for entry, name in zip(content["frames"], names, strict=True):
        old = tmp_path / "room" / entry["file_path"]
        old.rename(old.with_name(f"{name}.png"))
        entry["file_path"] = f"images/{name}.png"
    save_text(tmp_path / "room/transforms.json", json.dumps(content))
    scene = open_scene(tmp_path / "room")
    assert {unquote(frame.name) for frame in scene.frames} == set(names)
    assert "厨房 1" in {frame.name for frame in scene.frames}
    stored = open_scene(write_scene(scene, tmp_path / "stored"))
    assert [frame.name for frame in stored.frames] == [frame.name for frame in scene.frames]


# Ids


def test_the_id_is_the_name_that_was_given(tmp_path):
    write_seven_scenes(tmp_path / "20231104_151133", ROOM)
    (tmp_path / "kitchen").symlink_to(tmp_path / "20231104_151133")
    assert open_scene(tmp_path / "kitchen").id == "kitchen"
    assert open_scene(tmp_path / "kitchen/../kitchen").id == "kitchen"
    (tmp_path / "links").mkdir()
    (tmp_path / "links/bath").symlink_to(tmp_path / "20231104_151133")
    assert [capture.scene_id for capture in find_captures(tmp_path / "links")] == ["bath"]


def test_two_sources_never_share_an_id(tmp_path):
    """Same names in two folders; and two folders that hold the same scan: overwriting must not lose one of them."""
    for folder in ("a/b-c", "a-b/c", "x/c"):
        write_seven_scenes(tmp_path / "in" / folder, ROOM)
    write_scannet_export(tmp_path / "in/copy_one", ROOM)
    write_scannet_export(tmp_path / "in/copy_two", ROOM)
    for copy in ("one", "two"):
        save_text(tmp_path / f"in/copy_{copy}/scene0042_00.aggregation.json", "{}")
        (tmp_path / f"in/copy_{copy}/scene0042_00.aggregation.json").rename(
            tmp_path / f"in/copy_{copy}/scene0042_00_vh_clean.aggregation.json"
        )
    captures = find_captures(tmp_path / "in")
    ids = [capture.scene_id for capture in captures]
    assert len(set(ids)) == 5
    report = prepare(captures, tmp_path / "out", PrepareSettings(), workers=1, overwrite=True)
    assert report.count("done") == 5
    assert len(set(report.folders)) == 5
    for capture, folder in zip(captures, report.folders, strict=True):
        assert open_scene(folder).provenance["prepared"]["source"] == str(capture.path)


# Layouts


@pytest.mark.parametrize(
    "places",
    [
        {"intrinsics": "intrinsics_{}.txt"},
        {"intrinsics": "pose/intrinsic_{}.txt"},
        {"intrinsics": "intrinsics/intrinsic_{}.txt"},
        {"intrinsics": "intrinsic/intrinsic_{}.txt"},
        {"intrinsics": "intrinsics.txt"},
        {"intrinsics": "{}_intrinsics.txt", "pose": "poses"},
    ],
    ids=str,
)
def test_intrinsics_of_scannet_exports(places, tmp_path):
    same_views(open_scene(write_scannet_export(tmp_path / "scene0990_00", ROOM, **places)), ROOM)


def test_upper_case_and_pgm_in_a_scannet_export(tmp_path):
    folder = write_scannet_export(tmp_path / "scene0990_00", ROOM)
    for file in list(folder.glob("color/*.jpg")):
        file.rename(file.with_suffix(".JPG"))
    for file in list(folder.glob("depth/*.png")):
        Image.open(file).save(file.with_suffix(".pgm"))
        file.unlink()
    same_views(open_scene(folder), ROOM)


def test_a_complete_scannet_download_under_another_name(tmp_path):
    """The download holds two aggregations: of the whole mesh and of the reduced one; they name the same scan."""
    folder = write_scannet_export(tmp_path / "my scan", ROOM)
    for name in ("scene0042_00_vh_clean.aggregation.json", "scene0042_00_vh_clean.segs.json"):
        save_text(folder / name, "{}")
    scene = open_scene(folder)
    assert scene.id == "scene0042_00"
    (tmp_path / "link").symlink_to(folder)
    assert open_scene(tmp_path / "link").id == "scene0042_00"
    same_views(scene, ROOM)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png"])
def test_suffixes_of_seven_scenes(suffix, tmp_path):
    same_views(open_scene(write_seven_scenes(tmp_path / "room", ROOM, suffix)), ROOM)


def test_flags_of_transforms_json(tmp_path):
    content = write_transforms(tmp_path / "room", ROOM)
    content["frames"][2]["is_bad"] = True
    content["test_frames"] = [content["frames"].pop()]
    save_text(tmp_path / "room/transforms.json", json.dumps(content))
    scene = open_scene(tmp_path / "room")
    assert [frame.name for frame in scene.frames] == ["0", "1", "3", "4"]
    assert scene.provenance["left_out"] == {"is_bad": 1, "test_frames": 1}


# Depth


def test_floating_point_depth_in_metres_or_millimetres(tmp_path):
    write_transforms(tmp_path / "metres", ROOM, depth="depth/{}.npy")
    same_views(open_scene(tmp_path / "metres"), ROOM)
    write_transforms(tmp_path / "millimetres", ROOM, depth="depth/{}.npy")
    for factor, folder in ((1000, "millimetres"), (30, "neither")):
        if folder == "neither":
            write_transforms(tmp_path / folder, ROOM, depth="depth/{}.npy")
        for file in (tmp_path / folder / "depth").iterdir():
            np.save(file, np.load(file) * np.float32(factor))
    same_views(open_scene(tmp_path / "millimetres"), ROOM)
    with pytest.raises(
        SceneError, match=r"fits neither metres nor millimetres.*depth_unit_scale_factor.*--depth-scale"
    ):
        open_scene(tmp_path / "neither")
    same_views(open_scene(tmp_path / "neither", options=ReadOptions(depth_scale=30.0)), ROOM)


@pytest.mark.parametrize("said", [{"depth_scale": 5000.0}, {"integer_depth_scale": 0.0002}, {"depth_scale": 0.0002}])
def test_third_parties_name_the_unit_otherwise(said, tmp_path):
    content = write_transforms(tmp_path / "room", ROOM, **said)
    for index, frame in enumerate(ROOM.frames):
        save_depth(tmp_path / f"room/depth/{index}.png", frame.depth(), 5000)
    same_views(open_scene(tmp_path / "room"), ROOM)
    assert len(content["frames"]) == 6


def test_an_empty_depth_image_is_counted(tmp_path):
    write_seven_scenes(tmp_path / "room", ROOM)
    save_depth(tmp_path / "room/frame-000003.depth.png", np.zeros((48, 64)))
    scene = verify_scene(open_scene(tmp_path / "room"))
    assert len(scene.frames) == 6
    assert scene.provenance["blank_depth"] == ["frame-000003"]
    outcome = prepare_source(find_captures(tmp_path / "room")[0], tmp_path / "out", PrepareSettings())
    assert outcome.warnings == ("1 of 6 depth images hold nothing: frame-000003",)


def test_a_quarter_of_the_images_missing(tmp_path):
    write_transforms(tmp_path / "room", ROOM)
    for kind in ("images", "depth"):
        (tmp_path / f"room/{kind}/1.png").unlink()
        (tmp_path / f"room/{kind}/2.png").unlink()
    with pytest.raises(SceneError, match=r"2 of 6 frames are unusable.*--max-bad-fraction 0\.4"):
        open_scene(tmp_path / "room", on_bad_frame="skip")
    scene = open_scene(tmp_path / "room", on_bad_frame="skip", max_bad_fraction=0.4)
    assert len(scene.frames) == 4
    assert len(scene.provenance["skipped"]) == 2


@pytest.mark.parametrize("orientation", [6, 8])
def test_pictures_that_are_shown_turned(orientation, tmp_path):
    """Stored 64x48, EXIF says to turn by a quarter, the file was written by a program that did."""
    content = write_transforms(tmp_path / "room", ROOM, colour="images/{}.jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index, frame in enumerate(ROOM.frames):
        save_colour(tmp_path / f"room/images/{index}.jpg", frame, exif=exif)
    content.update(w=48, h=64, cx=CAMERA.cy, cy=CAMERA.cx)
    save_text(tmp_path / "room/transforms.json", json.dumps(content))
    with pytest.raises(FrameError, match=rf"EXIF orientation is {orientation}.*exif_transpose") as error:
        open_scene(tmp_path / "room")
    assert "resize images" not in str(error.value)


# Lenses


@pytest.mark.parametrize(
    "lens",
    [
        Lens(camera=CAMERA, radial=(-0.12, 0.01), tangential=(0.002, -0.003)),
        Lens(camera=CAMERA, fisheye=True, radial=(0.03, -0.01, 0.0, 0.0)),
    ],
    ids=["perspective", "fisheye"],
)
def test_bent_pictures_are_straightened_with_their_depth(lens, tmp_path):
    """Every pixel is cast along the direction that the lens sees there, found by bisection of its own model."""
    x, y = rays_of()[..., 0], rays_of()[..., 1]
    u, v = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    for _ in range(200):
        column, row = lens.distorted(x, y)
        x, y = x - 0.3 * (column - u) / 50, y - 0.3 * (row - v) / 50
    assert np.hypot(*(np.array(lens.distorted(x, y)) - (u, v))).max() < 1e-2
    model = "OPENCV_FISHEYE" if lens.fisheye else "OPENCV"
    keys = dict(zip(("k1", "k2", "k3", "k4"), lens.radial, strict=False))
    content = write_transforms(tmp_path / "room", ROOM, camera_model=model, **keys)
    if not lens.fisheye:
        content.update(p1=lens.tangential[0], p2=lens.tangential[1])
        save_text(tmp_path / "room/transforms.json", json.dumps(content))
    bent = np.stack([x, y, np.ones_like(x)], -1)
    for index, frame in enumerate(ROOM.frames):
        colour, depth = cast(frame.T_world_camera, bent)
        Image.fromarray(colour).save(tmp_path / f"room/images/{index}.png")
        save_depth(tmp_path / f"room/depth/{index}.png", depth)
    scene = open_scene(tmp_path / "room")
    assert "removed" in scene.provenance["distortion"]
    for frame in scene.frames:
        assert frame.intrinsics == pinhole_for(lens)
        exact = cast(frame.T_world_camera, rays_of(frame.intrinsics))[1]
        assert np.median(np.abs(frame.depth() / exact - 1)) < 0.01
        assert (np.abs(frame.depth() / exact - 1) < 0.05).mean() > 0.99
    assert depth_agreement(scene).agreement > 0.99


# COLMAP


def _colmap_text(folder, camera, second="\n"):
    lines = []
    for index, frame in enumerate(ROOM.frames):
        save_colour(folder / f"images/{index}.png", frame)
        save_depth(folder / f"depth/{index}.png", frame.depth())
        inverse = np.linalg.inv(frame.T_world_camera)
        x, y, z, w = quaternion(inverse)
        numbers = " ".join(f"{value:.12f}" for value in (w, x, y, z, *inverse[:3, 3]))
        lines.append(f"{index + 1} {numbers} 1 {index}.png\n{second}")
    save_text(folder / "sparse/0/cameras.txt", camera + "\n")
    save_text(folder / "sparse/0/images.txt", "".join(lines))


PINHOLE = "1 PINHOLE 64 48 50 50 32 24"


@pytest.mark.parametrize("second", ["\n", "", "1.5 2.5 -1\n"])
def test_images_with_empty_absent_and_filled_second_lines(second, tmp_path):
    _colmap_text(tmp_path / "room", PINHOLE, second)
    same_views(open_scene(tmp_path / "room"), ROOM)


def test_second_lines_that_are_there_for_some_only(tmp_path):
    _colmap_text(tmp_path / "room", PINHOLE, "1.5 2.5 -1\n")
    file = tmp_path / "room/sparse/0/images.txt"
    lines = file.read_text().splitlines()
    del lines[5], lines[7]  # of images 3 and 5: what follows them is an image, not points
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(SceneError, match=r"images\.txt, line \d+: found"):
        open_scene(tmp_path / "room")


@pytest.mark.parametrize("camera", ["1 OPENCV 64 48 50 50 32 24 0 0 0 0", "1 SIMPLE_RADIAL 64 48 50 32 24 0"])
def test_bending_lenses_that_do_not_bend(camera, tmp_path):
    _colmap_text(tmp_path / "room", camera)
    same_views(open_scene(tmp_path / "room"), ROOM)


def _colmap_binary(folder, place="sparse/0"):
    _colmap_text(folder, PINHOLE)
    shutil.rmtree(folder / "sparse")
    model = folder / place
    model.mkdir(parents=True)
    cameras = struct.pack("<Q", 1) + struct.pack("<iiQQ4d", 1, 1, 64, 48, 50, 50, 32, 24)
    images, points, number = [struct.pack("<Q", len(ROOM.frames))], [], 0
    for index, frame in enumerate(ROOM.frames):
        inverse = np.linalg.inv(frame.T_world_camera)
        x, y, z, w = quaternion(inverse)
        images.append(struct.pack("<i7di", index + 1, w, x, y, z, *(inverse[:3, 3] / 0.5), 1))
        images.append(f"{index}.png".encode() + b"\0" + struct.pack("<Q", 9))
        for place_ in range(9):
            row, column = 5 * place_ + 2, 6 * place_ + 3
            ray = rays_of()[row, column] * frame.depth()[row, column]
            world = (frame.T_world_camera[:3, :3] @ ray + frame.T_world_camera[:3, 3]) / 0.5
            number += 1
            images.append(struct.pack("<2dq", column + 0.5, row + 0.5, number))
            points.append(struct.pack("<Q3d3BdQ2i", number, *world, 1, 2, 3, 0.1, 1, index + 1, place_))
    (model / "cameras.bin").write_bytes(cameras)
    (model / "images.bin").write_bytes(b"".join(images))
    (model / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + b"".join(points))
    return model


@pytest.mark.parametrize("place", ["sparse/0", "colmap/sparse/0"])
def test_a_binary_model_and_its_measured_unit(place, tmp_path):
    """The model's unit is half a metre; its points meet the depth images and say so."""
    _colmap_binary(tmp_path / "room", place)
    scene = open_scene(tmp_path / "room")
    assert "54 points" in scene.provenance["scale"]
    for frame, original in zip(scene.frames, ROOM.frames, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=2e-3)
        assert frame.intrinsics == original.intrinsics
    told = open_scene(tmp_path / "room", options=ReadOptions(pose_unit=0.5))
    same_views(told, ROOM)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("fault", ["cut", "longer", "count"])
def test_damaged_binary_models(name, fault, tmp_path):
    file = _colmap_binary(tmp_path / "room") / f"{name}.bin"
    data = file.read_bytes()
    changed = {"cut": data[:-3], "longer": data + b"\0", "count": struct.pack("<Q", 2**60) + data[8:]}
    file.write_bytes(changed[fault])
    with pytest.raises(SceneError, match=rf"{name}\.bin: .*expected one of COLMAP's binary model files"):
        open_scene(tmp_path / "room")


def test_generators_are_what_they_say():
    """The files above rest on these: the pose's third axis is the ray of the image's centre; K is the camera's."""
    np.testing.assert_allclose(K, CAMERA.matrix)
    assert table(np.eye(2)) == "1.000000000 0.000000000\n0.000000000 1.000000000\n"
    np.testing.assert_array_equal(GL @ GL, np.eye(4))
