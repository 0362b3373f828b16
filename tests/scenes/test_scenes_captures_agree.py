"""The same frames, written in every capture layout, are the same scene."""

import dataclasses
import pickle

import numpy as np
import pytest
from capture_writers import READERS, WRITERS
from scipy.spatial.transform import Rotation

from stereopsis.errors import SceneError
from stereopsis.scenes import open_scene, verify_scene, write_scene
from stereopsis.scenes.alignment import has_alignment
from stereopsis.scenes.formats import detect_format
from stereopsis.scenes.readers.seven_scenes import read_seven_scenes

LAYOUTS = list(WRITERS)


def _same(found, expected):
    assert len(found.frames) == len(expected)
    for frame, original in zip(found.frames, expected, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=1e-5)
        numbers = [dataclasses.astuple(camera) for camera in (frame.intrinsics, original.intrinsics)]
        np.testing.assert_allclose(*numbers, atol=1e-9)
        assert frame.depth_intrinsics is None
        np.testing.assert_array_equal(frame.colour(), original.colour())
        depth = frame.depth()
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, original.depth(), atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_small_scene(layout, make_scene, tmp_path):
    expected = make_scene(frames=4).frames
    folder = WRITERS[layout](tmp_path / "office", expected)
    assert detect_format(folder) == layout
    scene = open_scene(folder)
    _same(scene, expected)
    assert scene.id == "office"
    assert scene.provenance["format"] == layout
    assert scene.provenance["path"] == str(folder)
    assert scene.provenance["skipped"] == {}
    assert not any(scene.provenance.get("unmatched", {}).values())
    assert not has_alignment(scene)  # none of these layouts says where up is
    names = [frame.name for frame in scene.frames]
    assert len(set(names)) == 4
    assert names == sorted(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_travel_to_other_processes_and_can_be_stored(layout, make_scene, tmp_path):
    scene = READERS[layout](WRITERS[layout](tmp_path / "office", make_scene(frames=2).frames))
    there = pickle.loads(pickle.dumps(scene))
    np.testing.assert_array_equal(there.frames[1].colour(), scene.frames[1].colour())
    stored = open_scene(write_scene(verify_scene(scene), tmp_path / "stored"))
    _same(stored, scene.frames)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_real_kitchen(layout, kitchen, tmp_path):
    """Quaternions hold rotations only; the kitchen's matrices are orthonormal to 4e-4, so they are made so first."""
    expected = []
    for frame in read_seven_scenes(kitchen).frames[::60]:
        pose = frame.T_world_camera.copy()
        pose[:3, :3] = Rotation.from_matrix(pose[:3, :3]).as_matrix()
        expected.append(dataclasses.replace(frame, T_world_camera=pose))
    scene = open_scene(WRITERS[layout](tmp_path / "kitchen", expected))
    assert len(expected) == 3
    _same(scene, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_folder(layout, tmp_path):
    with pytest.raises(SceneError, match=r"no such folder; expected one that holds .*check the path"):
        READERS[layout](tmp_path / "nowhere")


def _images(layout):
    """Where the third frame's colour and depth lie."""
    return {
        "tum": ("rgb/1305031102.066667.png", "depth/1305031102.073667.png"),
        "open3d": ("color/00002.png", "depth/00002.png"),
        "transforms_json": ("images/frame_00003.png", "depth/frame_00003.png"),
        "colmap": ("images/0002.png", "depth/0002.png"),
        "arkitscenes": ("lowres_wide/41069021_305.577.png", "lowres_depth/41069021_305.577.png"),
    }[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_truncated_image_is_found_when_it_is_decoded(layout, which, make_scene, tmp_path):
    folder = WRITERS[layout](tmp_path / "office", make_scene(frames=6).frames)
    file = folder / _images(layout)[which]
    file.write_bytes(file.read_bytes()[:-60])
    scene = READERS[layout](folder)
    with pytest.raises(SceneError, match="cannot be decoded") as error:
        verify_scene(scene)
    assert str(file) in str(error.value)
    kept = verify_scene(scene, on_bad_frame="skip")
    assert len(kept.frames) == 5
    assert kept.provenance["skipped"] == {scene.frames[2].name: str(error.value)}


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "arkitscenes"])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("fault", ["absent", "empty", "a link to itself", "of another size"])
def test_a_listed_image_that_cannot_be_used(layout, which, fault, make_scene, tmp_path):
    folder = WRITERS[layout](tmp_path / "office", make_scene(frames=6).frames)
    file = folder / _images(layout)[which]
    file.unlink()
    if fault == "empty":
        file.write_bytes(b"")
    elif fault == "a link to itself":
        file.symlink_to(file)
    elif fault == "of another size":
        other = make_scene(frames=1, width=30, height=5).frames[0]
        WRITERS["open3d"](tmp_path / "other", [other])
        images = [tmp_path / "other/color/00000.png", tmp_path / "other/depth/00000.png"]
        images[which].rename(file)
    if layout == "open3d" and fault == "absent" and which == 0:
        # Without the third colour image, the log speaks of an image that is not there.
        with pytest.raises(SceneError, match=r"speaks of image 5, but .* holds 5 images"):
            READERS[layout](folder)
        return
    with pytest.raises(SceneError, match=r"does not exist|cannot be decoded|30x5|no image with the number") as error:
        READERS[layout](folder)
    assert file.name in str(error.value)
    scene = READERS[layout](folder, on_bad_frame="skip")
    assert len(scene.frames) == 5
    assert list(scene.provenance["skipped"].values()) == [str(error.value)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_too_many_bad_frames_stop_even_when_skipping(layout, make_scene, tmp_path):
    folder = WRITERS[layout](tmp_path / "office", make_scene(frames=3).frames)
    (folder / _images(layout)[0]).write_bytes(b"")
    with pytest.raises(SceneError, match="1 of 3 frames are unusable"):
        READERS[layout](folder, on_bad_frame="skip")
    assert len(READERS[layout](folder, on_bad_frame="skip", max_bad_fraction=0.5).frames) == 2
