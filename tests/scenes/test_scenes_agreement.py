"""The check sees what makes a scene wrong without making it look wrong."""

import dataclasses
import functools

import numpy as np
import pytest
from box_room import box_room, write_seven_scenes

from stereopsis.errors import SceneError
from stereopsis.scenes import open_scene
from stereopsis.scenes.agreement import KEY, RIGHT, checked, depth_agreement, in_words
from stereopsis.scenes.conventions import Conventions
from stereopsis.scenes.prepare import Capture, PrepareSettings, prepare_source
from stereopsis.scenes.readers.seven_scenes import read_seven_scenes
from stereopsis.scenes.scene import Scene

MISTAKES = {
    "--axes opengl": (1000.0, {"axes": "opengl"}),
    "--pose world-to-camera": (1000.0, {"pose": "world-to-camera"}),
    "--quaternion wxyz": (1000.0, {"quaternion": "wxyz"}),
    "--depth-scale 1000": (5000.0, {"depth_scale": 1000.0}),
    "--depth-scale 5000": (1000.0, {"depth_scale": 5000.0}),
    "--depth-scale 6553.5": (1000.0, {"depth_scale": 6553.5}),
    "--depth-scale 1": (1000.0, {"depth_scale": 1.0}),
    "--axes opengl --pose world-to-camera": (1000.0, {"axes": "opengl", "pose": "world-to-camera"}),
}


def _changed(load, factor=1.0, noise=0.0, seed=0):
    depth = load() * np.float32(factor)
    generator = np.random.default_rng(seed)
    return (depth * (1 + noise * generator.standard_normal(depth.shape))).astype(np.float32)


def misread(scene: Scene, mistake: str) -> Scene:
    """The scene as it comes out where its files are read by other conventions than they follow."""
    scale, really = MISTAKES[mistake]
    read = Conventions(quaternion="xyzw", depth_scale=scale)
    true = dataclasses.replace(read, **really)
    frames = tuple(
        dataclasses.replace(
            frame,
            T_world_camera=true.reread(frame.T_world_camera, read),
            load_depth=functools.partial(_changed, frame.load_depth, true.depth_scale / scale),
        )
        for frame in scene.frames
    )
    return scene.replace(frames=frames, provenance=read.record())


def test_a_right_scene_agrees_and_is_not_suspected():
    found = depth_agreement(box_room())
    assert found.verdict == "agree"
    assert found.agreement > 0.99
    assert found.pairs == 5
    assert not found.remedies
    assert not found.reason


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_usual_mistake_is_seen_and_named(mistake):
    found = depth_agreement(misread(box_room(), mistake))
    assert found.verdict == "contradict"
    assert found.remedies[0].options == mistake
    assert found.remedies[0].agreement > 0.99
    assert f"they would agree with {mistake} (100%)" in str(found)
    assert found.agreement is None or found.agreement < 0.75


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_usual_mistake_on_a_real_capture(mistake, kitchen):
    scene = read_seven_scenes(kitchen)
    found = depth_agreement(misread(scene.replace(frames=scene.frames[::12]), mistake))
    assert found.verdict == "contradict"
    options = found.remedies[0].options
    # inverse OpenGL poses and inverse poses are the same up to the world's axes
    assert options == mistake or (mistake.startswith("--axes opengl --pose") and "--pose" in options)


def test_the_real_capture_agrees(kitchen):
    scene = read_seven_scenes(kitchen)
    for frames in (scene.frames, scene.frames[:12], scene.frames[::30]):
        found = depth_agreement(scene.replace(frames=frames))
        assert found.verdict == "agree"
        assert found.agreement > 0.94


def test_noise_and_loose_poses_are_no_contradiction():
    noisy = tuple(
        dataclasses.replace(frame, load_depth=functools.partial(_changed, frame.load_depth, 1.0, 0.02, seed))
        for seed, frame in enumerate(box_room().frames)
    )
    found = depth_agreement(box_room().replace(frames=noisy))
    assert found.verdict == "agree"
    assert RIGHT < found.agreement < 0.99
    generator, loose = np.random.default_rng(0), []
    for frame in box_room().frames:
        pose = frame.T_world_camera.copy()
        pose[:3, 3] += generator.normal(0, 0.015, 3)
        loose.append(dataclasses.replace(frame, T_world_camera=pose))
    assert depth_agreement(box_room().replace(frames=tuple(loose))).verdict == "agree"


def test_a_mistake_that_nothing_explains_is_reported_without_advice():
    generator = np.random.default_rng(0)
    frames = tuple(
        dataclasses.replace(frame, load_depth=functools.partial(generator.uniform(0.5, 5, (48, 64)).astype, np.float32))
        for frame in box_room().frames
    )
    found = depth_agreement(box_room().replace(frames=frames))
    assert found.verdict == "contradict"
    assert not found.remedies
    assert "none of the usual mistakes explains it" in str(found)


