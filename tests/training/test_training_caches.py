"""Training from disk: the same numbers as from memory, nothing asked twice, nothing foreign accepted."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from stereopsis.errors import CacheError, RecipeError
from stereopsis.packs.stored import StoredPacks, scene_key
from stereopsis.scenes.stored import read_scene, write_scene
from stereopsis.teachers.latent_tokenizers import PixelTokenizer
from stereopsis.teachers.point_map import PointMapTeacher
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.recipe_packs import build_packs, fill_cache
from stereopsis.training.train_run import train

ALL = ("text", "grounding", "vanilla", "cross_view", "birds_eye", "alignment", "consistency", "relational")
TENSORS = ("images", "coordinates", "coordinates_valid", "cameras", "intrinsics", "encoder_tokens")


@pytest.fixture(scope="module")
def root(make_recipe, tmp_path_factory):
    """A cache of everything that the small recipe asks; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("cache")
    fill_cache(make_recipe(*ALL, teachers=_teachers(folder)))
    return folder


def _teachers(folder, **changes) -> dict:
    plain = {"latent": "rooms", "view_size": 32, "birdseye_size": 40, "cache": None if folder is None else str(folder)}
    return {**plain, **changes}


def packs_of(recipe):
    return build_packs(recipe, build_model(recipe), build_teachers(recipe), recipe.data.sources)


def same(a, b) -> None:
    assert (a.scene_id, a.frame_names, a.conversations) == (b.scene_id, b.frame_names, b.conversations)
    for name in TENSORS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in ("boxes", "cells"):
        assert torch.equal(getattr(a.proposals, name), getattr(b.proposals, name))
    for name in ("view_targets", "scene_targets"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key].dtype == theirs[key].dtype
            assert torch.equal(mine[key], theirs[key]), key


def test_packs_from_disk_are_those_from_memory_to_the_bit(make_recipe, root):
    memory = packs_of(make_recipe(*ALL, teachers=_teachers(None)))
    assert isinstance(memory, list)
    disk = packs_of(make_recipe(*ALL, teachers=_teachers(root, online=False)))
    assert isinstance(disk, StoredPacks)
    assert len(disk) == len(memory) == 4
    for a, b in zip(memory, disk, strict=True):
        same(a, b)
    assert {"view_latents_std", "birdseye_latents_std"} <= {*memory[0].view_targets, *memory[0].scene_targets}
    assert [pack.scene_id for pack in disk[1:3]] == [memory[1].scene_id, memory[2].scene_id]
    same(disk[-1], memory[-1])
    with pytest.raises(IndexError):
        disk[4]


def test_losses_onto_cached_and_live_teachers_are_equal(make_recipe, root, log_of, weights_of, tmp_path):
    changes = {"training__steps": 3, "training__scenes": 3, "objectives__cross_view": {"every": 2}}
    train(make_recipe(*ALL, teachers=_teachers(None), **changes), tmp_path / "live", progress=False)
    cached = make_recipe(*ALL, teachers=_teachers(root, online=False), **changes)
    train(cached, tmp_path / "cached", progress=False)
    lines = log_of(tmp_path / "cached")
    assert lines == log_of(tmp_path / "live")
    assert {"loss/alignment", "loss/cross_view", "loss/birds_eye"} <= lines[0].keys()
    mine, theirs = weights_of(tmp_path / "live" / "model"), weights_of(tmp_path / "cached" / "model")
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_what_is_there_is_kept_and_no_teacher_is_asked_again(make_recipe, root, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a teacher was asked")

    monkeypatch.setattr(PointMapTeacher, "encode", never)
    monkeypatch.setattr("stereopsis.packs.targets.latent_answers", never)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    report = fill_cache(make_recipe(*ALL, teachers=_teachers(root)))
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    assert report.scenes == 4
    assert [folder.scenes for folder in report.folders] == [4, 4, 4]
    with pytest.raises(AssertionError, match="a teacher was asked"):
        fill_cache(make_recipe(*ALL, teachers=_teachers(root)), overwrite=True)


def test_an_interrupted_run_goes_on(make_recipe, tmp_path, monkeypatch):
    recipe = make_recipe("alignment", teachers=_teachers(tmp_path))
    asked: list[str] = []
    encode = PointMapTeacher.encode

    def dies_at_third(self, views):
        asked.append(views.scene_id)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return encode(self, views)

    monkeypatch.setattr(PointMapTeacher, "encode", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        fill_cache(recipe)
    assert len(list(tmp_path.glob("teachers/*/*.safetensors"))) == 2
    fill_cache(recipe)
    assert len(asked) == len(set(asked)) + 1 == 5


def test_without_online_what_is_missing_is_refused_before_anything_is_trained(make_recipe, tmp_path):
    recipe = make_recipe("text", "alignment", teachers=_teachers(tmp_path / "cache", online=False))
    with pytest.raises(CacheError, match=r"the cache has no features at all.*stereopsis cache RECIPE"):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"model__view_grid": [2, 2]}, {"data__views": 3}])
def test_another_grid_or_more_frames_than_cached(make_recipe, root, tiny_base, change):
    """Fewer frames of a teacher that answers view by view are found; another grid is not."""
    model = {"base": str(tiny_base)}
    recipe = make_recipe("alignment", model=model, teachers=_teachers(root, online=False), **change)
    if "data__views" in change:
        few, all_ = packs_of(recipe), packs_of(make_recipe("alignment", teachers=_teachers(root, online=False)))
        picked = [all_[0].frame_names.index(name) for name in few[0].frame_names]
        wanted = all_[0].view_targets["view_features"][picked]
        assert len(picked) == 3
        assert torch.equal(few[0].view_targets["view_features"], wanted)
    else:
        with pytest.raises(CacheError, match=r"the cache has 'point_map' .* rows 3, cols 3 for 4 scenes"):
            packs_of(recipe)


