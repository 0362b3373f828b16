import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scannet_files import (
    ALIGNMENT,
    COLOUR_K,
    LOST,
    SCAN,
    TEXT,
    colour_of,
    depth_of,
    frame_bytes,
    plain_frames,
    pose_of,
    sens_bytes,
)

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes import open_scene, verify_scene
from stereopsis.scenes.formats import detect_format
from stereopsis.scenes.readers.scannet import is_scannet, read_scannet
from stereopsis.scenes.stored import write_scene


def test_a_scan_of_a_sens_file(make_scan):
    folder = make_scan()
    assert detect_format(folder) == "scannet"
    scene = open_scene(folder)
    assert scene.id == SCAN
    assert [frame.name for frame in scene.frames] == ["00000", "00001", "00002"]
    frame = pickle.loads(pickle.dumps(scene.frames[1]))
    np.testing.assert_array_equal(frame.colour(), colour_of(1))
    assert frame.depth()[2, 3] == np.float32(3.103)
    assert frame.intrinsics == Intrinsics(fx=5.0, fy=5.5, cx=3.0, cy=2.0, width=6, height=4)
    assert frame.depth_intrinsics == Intrinsics(fx=3.5, fy=3.75, cx=2.0, cy=1.5, width=4, height=3)
    assert frame.T_world_camera[0, 3] == 0.125
    np.testing.assert_array_equal(scene.T_aligned_world, ALIGNMENT)
    assert [item.id for item in scene.objects] == [3, 0]
    assert scene.provenance == {
        "format": "scannet",
        "path": str(folder),
        "skipped": {},
        "frames": {"source": f"{SCAN}.sens", "stored": 3, "every": 1},
        "axis_alignment": f"axisAlignment of {SCAN}.txt",
        "notes": [],
        "scene_type": "Closet",
        "objects": {"skipped": {}, "contested_vertices": 0, "unknown_labels": {}},
        "mesh": str(folder / f"{SCAN}_vh_clean_2.ply"),
    }
    assert verify_scene(scene).frames == scene.frames


@pytest.mark.parametrize(
    "pose", [LOST, np.full((4, 4), np.nan), np.diag([1.0, 1, -1, 1])], ids=["-inf", "NaN", "mirror"]
)
def test_a_lost_pose_stops_or_is_skipped_and_counted(make_scan, pose):
    folder = make_scan(frames=8, poses={5: pose})
    with pytest.raises(FrameError, match=r"\.sens: frame 00005: unusable pose.*on_bad_frame='skip'"):
        read_scannet(folder)
    scene = read_scannet(folder, on_bad_frame="skip")
    assert [frame.name for frame in scene.frames] == ["00000", "00001", "00002", "00003", "00004", "00006", "00007"]
    assert list(scene.provenance["skipped"]) == ["00005"]
    assert scene.provenance["frames"]["stored"] == 8


def test_too_many_lost_poses_stop(make_scan):
    folder = make_scan(frames=4, poses={0: LOST})
    with pytest.raises(SceneError, match=r"1 of 4 frames are unusable.*tolerated 20%"):
        read_scannet(folder, on_bad_frame="skip")
    assert len(read_scannet(folder, on_bad_frame="skip", max_bad_fraction=0.5).frames) == 3


def test_every_so_many_frames(make_scan):
    folder = make_scan(frames=8, poses={1: LOST})
    scene = read_scannet(folder, every=3)  # the lost frame is not among them
    assert [frame.name for frame in scene.frames] == ["00000", "00003", "00006"]
    assert scene.provenance["frames"] == {"source": f"{SCAN}.sens", "stored": 8, "every": 3}
    with pytest.raises(SceneError, match=r"every=0: expected 1"):
        read_scannet(folder, every=0)


def test_an_empty_payload_is_a_bad_frame(make_scan):
    folder = make_scan()
    frames = [*plain_frames(5), frame_bytes(pose_of(5), colour_of(5).tobytes(), b"")]
    (folder / f"{SCAN}.sens").write_bytes(sens_bytes(frames))
    with pytest.raises(FrameError, match=r"frame 00005: its depth payload is empty"):
        read_scannet(folder)
    assert len(read_scannet(folder, on_bad_frame="skip").frames) == 5