def test_views_without_overlap_tell_nothing():
    found = depth_agreement(box_room(3, step=120.0))
    assert found.verdict == "unknown"
    assert found.agreement is None
    assert "cannot tell: no two of the views" in str(found)


def test_what_cannot_be_compared():
    room = box_room()
    one = room.replace(frames=room.frames[:1])
    assert "fewer than two views have depth" in str(depth_agreement(one))
    cast = room.replace(provenance={"depth": {"source": "mesh", "mesh": "m.ply", "frames": 6}})
    assert "cast from a mesh through the same poses" in str(depth_agreement(cast))
    blind = room.replace(frames=tuple(dataclasses.replace(frame, load_depth=None) for frame in room.frames))
    assert checked(blind) is blind


def test_a_camera_that_turns_on_the_spot_does_not_show_the_unit():
    turning = box_room(radius=0.0)
    assert "does not show the unit of depth" in depth_agreement(turning).reason
    still = turning.replace(frames=tuple(turning.frames[:1]) * 6)
    assert "hardly moves" in depth_agreement(still).reason


def test_a_scene_of_kilometres_is_remarked_on():
    """Poses and depth both in millimetres, read as metres: everything agrees, and nothing is that large."""
    frames = []
    for frame in box_room().frames:
        pose = frame.T_world_camera.copy()
        pose[:3, 3] *= 1000
        load = functools.partial(_changed, frame.load_depth, 1000.0)
        frames.append(dataclasses.replace(frame, T_world_camera=pose, load_depth=load))
    found = depth_agreement(box_room().replace(frames=tuple(frames)))
    assert found.verdict == "agree"
    assert "check the units" in found.reason


def test_poses_in_millimetres_are_not_blamed_on_depth():
    frames = []
    for frame in box_room().frames:
        pose = frame.T_world_camera.copy()
        pose[:3, 3] *= 1000
        frames.append(dataclasses.replace(frame, T_world_camera=pose))
    found = depth_agreement(box_room().replace(frames=tuple(frames)))
    assert found.remedies[0].options == "--pose-unit 0.001"


def test_a_broken_image_is_passed_over(tmp_path):
    folder = write_seven_scenes(tmp_path / "room", box_room())
    scene = open_scene(folder)
    file = folder / "frame-000002.depth.png"
    file.write_bytes(file.read_bytes()[:-40])
    assert depth_agreement(scene).agreement > 0.99


def _capture(folder, mistake=None):
    room = box_room()
    write_seven_scenes(folder, room if mistake is None else misread(room, mistake))
    return Capture(path=folder)


def test_prepare_keeps_the_result(tmp_path):
    outcome = prepare_source(_capture(tmp_path / "room"), tmp_path / "out", PrepareSettings())
    assert outcome.status == "done"
    assert outcome.notes[KEY]["agreement"] > 0.99
    assert not outcome.warnings
    scene = open_scene(tmp_path / "out/room")
    assert scene.provenance[KEY] == outcome.notes[KEY]
    assert checked(scene) is scene
    assert in_words(scene.provenance[KEY]) == "100% (5 pairs of views)"


def test_prepare_stops_with_the_option_to_add(tmp_path):
    capture = _capture(tmp_path / "room", "--axes opengl")
    outcome = prepare_source(capture, tmp_path / "out", PrepareSettings())
    assert outcome.status == "failed"
    assert "they would agree with --axes opengl (100%)" in outcome.reason
    assert "--min-agreement 0" in outcome.reason
    assert not (tmp_path / "out/room").exists()
    anyway = prepare_source(capture, tmp_path / "out", PrepareSettings(min_agreement=0.0))
    assert anyway.status == "done"
    assert "contradict each other" in anyway.warnings[0]
    assert "--axes opengl" in anyway.warnings[0]


def test_a_floor_can_be_asked_for(tmp_path):
    noise = np.random.default_rng(0).uniform(0.5, 5, (48, 64)).astype(np.float32)
    room = box_room()
    frames = [
        frame if index else dataclasses.replace(frame, load_depth=noise.copy) for index, frame in enumerate(room.frames)
    ]
    write_seven_scenes(tmp_path / "room", room.replace(frames=tuple(frames)))
    strict = prepare_source(Capture(path=tmp_path / "room"), tmp_path / "out", PrepareSettings(min_agreement=0.99))
    assert strict.status == "failed"
    assert "the least that was asked for is 99%" in strict.reason
    with pytest.raises(SceneError, match="expected a share between 0 and 1"):
        PrepareSettings(min_agreement=7)
