"""Phones' recordings and data sets in the form in which they are published, made of the same room."""

import json
import zipfile

import numpy as np
import pytest
from box_room import CAMERA, GL, K, box_room, quaternion, same_views, save_colour, save_depth, save_text, table
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.lens import Lens
from stereopsis.scenes import open_scene, verify_scene, write_scene
from stereopsis.scenes.agreement import depth_agreement
from stereopsis.scenes.conventions import ReadOptions
from stereopsis.scenes.formats import FORMATS, detect_format, scene_id_at, scenes_at
from stereopsis.scenes.prepare import PrepareSettings, find_captures, prepare_source

ROOM = box_room()
HALF = Intrinsics(fx=25.0, fy=25.0, cx=16.0, cy=12.0, width=32, height=24)


def _small(depth):
    """Depth at half the size: the mean of four would mix, so one of them is taken where the room is flat."""
    return depth[::2, ::2]


def write_replica(folder):
    for index, frame in enumerate(ROOM.frames):
        save_colour(folder / f"results/frame{index:06d}.jpg", frame)
        save_depth(folder / f"results/depth{index:06d}.png", frame.depth(), 6553.5)
    rows = [" ".join(f"{value:.9f}" for value in frame.T_world_camera.ravel()) for frame in ROOM.frames]
    save_text(folder / "traj.txt", "\n".join(rows) + "\n")
    camera = {"w": 64, "h": 48, "fx": 50.0, "fy": 50.0, "cx": 31.5, "cy": 23.5, "scale": 6553.5}
    save_text(folder.parent / "cam_params.json", json.dumps({"camera": camera}))


def write_polycam(folder, corrected=True):
    kind = "corrected_" if corrected else ""
    for index, frame in enumerate(ROOM.frames):
        stamp = 1670000000 + 333 * index
        save_colour(folder / f"keyframes/{kind}images/{stamp}.jpg", frame)
        save_depth(folder / f"keyframes/depth/{stamp}.png", frame.depth())
        pose = frame.T_world_camera @ GL
        entries = {f"t_{row}{column}": pose[row, column] for row in range(3) for column in range(4)}
        camera = {"fx": 50.0, "fy": 50.0, "cx": 32.0, "cy": 24.0, "width": 64, "height": 48, "blur_score": 90.0}
        save_text(folder / f"keyframes/{kind}cameras/{stamp}.json", json.dumps({**camera, **entries}))


def write_matterport(folder):
    lines = ["dataset matterport", f"n_images {len(ROOM.frames)}", "depth_directory undistorted_depth_images"]
    lines += ["color_directory undistorted_color_images", "", "intrinsics_matrix 50 0 32 0 50 24 0 0 1"]
    for index, frame in enumerate(ROOM.frames):
        names = f"abc_d0_{index}.png", f"abc_i0_{index}.jpg"
        save_depth(folder / "undistorted_depth_images" / names[0], frame.depth(), 4000)
        save_colour(folder / "undistorted_color_images" / names[1], frame)
        matrix = " ".join(f"{value:.9f}" for value in (frame.T_world_camera @ GL).ravel())
        lines.append(f"scan {names[0]} {names[1]} {matrix}")
    save_text(folder / "undistorted_camera_parameters/house.conf", "\n".join(lines) + "\n")


def write_3rscan(folder):
    for index, frame in enumerate(ROOM.frames):
        stem = folder / f"sequence/frame-{index:06d}"
        save_colour(stem.with_name(stem.name + ".color.jpg"), frame)
        save_depth(stem.with_name(stem.name + ".depth.pgm"), frame.depth())
        save_text(stem.with_name(stem.name + ".pose.txt"), table(frame.T_world_camera))
    matrix = np.eye(4)
    matrix[:3, :3] = K
    values = " ".join(f"{value:g}" for value in matrix.ravel())
    info = [f"m_{kind}{side} = {size}" for kind in ("color", "depth") for side, size in (("Width", 64), ("Height", 48))]
    info += ["m_versionNumber = 4", "m_sensorName = iPad", "m_depthShift = 1000"]
    info += [f"m_calibration{kind}Intrinsic = {values} " for kind in ("Color", "Depth")]
    save_text(folder / "sequence/_info.txt", "\n".join(info) + "\n")


