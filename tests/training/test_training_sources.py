"""Where a recipe's scenes come from: folders, rooms that are made once, and captures that are stood upright."""

import shutil
from pathlib import Path

import pytest

from stereopsis.errors import SceneError
from stereopsis.scenes.rooms import GENERATOR_VERSION
from stereopsis.scenes.rooms.language import LANGUAGE_VERSION
from stereopsis.training import sources
from stereopsis.training.preflight import advice, told_scenes, told_sources
from stereopsis.training.recipe import load_recipe
from stereopsis.training.sections import DataSection, SourceSection
from stereopsis.training.sources import folders_of, made_rooms, open_folder, prepared_folder, scenes_of

VERSION = f"v{GENERATOR_VERSION}.{LANGUAGE_VERSION}"


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a room would be an error."""

    def refuse(*_, **__):
        raise AssertionError("a room was made that is there already")

    monkeypatch.setattr(sources, "prepare", refuse)


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
    assert prepared_folder(source, tmp_path) == tmp_path / VERSION / "test"
    assert prepared_folder(SourceSection(path=Path("mine")), tmp_path) == Path("mine")


def test_rooms_that_are_there_are_read_and_not_made_again(tiny_rooms, tmp_path, no_processes):
    shutil.copytree(tiny_rooms, tmp_path / VERSION / "train")
    rooms = scenes_of(SourceSection(rooms=3), tmp_path)
    assert [room.id for room in rooms] == [f"room-{i:08d}" for i in range(3)]
    assert rooms[0].frames[0].colour().shape == (48, 48, 3)
    later = scenes_of(SourceSection(rooms=2, offset=2), tmp_path)
    assert [room.id for room in later] == ["room-00000002", "room-00000003"]


def test_a_room_that_is_only_half_there_is_missing(tiny_rooms, tmp_path, no_processes):
    shutil.copytree(tiny_rooms, tmp_path / "rooms")
    (tmp_path / "rooms" / "room-00000001" / "scene.json").unlink()
    made_rooms([0, 2], tmp_path / "rooms")
    with pytest.raises(AssertionError, match="a room was made"):
        made_rooms([0, 1], tmp_path / "rooms")


def test_a_scene_without_a_view_from_above_gets_one_and_stands_upright(capture):
    (scene,) = scenes_of(SourceSection(path=capture), Path("unused"))
    assert scene.birdseye is not None
    assert scene.provenance["alignment"]["method"] == "estimated"


def test_a_source_gives_its_scenes_in_the_frame_that_it_is_asked_for(tiny_rooms, tmp_path):
    plain = scenes_of(SourceSection(path=tiny_rooms), tmp_path)
    turned = scenes_of(SourceSection(path=tiny_rooms, frame="first_view"), tmp_path)
    assert [s.id for s in turned] == [s.id for s in plain]
    for scene in turned:
        assert abs(scene.T_aligned_camera(scene.frames[0])[:2, 3]).max() < 1e-9
    assert any(abs(s.T_aligned_camera(s.frames[0])[:2, 3]).max() > 0.1 for s in plain)


def test_cached_rooms_are_no_scenes_of_the_users(tmp_path, tiny_rooms, monkeypatch):
    """Rooms prepared into a folder that also serves as a cache: only those that were prepared are found."""
    mine = tmp_path / "rooms"
    for number in range(2):
        shutil.copytree(tiny_rooms / f"room-{number:08d}", mine / f"room-{number:08d}")
    made = prepared_folder(SourceSection(rooms=1), mine)
    shutil.copytree(tiny_rooms / "room-00000002", made / "room-00000000")
    cached = SourceSection(rooms=1)
    assert len(folders_of(cached, mine)) == 1  # found there, and the folder is marked
    assert [scene.id for scene in open_folder(mine)] == ["room-00000000", "room-00000001"]
    assert told_sources([SourceSection(path=mine), SourceSection(rooms=3, split="test")]) == (
        f"2 procedural rooms (train split) in {mine}, 3 procedural rooms (test split)"
    )
    assert len(open_folder(made)) == 1  # who names a cache's own folder gets what is in it
    for number in range(2):
        shutil.rmtree(mine / f"room-{number:08d}")
    with pytest.raises(SceneError, match="holds no scenes but those in caches"):
        open_folder(mine)


def test_by_default_nothing_is_cached_among_the_users_data(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DataSection().cache_folder == tmp_path / "stereopsis" / "rooms"
    assert DataSection(cache=tmp_path / "mine").cache_folder == tmp_path / "mine"
    assert DataSection(selection="coverage").view_options["view_cache"] == tmp_path / "stereopsis" / "rooms" / "views"


def test_scenes_are_told_by_their_splits():
    assert told_scenes(["room-20000000"]) == "1 procedural room (test split)"
    assert told_scenes(["room-20000000", "room-00000003"]) == "2 procedural rooms (test and train splits)"
    assert told_scenes(["kitchen", "room-00000003"]) == "2 scenes"


def test_training_without_words_is_advised_against():
    assert "language suffers" in advice(load_recipe("capture-tiny"))[0]
    assert "capture-anchored" in advice(load_recipe("capture-tiny"))[0]
    for name in ("capture-anchored", "stereopsis-tiny"):
        assert advice(load_recipe(name)) == ()