def test_a_file_without_frames(make_scan):
    folder = make_scan()
    (folder / f"{SCAN}.sens").write_bytes(sens_bytes([]))
    with pytest.raises(SceneError, match=r"holds no frames; expected at least one"):
        read_scannet(folder)


def test_unregistered_sensors_are_told(make_scan):
    folder = make_scan()
    shifted = np.eye(4)
    shifted[0, 3] = 0.0375
    (folder / f"{SCAN}.sens").write_bytes(sens_bytes(plain_frames(), extrinsics=shifted))
    notes = read_scannet(folder).provenance["notes"]
    assert len(notes) == 1
    assert "extrinsics differ from the identity by up to 0.0375" in notes[0]


def test_intrinsics_of_swapped_sizes_are_refused(make_scan):
    """The colour camera's centre lies outside an image of the depth camera's size."""
    folder = make_scan()
    frames = [frame_bytes(pose_of(0), bytes(18), zlib.compress(bytes(48)))]
    (folder / f"{SCAN}.sens").write_bytes(sens_bytes(frames, colour_size=(2, 3), depth_size=(6, 4)))
    with pytest.raises(SceneError, match=r"colour camera: implausible intrinsics.*inside the 2x3 image"):
        read_scannet(folder)
    data = bytearray(sens_bytes(plain_frames()))
    data[16:20] = struct.pack("<f", np.nan)  # fx, after 12 bytes and a name of 4
    (folder / f"{SCAN}.sens").write_bytes(bytes(data))
    with pytest.raises(SceneError, match=r"colour intrinsics: the matrix holds NaN"):
        read_scannet(folder)


@pytest.mark.parametrize(("kind", "names"), [("posed with depth", "{:05d}"), ("sensreader", "{}")])
def test_exported_frames_with_depth(make_scan, kind, names):
    folder = make_scan(kind, frames=12)
    scene = open_scene(folder)
    assert [frame.name for frame in scene.frames] == [names.format(index) for index in range(12)]  # 2 before 10
    frame = pickle.loads(pickle.dumps(scene.frames[11]))
    np.testing.assert_allclose(frame.colour(), colour_of(11), atol=3)
    expected = depth_of(11) / np.float32(1000)
    expected[0, 1] = 0
    np.testing.assert_array_equal(frame.depth(), expected.astype(np.float32))
    assert frame.T_world_camera[0, 3] == 11 / 8
    assert (frame.intrinsics.fx, frame.depth_intrinsics.fx) == (5.0, 3.5)  # of SCENE.txt
    assert scene.provenance["frames"]["stored"] == 12
    assert "depth" not in scene.provenance


def test_intrinsics_from_a_file_go_before_the_nominal_ones(make_scan):
    folder = make_scan("posed with depth")
    np.savetxt(folder / "posed_images" / "intrinsic.txt", COLOUR_K + np.diag([1.25, 0, 0, 0]))
    scene = read_scannet(folder)
    assert (scene.frames[0].intrinsics.fx, scene.frames[0].depth_intrinsics.fx) == (6.25, 3.5)
    (folder / "intrinsic").mkdir()
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", COLOUR_K[:3, :3] * [[0.5], [0.5], [1]])
    assert read_scannet(folder).frames[0].depth_intrinsics.fx == 2.5
    np.savetxt(folder / "posed_images" / "intrinsic.txt", COLOUR_K * [[3], [1], [1], [1]])
    with pytest.raises(SceneError, match=r"intrinsic.txt: implausible intrinsics.*inside the 6x4 image"):
        read_scannet(folder)


def test_a_sens_file_goes_before_an_export(make_scan, tmp_path):
    folder = make_scan("posed")
    (folder / f"{SCAN}.sens").write_bytes(sens_bytes(plain_frames(5)))
    assert len(read_scannet(folder).frames) == 5


def _pose(text):
    return lambda frames: (frames / "00003.txt").write_text(text)


