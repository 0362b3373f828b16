"""Where scenes come from: folders, rooms that are made once, and captures that are checked and stood upright."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes.rooms import GENERATOR_VERSION
from stereopsis.scenes.stored import read_scene
from stereopsis.training import sources
from stereopsis.training.recipe import SourceSection
from stereopsis.training.sources import open_folder, prepare_capture, prepare_rooms, prepared_folder, scenes_of


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a room would be an error."""

    def refuse(*_, **__):
        raise AssertionError("a room was made that is there already")

    monkeypatch.setattr(sources, "ProcessPoolExecutor", refuse)


def test_a_folder_of_scenes_opens_in_order_and_a_scene_opens_alone(tiny_rooms, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(tiny_rooms, copy)
    (copy / ".hidden").mkdir()
    (copy / "notes.txt").write_text("not a scene")
    assert [scene.id for scene in open_folder(copy)] == [f"room-{i:08d}" for i in range(4)]
    (alone,) = open_folder(copy / "room-00000002")
    assert alone.id == "room-00000002"
    assert alone.annotations


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_holds_no_scene_is_refused_by_name(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError) as caught:
        open_folder(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_with_one_thing_that_is_no_scene_is_refused_by_its_name(tiny_rooms, tmp_path):
    shutil.copytree(tiny_rooms, tmp_path / "scenes")
    (tmp_path / "scenes" / "backup").mkdir()
    with pytest.raises(SceneError, match="backup"):
        open_folder(tmp_path / "scenes")


def test_rooms_lie_apart_by_generator_version_and_split(tmp_path):
    source = SourceSection(rooms=3, split="test")
    assert prepared_folder(source, tmp_path) == tmp_path / f"v{GENERATOR_VERSION}" / "test"
    assert prepared_folder(SourceSection(path=Path("mine")), tmp_path) == Path("mine")


def test_rooms_that_are_there_are_read_and_not_made_again(tiny_rooms, tmp_path, no_processes):
    shutil.copytree(tiny_rooms, tmp_path / f"v{GENERATOR_VERSION}" / "train")
    rooms = scenes_of(SourceSection(rooms=3), tmp_path)
    assert [room.id for room in rooms] == [f"room-{i:08d}" for i in range(3)]
    assert rooms[0].frames[0].colour().shape == (48, 48, 3)
    later = scenes_of(SourceSection(rooms=2, offset=2), tmp_path)
    assert [room.id for room in later] == ["room-00000002", "room-00000003"]


def test_a_room_that_is_only_half_there_is_missing(tiny_rooms, tmp_path, no_processes):
    shutil.copytree(tiny_rooms, tmp_path / "rooms")
    (tmp_path / "rooms" / "room-00000001" / "scene.json").unlink()
    prepare_rooms([0, 2], tmp_path / "rooms")
    with pytest.raises(AssertionError, match="a room was made"):
        prepare_rooms([0, 1], tmp_path / "rooms")


def test_a_scene_without_a_view_from_above_gets_one_and_stands_upright(capture):
    (scene,) = scenes_of(SourceSection(path=capture), Path("unused"))
    assert scene.birdseye is not None
    assert scene.provenance["alignment"]["method"] == "estimated"


def true_up(capture: Path) -> np.ndarray:
    return np.loadtxt(capture / "true-up.txt")


def test_a_capture_is_stood_upright_seen_from_above_and_written_whole(capture, tmp_path):
    prepared = prepare_capture(capture, tmp_path / "out")
    assert prepared.folder == tmp_path / "out" / "office"
    scene = read_scene(prepared.folder)
    assert len(scene.frames) == 10
    assert scene.birdseye.image.shape == (432, 432, 3)
    up = scene.T_aligned_world[:3, :3] @ true_up(capture)
    assert np.degrees(np.arccos(np.clip(up[2], -1, 1))) < 2.0
    heights = [scene.T_aligned_camera(frame)[2, 3] for frame in scene.frames]
    assert 0.8 < min(heights) <= max(heights) < 2.2  # eye height above a floor near zero
    original = np.asarray(Image.open(capture / "frame-000004.color.png"))
    assert np.array_equal(scene.frames[4].colour(), original)
    lines = prepared.summary().splitlines()
    assert lines[0] == f"10 frames of 'office' in {prepared.folder}"
    assert '"method": "estimated"' in lines[1]
    assert lines[2] == "skipped frames: 0"
    assert lines[3].startswith("bird's-eye view: ")


def damaged(capture: Path, folder: Path, frames: int) -> Path:
    """A copy whose first frames' depth images are cut short."""
    copy = folder / "office"
    shutil.copytree(capture, copy)
    for number in range(frames):
        depth = copy / f"frame-{number:06d}.depth.png"
        depth.write_bytes(depth.read_bytes()[:-60])
    return copy


def test_a_bad_frame_stops_or_is_skipped_and_counted(capture, tmp_path):
    copy = damaged(capture, tmp_path, 2)
    with pytest.raises(FrameError, match=r"frame-000000\.depth\.png"):
        prepare_capture(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepared = prepare_capture(copy, tmp_path / "out", on_bad_frame="skip")
    assert [frame.name for frame in prepared.scene.frames] == [f"frame-{i:06d}" for i in range(2, 10)]
    assert "skipped frames: 2" in prepared.summary()
    assert "frame-000001: " in prepared.summary()
    assert list(read_scene(prepared.folder).provenance["skipped"]) == ["frame-000000", "frame-000001"]


def test_too_many_bad_frames_stop_even_where_they_may_be_skipped(capture, tmp_path):
    copy = damaged(capture, tmp_path, 3)
    with pytest.raises(SceneError, match="3 of 10 frames are unusable, more than the tolerated 20%"):
        prepare_capture(copy, tmp_path / "out", on_bad_frame="skip")


def test_a_prepared_scene_is_replaced_only_on_demand(capture, tmp_path):
    first = prepare_capture(capture, tmp_path)
    before = (first.folder / "scene.json").stat().st_mtime_ns
    with pytest.raises(SceneError, match="office"):
        prepare_capture(capture, tmp_path)
    assert (first.folder / "scene.json").stat().st_mtime_ns == before
    prepare_capture(capture, tmp_path, overwrite=True)
    assert (first.folder / "scene.json").stat().st_mtime_ns > before
