"""Numbers and records that no capture has: found where they are read, or counted as bad frames."""

import json

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes import open_scene
from stereopsis.scenes.bad_frames import stray_cameras, verify_scene
from stereopsis.scenes.rooms import RoomConfig, make_room
from stereopsis.scenes.rooms.language import annotate
from stereopsis.scenes.stored import write_scene

pytest.importorskip("embreex")


@pytest.fixture(scope="module")
def room():
    made = make_room(3, RoomConfig(views=6, width=48, height=36, min_visible_pixels=4))
    return made.replace(annotations=annotate(made, 3))


@pytest.fixture
def transforms(room, tmp_path):
    """A function that writes the room as transforms.json, with a change."""

    def make(change):
        camera, frames = room.frames[0].intrinsics, []
        for number, frame in enumerate(room.frames):
            Image.fromarray(frame.colour()).save(tmp_path / f"{number}.png")
            Image.fromarray(np.rint(frame.depth() * 1000).astype(np.uint16)).save(tmp_path / f"{number}.depth.png")
            pose = frame.T_world_camera @ np.diag([1.0, -1, -1, 1])
            listed = {"file_path": f"{number}.png", "depth_file_path": f"{number}.depth.png"}
            frames.append(listed | {"transform_matrix": pose.tolist()})
        size = {"w": camera.width, "h": camera.height, "cx": camera.cx, "cy": camera.cy}
        content = {"fl_x": camera.fx, "fl_y": camera.fy, **size, "frames": frames}
        change(content)
        (tmp_path / "transforms.json").write_text(json.dumps(content))
        return open_scene(tmp_path)

    return make


@pytest.fixture
def stored(room, tmp_path):
    """A function that writes the room and changes one of its files."""

    def make(name, change):
        write_scene(room, tmp_path / "room", overwrite=True)
        file = tmp_path / "room" / name
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        return open_scene(tmp_path / "room")

    return make


def test_a_sound_capture_has_nothing_of_it(transforms):
    scene = transforms(lambda content: None)
    assert stray_cameras(scene) == {}
    assert len(verify_scene(scene).frames) == 6


@pytest.mark.parametrize("focal", [1e308, 1e-30, -5.0, 48_001.0])
def test_focal_lengths_that_no_lens_has(transforms, focal):
    with pytest.raises(SceneError, match=r"implausible intrinsics|must be positive|expected a positive"):
        transforms(lambda content: content.update(fl_x=focal, fl_y=focal))


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_depth_units_that_nobody_measures_in(transforms, unit):
    with pytest.raises(SceneError, match="depth_scale is"):
        transforms(lambda content: content.update(depth_unit_scale_factor=unit))


def test_one_pose_in_millimetres_is_a_bad_frame(transforms):
    def millimetres(content):
        for row in content["frames"][2]["transform_matrix"][:3]:
            row[3] *= 1000

    scene = transforms(millimetres)
    (reason,) = stray_cameras(scene).values()
    assert "is its pose in another unit?" in reason
    with pytest.raises(FrameError, match=r"stands [0-9]+ m from the middle of the others"):
        verify_scene(scene)
    kept = verify_scene(scene, on_bad_frame="skip")
    assert len(kept.frames) == 5
    assert len(kept.provenance["skipped"]) == 1


def test_a_long_walk_is_no_stray(room):
    frames = [f.replace() if hasattr(f, "replace") else f for f in room.frames]
    line = []
    for number, frame in enumerate(frames):
        pose = frame.T_world_camera.copy()
        pose[:3, 3] = (10.0 * number, 0, 1.5)
        line.append(
            type(frame)(**{**{k: getattr(frame, k) for k in frame.__dataclass_fields__}, "T_world_camera": pose})
        )
    assert stray_cameras(room.replace(frames=tuple(line))) == {}


def test_a_text_is_no_list_of_answers(stored):
    with pytest.raises(SceneError, match=r"annotations.json: .*'answers' must be a list, found 'table'"):
        stored("annotations.json", lambda records: records[0].update(answers="table"))
    with pytest.raises(SceneError, match="answers and options must be texts, found 3"):
        stored("annotations.json", lambda records: records[0].update(answers=[3]))


def test_two_objects_never_share_an_id(stored):
    with pytest.raises(SceneError, match="two objects have the id 1; give each its own"):
        stored("scene.json", lambda content: content["objects"].append(content["objects"][0]))