def write_stray(folder, film=False):
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for index, frame in enumerate(ROOM.frames):
        if not film:
            save_colour(folder / f"rgb/{index:06d}.jpg", frame)
        save_depth(folder / f"depth/{index:06d}.png", frame.depth())
        save_depth(folder / f"confidence/{index:06d}.png", np.full((48, 64), 0.002))
        numbers = [*frame.T_world_camera[:3, 3], *quaternion(frame.T_world_camera)]
        rows.append(f"{index / 60:.6f}, {index:06d}, " + ", ".join(f"{value:.9f}" for value in numbers))
    save_text(folder / "odometry.csv", "\n".join(rows) + "\n")
    save_text(folder / "camera_matrix.csv", "\n".join(",".join(f"{v:g}" for v in row) for row in K) + "\n")
    if film:
        av = pytest.importorskip("av")
        with av.open(str(folder / "rgb.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=60)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
            for frame in ROOM.frames:
                for packet in stream.encode(av.VideoFrame.from_ndarray(frame.colour(), format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)


def _r3d_parts():
    liblzfse = pytest.importorskip("liblzfse")
    poses = []
    for index, frame in enumerate(ROOM.frames):
        pose = frame.T_world_camera @ GL
        poses.append([*quaternion(pose), *pose[:3, 3]])
        picture = __import__("io").BytesIO()
        Image.fromarray(frame.colour()).save(picture, "JPEG", quality=95)
        yield f"rgbd/{index}.jpg", picture.getvalue()
        yield f"rgbd/{index}.depth", liblzfse.compress(_small(frame.depth()).astype("<f4").tobytes())
    metadata = {"w": 64, "h": 48, "dw": 32, "dh": 24, "fps": 60, "K": K.T.ravel().tolist(), "poses": poses}
    yield "metadata", json.dumps(metadata).encode()


def write_record3d(path, packed=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in _r3d_parts():
                archive.writestr(name, data)
    else:
        for name, data in _r3d_parts():
            save_text(path / name, data)


def write_scannetpp(scene, lens):
    lines = []
    for index, frame in enumerate(ROOM.frames):
        save_colour(scene / f"iphone/rgb/frame_{10 * index:06d}.jpg", frame)
        save_depth(scene / f"iphone/depth/frame_{10 * index:06d}.png", frame.depth())
        save_colour(scene / f"dslr/resized_images/DSC{index:05d}.JPG", frame)
        inverse = np.linalg.inv(frame.T_world_camera)
        x, y, z, w = quaternion(inverse)
        numbers = " ".join(f"{value:.12f}" for value in (w, x, y, z, *inverse[:3, 3]))
        lines.append((f"{index + 1} {numbers} 1 ", index))
    save_text(scene / "iphone/colmap/cameras.txt", "1 OPENCV 64 48 50 50 32 24 0 0 0 0\n")
    save_text(
        scene / "iphone/colmap/images.txt", "".join(f"{head}frame_{10 * index:06d}.jpg\n\n" for head, index in lines)
    )
    coefficients = " ".join(map(str, lens.radial))
    save_text(scene / "dslr/colmap/cameras.txt", f"1 OPENCV_FISHEYE 64 48 50 50 32 24 {coefficients}\n")
    save_text(scene / "dslr/colmap/images.txt", "".join(f"{head}DSC{index:05d}.JPG\n\n" for head, index in lines))
    split = {"train": ["DSC00000.JPG"], "test": ["DSC00004.JPG", "DSC00005.JPG"], "has_masks": False}
    save_text(scene / "dslr/train_test_lists.json", json.dumps(split))


WRITERS = {
    "replica": write_replica,
    "polycam": write_polycam,
    "matterport3d": write_matterport,
    "3rscan": write_3rscan,
    "stray_scanner": write_stray,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_the_same_room_from_every_layout(layout, tmp_path):
    folder = tmp_path / "data/den"
    WRITERS[layout](folder)
    assert detect_format(folder) == layout
    scene = open_scene(folder)
    same_views(scene, ROOM)
    assert scene.id == scene_id_at(folder, format=layout) == "den"
    assert scene.provenance["format"] == layout
    assert depth_agreement(scene).agreement > 0.99
    stored = open_scene(write_scene(verify_scene(scene), tmp_path / "stored"))
    same_views(stored, ROOM, metres=2e-3)


@pytest.mark.parametrize("layout", WRITERS)
def test_what_is_said_goes_first_here_too(layout, tmp_path):
    WRITERS[layout](tmp_path / "data/den")
    scene = open_scene(tmp_path / "data/den", options=ReadOptions(depth_scale=500.0, pose="world-to-camera"))
    found = depth_agreement(scene)
    assert found.verdict == "contradict"
    assert scene.provenance["conventions"]["said"] == ["pose", "depth_scale"]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_bad_frame_is_skipped_and_counted(layout, tmp_path):
    WRITERS[layout](tmp_path / "data/den")
    depth = {
        "replica": "results/depth000002.png",
        "polycam": "keyframes/depth/1670000666.png",
        "matterport3d": "undistorted_depth_images/abc_d0_2.png",
        "3rscan": "sequence/frame-000002.depth.pgm",
        "stray_scanner": "depth/000002.png",
    }[layout]
    (tmp_path / "data/den" / depth).write_bytes(b"no image")
    with pytest.raises(FrameError, match="cannot be decoded"):
        open_scene(tmp_path / "data/den")
    scene = open_scene(tmp_path / "data/den", on_bad_frame="skip")
    assert len(scene.frames) == 5
    assert len(scene.provenance["skipped"]) == 1


def test_polycam_without_corrected_poses_and_depth(tmp_path):
    write_polycam(tmp_path / "den", corrected=False)
    (tmp_path / "den/keyframes/depth/1670000666.png").unlink()
    scene = open_scene(tmp_path / "den")
    assert scene.provenance["poses"] == "cameras"
    assert scene.provenance["without_depth"] == 1
    write_polycam(tmp_path / "den")
    assert open_scene(tmp_path / "den").provenance["poses"] == "corrected_cameras"


def test_matterport_counts_rows_from_the_bottom(tmp_path):
    write_matterport(tmp_path / "house")
    file = tmp_path / "house/undistorted_camera_parameters/house.conf"
    file.write_text(file.read_text().replace("intrinsics_matrix 50 0 32 0 50 24", "intrinsics_matrix 50 0 30 0 51 20"))
    camera = open_scene(tmp_path / "house").frames[0].intrinsics
    assert camera == Intrinsics(fx=50.0, fy=51.0, cx=30.0, cy=48.0 - 20.0, width=64, height=48)


def test_replica_without_its_camera(tmp_path):
    write_replica(tmp_path / "room0")
    (tmp_path / "cam_params.json").unlink()
    with pytest.raises(SceneError, match=r"no cam_params\.json here or above, and the images are 64x48"):
        open_scene(tmp_path / "room0")


def test_a_film_is_read_by_number(tmp_path):
    write_stray(tmp_path / "den", film=True)
    scene = open_scene(tmp_path / "den")
    assert (scene.frames[0].intrinsics.width, scene.frames[0].intrinsics.height) == (64, 48)
    for index in (4, 1, 5, 0):  # back and forth
        found, expected = scene.frames[index].colour().astype(int), ROOM.frames[index].colour().astype(int)
        others = [np.abs(found - other.colour()).mean() for other in ROOM.frames]
        assert int(np.argmin(others)) == index
        assert np.abs(found - expected).mean() < 25
    save_text(tmp_path / "den/rgb.mp4", b"no film")
    (tmp_path / "other").mkdir()
    with pytest.raises(SceneError, match="does not exist"):
        open_scene(_without_film(tmp_path))


def _without_film(tmp_path):
    write_stray(tmp_path / "blind", film=True)
    (tmp_path / "blind/rgb.mp4").unlink()
    return tmp_path / "blind"


@pytest.mark.parametrize("packed", [True, False])
def test_record3d(packed, tmp_path):
    path = tmp_path / ("den.r3d" if packed else "den")
    write_record3d(path, packed)
    assert detect_format(path) == "record3d"
    scene = open_scene(path)
    assert scene.id == "den"
    assert len(scene.frames) == 6
    for frame, original in zip(scene.frames, ROOM.frames, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=1e-9)
        assert frame.intrinsics == CAMERA
        assert frame.depth_intrinsics == HALF
        np.testing.assert_array_equal(frame.depth(), _small(original.depth()))
        assert np.abs(frame.colour().astype(int) - original.colour()).mean() < 12
    assert depth_agreement(scene).agreement > 0.97


def test_a_folder_of_recordings(tmp_path):
    for name in ("bath", "den"):
        write_record3d(tmp_path / f"{name}.r3d")
    assert [capture.scene_id for capture in find_captures(tmp_path)] == ["bath", "den"]


@pytest.mark.parametrize("fault", ["no zip", "no metadata", "cut depth", "larger than it says"])
def test_damaged_recordings(fault, tmp_path):
    liblzfse = pytest.importorskip("liblzfse")
    path, parts = tmp_path / "den.r3d", dict(_r3d_parts())
    if fault == "no zip":
        path.write_bytes(b"PK nothing")
    else:
        if fault == "no metadata":
            parts["metadata"] = b"{}"
        parts["rgbd/2.depth"] = {
            "cut depth": parts["rgbd/2.depth"][:40],
            "larger than it says": liblzfse.compress(bytes(40000)),
        }.get(fault, parts["rgbd/2.depth"])
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    message = {"no zip": "cannot be read", "no metadata": "unusable metadata"}.get(fault, r"rgbd/2\.depth: ")
    with pytest.raises(SceneError, match=message):
        verify_scene(open_scene(path))


def test_scannetpp(tmp_path):
    lens = Lens(camera=CAMERA, fisheye=True, radial=(0.02, -0.01, 0.001, 0.0))
    write_scannetpp(tmp_path / "0a5c013435", lens)
    found = scenes_at(tmp_path / "0a5c013435")
    assert found.format == "scannetpp"
    assert [path.name for path in found.paths] == ["iphone", "dslr"]
    phone, dslr = (open_scene(path) for path in found.paths)
    assert [phone.id, dslr.id] == ["0a5c013435_iphone", "0a5c013435_dslr"]
    same_views(phone, ROOM)
    assert phone.frames[1].name == "frame_000010"
    assert [frame.name for frame in dslr.frames] == [f"DSC{index:05d}" for index in range(4)]
    assert dslr.provenance["left_out"] == {"test_frames": 2}
    assert "fisheye images were straightened" in dslr.provenance["distortion"]
    np.testing.assert_allclose(dslr.frames[3].T_world_camera, ROOM.frames[3].T_world_camera, atol=1e-9)
    (tmp_path / "0a5c013435/iphone/depth").rename(tmp_path / "elsewhere")
    with pytest.raises(SceneError, match="extract them with the data set's toolkit"):
        open_scene(found.paths[0])


def test_scannetpp_takes_depth_from_its_mesh(tmp_path):
    pytest.importorskip("embreex")
    import trimesh

    write_scannetpp(tmp_path / "s", Lens(camera=CAMERA, fisheye=True, radial=(0.02, 0.0, 0.0, 0.0)))
    box = trimesh.creation.box(extents=(4.0, 3.0, 2.5))
    box.apply_translation([0, 0, 1.25])
    (tmp_path / "s/scans").mkdir()
    box.export(tmp_path / "s/scans/mesh_aligned_0.05.ply")
    scene = open_scene(tmp_path / "s/dslr")
    assert scene.provenance["depth"]["source"] == "mesh"
    frame = scene.frames[0]
    centre = ROOM.frames[0].depth()[23:25, 31:33].mean()
    found = frame.depth()
    assert found[found.shape[0] // 2, found.shape[1] // 2] == pytest.approx(centre, rel=0.03)


# TUM's and Open3D's relatives


@pytest.mark.parametrize("depth_first", [True, False])
def test_associations_instead_of_two_lists(depth_first, tmp_path):
    """ICL-NUIM: whole numbers as times, depth before colour, poses beside it under a name of its own."""
    pairs, poses = [], []
    for index, frame in enumerate(ROOM.frames):
        save_colour(tmp_path / f"icl/rgb/{index}.png", frame)
        save_depth(tmp_path / f"icl/depth/{index}.png", frame.depth(), 5000)
        sides = [f"{index} depth/{index}.png", f"{index} rgb/{index}.png"]
        pairs.append(" ".join(sides if depth_first else sides[::-1]))
        numbers = [*frame.T_world_camera[:3, 3], *quaternion(frame.T_world_camera)]
        poses.append(f"{index} " + " ".join(f"{value:.9f}" for value in numbers))
    save_text(tmp_path / "icl/associations.txt", "\n".join(pairs) + "\n")
    save_text(tmp_path / "icl/livingRoom2.gt.freiburg", "\n".join(poses) + "\n")
    save_text(tmp_path / "icl/camera.txt", "50 50 31.5 23.5\n")
    assert detect_format(tmp_path / "icl") == "tum"
    same_views(open_scene(tmp_path / "icl"), ROOM)
    # Rendered with y up: camera and world are both mirrored, which the negative focal length says.
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    mirrored = [mirror @ frame.T_world_camera @ mirror for frame in ROOM.frames]
    poses = [
        f"{index} " + " ".join(f"{v:.9f}" for v in [*pose[:3, 3], *quaternion(pose)])
        for index, pose in enumerate(mirrored)
    ]
    save_text(tmp_path / "icl/livingRoom2.gt.freiburg", "\n".join(poses) + "\n")
    save_text(tmp_path / "icl/camera.txt", "50 -50 31.5 23.5\n")
    same_views(open_scene(tmp_path / "icl"), ROOM)


def test_open3ds_own_camera_trajectory(tmp_path):
    parameters = []
    matrix = np.array(K)
    matrix[:2, 2] -= 0.5
    for index, frame in enumerate(ROOM.frames):
        save_colour(tmp_path / f"desk/color/{index:05d}.jpg", frame)
        save_depth(tmp_path / f"desk/depth/{index:05d}.png", frame.depth())
        extrinsic = np.linalg.inv(frame.T_world_camera).T.ravel().tolist()
        intrinsic = {"width": 64, "height": 48, "intrinsic_matrix": matrix.T.ravel().tolist()}
        parameters.append({"class_name": "PinholeCameraParameters", "extrinsic": extrinsic, "intrinsic": intrinsic})
    content = {"class_name": "PinholeCameraTrajectory", "parameters": parameters}
    save_text(tmp_path / "desk/camera_trajectory.json", json.dumps(content))
    scene = open_scene(tmp_path / "desk")
    assert scene.provenance["format"] == "open3d"
    same_views(scene, ROOM)
    content["parameters"][2]["extrinsic"] = [1, 2]
    save_text(tmp_path / "desk/camera_trajectory.json", json.dumps(content))
    with pytest.raises(SceneError, match=r'camera 2: .*expected "parameters"'):
        open_scene(tmp_path / "desk")


def test_every_layout_tells_its_ids_beforehand(tmp_path):
    for layout, write in WRITERS.items():
        write(tmp_path / layout / "den")
        outcome = prepare_source(
            find_captures(tmp_path / layout / "den")[0], tmp_path / "out" / layout, PrepareSettings()
        )
        assert outcome.status == "done", outcome.reason
        assert outcome.folder == tmp_path / "out" / layout / "den"
    assert len({known.name for known in FORMATS}) == len(FORMATS)