# What is done to frame 3 of an export, and what the message must say.
FAULTS = {
    "no pose": (lambda frames: (frames / "00003.txt").unlink(), "00003.txt: the pose file does not exist"),
    "lost pose": (_pose("-inf -inf -inf -inf\n" * 4), "00003.txt: unusable pose.*NaN or inf"),
    "pose in words": (_pose("nothing"), "00003.txt: unreadable pose"),
    "no colour": (lambda frames: (frames / "00003.jpg").unlink(), "00003.jpg: the colour image does not exist"),
    "no depth": (lambda frames: (frames / "00003.png").unlink(), "00003.png: the depth image does not exist"),
    "8-bit depth": (
        lambda frames: Image.fromarray(np.ones((3, 4), np.uint8)).save(frames / "00003.png"),
        "00003.png: this is not a depth image",
    ),
    "colour of another size": (
        lambda frames: Image.fromarray(np.ones((8, 6, 3), np.uint8)).save(frames / "00003.jpg"),
        "00003.jpg: the image is 6x8, expected 6x4 as most frames have",
    ),
    "depth of another size": (
        lambda frames: Image.fromarray(np.ones((3, 9), np.uint16)).save(frames / "00003.png"),
        "00003.png: the image is 9x3, expected 4x3 as most frames have",
    ),
    "a truncated header": (lambda frames: (frames / "00003.jpg").write_bytes(b"\xff\xd8\xff"), "cannot be decoded"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_exported_frame_stops_or_is_skipped_and_counted(make_scan, fault):
    spoil, message = FAULTS[fault]
    folder = make_scan("posed with depth", frames=8)
    spoil(folder / "posed_images")
    with pytest.raises(FrameError, match=message):
        read_scannet(folder)
    scene = read_scannet(folder, on_bad_frame="skip")
    assert len(scene.frames) == 7
    assert list(scene.provenance["skipped"]) == ["00003"]


def test_depth_comes_from_the_mesh_where_there_is_none(make_scan, tmp_path):
    pytest.importorskip("embreex")
    scene = open_scene(make_scan("posed"))
    depth = pickle.loads(pickle.dumps(scene.frames[1])).depth()
    np.testing.assert_allclose(depth, 2.0, rtol=1e-6)  # the wall across z = 2
    assert depth.shape == (4, 6)
    assert scene.provenance["depth"]["source"] == "mesh"
    stored = open_scene(write_scene(scene, tmp_path / "stored"))
    np.testing.assert_array_equal(stored.frames[2].depth(), np.float32(2.0))
    assert [item.id for item in stored.objects] == [3, 0]


def test_no_depth_and_no_mesh(make_scan):
    folder = make_scan("posed")
    for suffix in (".aggregation.json", "_vh_clean_2.ply"):
        (folder / f"{SCAN}{suffix}").unlink()
    scene = read_scannet(folder)
    assert [frame.depth() for frame in scene.frames] == [None] * 3


def test_a_scan_without_alignment_stays_in_its_world_and_says_so(make_scan):
    folder = make_scan()
    (folder / f"{SCAN}.txt").write_text(TEXT[TEXT.index("\n") + 1 :])
    scene = read_scannet(folder)
    np.testing.assert_array_equal(scene.T_aligned_world, np.eye(4))
    assert scene.provenance["axis_alignment"].startswith(f"none: neither axisAlignment in {SCAN}.txt nor")
    np.testing.assert_allclose(scene.objects[0].box, [1.25, 1.0, 1.5, 0.5, 2.0, 3.0])
    np.savetxt(folder / "axis_align_matrix.txt", ALIGNMENT)
    scene = read_scannet(folder)
    np.testing.assert_array_equal(scene.T_aligned_world, ALIGNMENT)
    assert scene.provenance["axis_alignment"] == "axis_align_matrix.txt"


def test_a_scan_without_text(make_scan):
    folder = make_scan()
    (folder / f"{SCAN}.txt").unlink()
    assert len(read_scannet(folder).frames) == 3  # the .sens file has its own intrinsics


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("axisAlignment = 0.0", "axisAlignment = zero", "axisAlignment: could not convert.*expected 16 numbers"),
        ("axisAlignment = 0.000000 ", "axisAlignment = ", "axisAlignment is .*expected 16 finite"),
        ("axisAlignment = 0.0", "axisAlignment = nan ", "axisAlignment is|axisAlignment: could not"),
        ("axisAlignment = 0.000000", "axisAlignment = 0.5", "not orthonormal.*row by row"),
        ("fx_color = 5.0", "fx_color = -5.0", "focal lengths -5, 5.5; expected positive"),
        ("colorWidth = 6", "colorWidth = 6.5", "6.5x4 pixels"),
        ("colorWidth = 6", "colorWidth six", "line 3 is 'colorWidth six', expected 'key = value'"),
    ],
)
def test_a_damaged_text(make_scan, old, new, message):
    folder = make_scan()
    assert old in TEXT
    (folder / f"{SCAN}.txt").write_text(TEXT.replace(old, new))
    with pytest.raises(SceneError, match=message) as error:
        read_scannet(folder)
    assert f"{SCAN}.txt" in str(error.value)