def test_scenes_that_changed_are_noticed(make_recipe, tiny_rooms, root, tmp_path):
    """Frames whose contents have changed places: packs are made again, answers are refused."""
    folder = tmp_path / "rooms"
    shutil.copytree(tiny_rooms, folder)
    shutil.copytree(root, tmp_path / "cache")
    path = sorted(folder.iterdir())[0]
    scene = read_scene(tiny_rooms / path.name)
    first, second, *rest = scene.frames
    swapped = [dataclasses.replace(b, name=a.name) for a, b in ((first, second), (second, first))]
    shutil.rmtree(path)
    write_scene(scene.replace(frames=(*swapped, *rest)), path)
    sources = [{"path": str(folder)}]
    for online in (True, False):
        recipe = make_recipe("alignment", data__sources=sources, teachers=_teachers(tmp_path / "cache", online=online))
        with pytest.raises(CacheError, match=rf"scene '{scene.id}': frame '{first.name}' shows another picture"):
            packs_of(recipe)
    recipe = make_recipe("alignment", data__sources=sources, teachers=_teachers(tmp_path / "cache"))
    fill_cache(recipe, overwrite=True)
    memory = packs_of(make_recipe("alignment", data__sources=sources, teachers=_teachers(None)))
    for a, b in zip(memory, packs_of(recipe), strict=True):
        same(a, b)


def test_a_scenes_key_follows_what_it_shows_and_not_where_it_lies(tiny_rooms, tmp_path):
    path = sorted(tiny_rooms.iterdir())[0]
    scene = read_scene(path)
    key = scene_key(scene, scene.frames)
    assert scene_key(scene, scene.frames[:2]) != key
    assert scene_key(scene.replace(annotations=()), scene.frames) != key
    assert scene_key(scene.replace(objects=scene.objects[1:]), scene.frames) != key
    shutil.copytree(path, tmp_path / "moved")  # with its times
    moved = read_scene(tmp_path / "moved")
    assert scene_key(moved, moved.frames) == key
    (tmp_path / "moved" / "frames" / f"{scene.frames[0].name}.png").touch()
    assert scene_key(moved, moved.frames) != key


def test_vision_only_sources_share_files_with_spoken_ones(make_recipe, tiny_rooms, root):
    sources = [{"path": str(tiny_rooms), "text": False}]
    recipe = make_recipe("alignment", data__sources=sources, teachers=_teachers(root, online=False))
    before = sorted(root.rglob("*.safetensors"))
    assert all(not pack.conversations for pack in packs_of(recipe))
    one = make_recipe("alignment", data__tasks=["scanqa"], teachers=_teachers(root, online=False))
    assert {c.task for pack in packs_of(one) for c in pack.conversations} == {"scanqa"}
    assert sorted(root.rglob("*.safetensors")) == before


def test_several_teachers_by_name(make_recipe, tmp_path):
    recipe = make_recipe("text", teachers=_teachers(tmp_path))
    report = fill_cache(recipe, features=["point_map"], latents=["pixels", "rooms"])
    assert [folder.what for folder in report.folders][1:] == [
        "features of 'point_map'",
        "latents of 'pixels'",
        "latents of 'rooms'",
    ]
    kept = load_file(next(report.folders[2].path.glob("*.safetensors")))
    assert "view_latents_std" not in kept, "pixels have no spread"
    assert kept["view_latents"].dtype == torch.float16
    assert json.loads((report.folders[3].path / "cache.json").read_text())["settings"]["birdseye_size"] == 40
    assert (
        PixelTokenizer().fingerprint == json.loads((report.folders[2].path / "cache.json").read_text())["fingerprint"]
    )


def test_recipes_that_no_cache_can_serve_are_refused(make_recipe, tiny_base, tmp_path):
    with pytest.raises(RecipeError, match=r"names no 'teachers\.cache'"):
        fill_cache(make_recipe("text"))
    blind = {"base": str(tiny_base), "blind": True}
    with pytest.raises(RecipeError, match="blind"):
        fill_cache(make_recipe("text", model=blind, teachers=_teachers(tmp_path)))
    with pytest.raises(RecipeError, match="'online: false' needs a 'cache'"):
        make_recipe("text", teachers={"online": False})


def test_a_blind_model_trains_with_a_cache_set(make_recipe, tiny_base, tmp_path):
    blind = {"base": str(tiny_base), "blind": True}
    run = train(
        make_recipe("text", model=blind, teachers=_teachers(tmp_path / "c"), training__steps=1),
        tmp_path / "run",
        progress=False,
    )
    assert not run.packs[0].view_targets
    assert run.packs[0].images.unique().tolist() == [128]


def test_vision_only_steps_count_no_words_and_leave_the_schedule_alone(make_recipe, log_of, tmp_path):
    """Every pass is vision-only: words and grounding have nothing to say, the rest trains as it is due."""
    recipe = make_recipe(
        "text", "grounding", "cross_view", "alignment", data__vision_only=1.0, objectives__cross_view={"every": 2}
    )
    run = train(recipe, tmp_path / "run", progress=False)
    assert run.packs[0].conversations, "the scenes do have words"
    for line in log_of(tmp_path / "run"):
        assert not {"loss/text", "loss/grounding"} & line.keys()
        assert ("loss/cross_view" in line) == (line["step"] % 2 == 1)
        assert line["loss/alignment"] > 0