def test_text_that_is_no_text(make_scan):
    folder = make_scan()
    (folder / f"{SCAN}.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SceneError, match=r"unreadable.*expected lines of 'key = value'"):
        read_scannet(folder)


def test_an_export_needs_intrinsics_of_its_size(make_scan):
    folder = make_scan("posed")
    (folder / f"{SCAN}.txt").write_text(TEXT.replace("colorWidth = 6", "colorWidth = 12"))
    with pytest.raises(SceneError, match=r"images are 6x4, but SCENE.txt's.*12x4; write.*intrinsic_color.txt"):
        read_scannet(folder)
    (folder / f"{SCAN}.txt").unlink()
    with pytest.raises(SceneError, match=r"no intrinsics for its colour images; expected intrinsic_color.txt"):
        read_scannet(folder)
    (folder / "intrinsic_color.txt").write_text("5 0 3\n0 5 2\n")
    with pytest.raises(SceneError, match=r"found 2 rows of \[3\] numbers as matrix; expected 3x3 or 4x4"):
        read_scannet(folder)
    np.savetxt(folder / "intrinsic_color.txt", COLOUR_K[:3, :3])
    assert read_scannet(folder).frames[0].intrinsics.fy == 5.5


def test_links_that_lead_in_circles(make_scan):
    """Folders are never descended into; a file that links to itself cannot be read."""
    folder = make_scan("posed with depth")
    (folder / "round").symlink_to(folder)
    (folder / "posed_images" / "round").symlink_to(folder)
    assert len(read_scannet(folder).frames) == 3
    (folder / f"{SCAN}.sens").symlink_to(folder / f"{SCAN}.sens")
    assert is_scannet(folder)
    with pytest.raises(SceneError, match=r"\.sens: cannot be read"):
        read_scannet(folder)


def test_no_frames_anywhere(make_scan, tmp_path):
    folder = make_scan("none")
    assert is_scannet(folder)
    with pytest.raises(SceneError, match=f"files of scan {SCAN}, but no frames; expected SCENE.sens, or.*download"):
        read_scannet(folder)
    (folder / "posed_images").mkdir()
    (folder / "posed_images" / "notes.txt").write_text("")
    with pytest.raises(SceneError, match=r"posed_images: found no frames; expected numbered images"):
        read_scannet(folder)
    with pytest.raises(SceneError, match=r"no such folder"):
        read_scannet(tmp_path / "nowhere")


def test_what_counts_as_a_scan(tmp_path, make_capture):
    assert not is_scannet(make_capture(frames=1))
    assert not is_scannet(tmp_path / "nowhere")
    (tmp_path / "posed_images").mkdir()  # the root of a data set, not a scan
    assert not is_scannet(tmp_path)
    (tmp_path / ".scene0001_00.sens.0123456789ab").write_bytes(b"")  # being written
    assert not is_scannet(tmp_path)
    (tmp_path / "scene0001_00.sens").write_bytes(b"")
    assert is_scannet(tmp_path)


def test_one_folder_one_scan(make_scan):
    folder = make_scan()
    (folder / "scene0001_00.aggregation.json").write_text("{}")
    assert read_scannet(folder).id == SCAN  # the folder's own name decides
    other = folder.rename(folder.with_name("renamed"))
    with pytest.raises(SceneError, match=r"files of 2 scans .scene0001_00, scene9999_00."):
        read_scannet(other)
    (other / "scene0001_00.aggregation.json").unlink()
    assert read_scannet(other).id == SCAN
