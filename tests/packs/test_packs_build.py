"""Scenes become packs; every conversation is seen once; subsets and noise depend on names and seeds only."""

import collections
import dataclasses

import pytest
import torch

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import benchmark_names
from stereopsis.data.pack import Conversation
from stereopsis.errors import SceneError
from stereopsis.packs.build import (
    PackConfig,
    blinded,
    build_pack,
    cache_vision,
)
from stereopsis.packs.dataset import PackDataset
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import coverage_order, uniform_indices


def _said(number: int, prefix: str = "") -> tuple[Conversation, ...]:
    return tuple(Conversation(id=f"{prefix}{i}", task="scanqa", prompt=f"{i}?", answer="a") for i in range(number))


@pytest.fixture(scope="module")
def packs(make_pack):
    """Scenes of 7, 0, 4 and 1 conversations."""
    return [
        make_pack(4, *_said(7, "a"), seed=1),
        make_pack(3, seed=2),
        make_pack(5, *_said(4, "b"), seed=3),
        make_pack(2, *_said(1, "c"), seed=4),
    ]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 100])
def test_every_conversation_exactly_once(packs, most):
    dataset = PackDataset(packs, conversations=most, seed=5)
    items = [dataset[i] for i in range(len(dataset))]
    seen = collections.Counter(c.id for item in items for c in item.conversations)
    assert seen == collections.Counter(c.id for pack in packs for c in pack.conversations)
    assert all(len(item.conversations) <= most for item in items)
    assert sum(item.scene_id == "scene2" for item in items) == 1, "vision-only scenes are items too"
    assert len(items) == sum(max(1, -(-len(pack.conversations) // most)) for pack in packs)


def test_grouping_depends_on_the_seed_alone(packs):
    def ids(seed):
        dataset = PackDataset(packs, conversations=3, seed=seed)
        return [[c.id for c in dataset[i].conversations] for i in range(len(dataset))]

    assert ids(0) == ids(0)
    assert ids(0) != ids(1)


def test_random_subsets_are_deterministic_and_different(make_pack):
    pack = make_pack(6, *_said(2), seed=1)
    dataset = PackDataset([pack], conversations=2, views=3, subsets=8, seed=0)
    again = PackDataset([pack], conversations=2, views=3, subsets=8, seed=0)
    names = [dataset[i].frame_names for i in range(len(dataset))]
    assert names == [again[i].frame_names for i in range(len(again))] == [dataset[i].frame_names for i in range(8)]
    assert len(names) == 8
    assert len(set(names)) > 3
    for index, chosen in enumerate(names):
        assert len(set(chosen)) == 3
        assert list(chosen) == sorted(chosen), "capture order is kept"
        item = dataset[index]
        places = [pack.frame_names.index(name) for name in chosen]
        assert torch.equal(item.images, pack.images[places])
        assert torch.equal(item.proposals.cells, pack.proposals.cells[:, places])
    other = PackDataset([pack], conversations=2, views=3, subsets=8, seed=1)
    assert names != [other[i].frame_names for i in range(8)]


def test_subsets_still_cover_every_conversation(packs):
    dataset = PackDataset(packs, conversations=3, views=2, subsets=2)
    seen = {c.id for i in range(len(dataset)) for c in dataset[i].conversations}
    assert seen == {c.id for pack in packs for c in pack.conversations}
    few = [dataset[i] for i in range(len(dataset)) if dataset[i].scene_id == "scene4"]
    assert len(few) == 1, "a scene of two views has one subset of two"


@pytest.mark.parametrize(
    ("frames", "views", "expected"),
    [(5, None, [0, 1, 2, 3, 4]), (3, 8, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (9, 4, [0, 2, 5, 8]), (7, 1, [0])],
)
def test_views_are_spread_as_in_video_3d_llm(frames, views, expected):
    assert uniform_indices(frames, views) == expected


@pytest.fixture(scope="module")
def room() -> Scene:
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import RoomConfig, make_room

    made = make_room(3, RoomConfig(views=4, width=48, height=48))
    common = {"scene_id": made.id, "type": "what"}
    first = made.objects[0]
    return made.replace(
        annotations=(
            Annotation(id="q", task="scanqa", text="what?", answers=("a bed",), **common),
            Annotation(id="r", task="scanrefer", text="the bed", object_ids=(first.id,), **common),
            Annotation(id="c", task="scan2cap", answers=("a bed",), object_ids=(first.id,), **common),
        )
    )


def _config(**changes) -> PackConfig:
    sizes = {
        "image_size": 24,
        "fit": "crop",
        "view_grid": (3, 3),
        "encoder_grid": (6, 6),
        "positions": "depth",
    }
    return PackConfig(**{**sizes, "tasks": benchmark_names(), **changes})


def test_a_room_becomes_a_pack(room):
    pack = build_pack(room, _config(views=3))
    assert pack.images.shape == (3, 3, 24, 24)
    assert pack.coordinates.shape == (3, 3, 3, 3)
    assert pack.frame_names == tuple(room.frames[i].name for i in (0, 1, 3))
    assert pack.proposals.cells.shape == (len(room.objects), 3, 6, 6)
    assert [c.id for c in pack.conversations] == ["q", "r", "c"]
    assert pack.conversations[1].positives[0] == 0
    low, high = pack.coordinates.flatten(0, 2).min(0).values, pack.coordinates.flatten(0, 2).max(0).values
    assert float(low[2]) > -0.1
    assert float(high[2]) < 4.0, "the aligned frame has z up and the floor at 0"
    assert build_pack(room, _config(tasks=())).conversations == ()
    detected = build_pack(room, _config(proposals="detector"))
    assert len(detected.proposals.boxes) == len(room.proposals)


def test_an_object_is_seen_by_the_cells_that_look_at_it(room):
    """Cells of an object lie where the object projects to, on the finest grid."""
    pack = build_pack(room, _config(image_size=48, encoder_grid=(12, 12), view_grid=(12, 12)))
    seen = pack.proposals.cells.flatten(1).any(1)
    assert seen.any()
    for number in torch.nonzero(seen).flatten().tolist():
        centre, size = pack.proposals.boxes[number, :3], pack.proposals.boxes[number, 3:]
        points = pack.coordinates[pack.proposals.cells[number]]
        assert ((points - centre).abs() <= size / 2 + 0.35).all()


def test_noisy_positions_depend_on_scene_and_seed_only(room):
    true, noisy = build_pack(room, _config()), build_pack(room, _config(positions="noisy"))
    assert torch.equal(noisy.coordinates, build_pack(room, _config(positions="noisy")).coordinates)
    moved = (noisy.coordinates - true.coordinates).norm(dim=-1)[true.coordinates_valid]
    assert 0.01 < float(moved.mean()) < 1.0
    for other in (
        build_pack(room, _config(positions="noisy", seed=1)),
        build_pack(room.replace(id="elsewhere"), _config(positions="noisy")),
    ):
        assert not torch.allclose(other.coordinates, noisy.coordinates, atol=1e-3)
    assert torch.equal(noisy.proposals.cells, true.proposals.cells), "boxes stay where they are"


def test_a_scene_without_frames_is_refused(room):
    with pytest.raises(SceneError, match=r"has no frames; prepare it again"):
        build_pack(room.replace(frames=()), _config())


def test_a_blind_pack_shows_nothing(room, make_model):
    """Two different rooms look the same to a blind model, except for the boxes that it may choose from."""
    pack = build_pack(room, _config(blind=True))
    assert pack.images.unique().tolist() == [128]
    assert len(pack.images) == 1
    assert not pack.coordinates_valid.any()
    assert not pack.proposals.cells.any()
    assert pack.view_targets == pack.scene_targets == {}
    assert len(pack.conversations) == 3
    model = make_model()
    with torch.no_grad():
        tokens = [model.visual_inputs(model.collator()([p])).tokens for p in (pack, blinded(pack))]
    assert torch.equal(*tokens)


def test_sizes_come_from_the_model(make_model):
    config = make_model(positions="noisy", fit="squash").pack_config(views=2)
    assert dataclasses.asdict(config) | {"tasks": ()} == {
        "image_size": 24,
        "fit": "squash",
        "token_cells": False,
        "view_grid": (3, 3),
        "encoder_grid": (6, 6),
        "positions": "noisy",
        "views": 2,
        "selection": "uniform",
        "coverage": 1.0,
        "view_cache": None,
        "tasks": (),
        "proposals": "objects",
        "blind": False,
        "seed": 0,
    }


def test_cached_vision_trains_like_live_vision(make_model, make_pack, talk):
    """Half precision storage costs half-precision accuracy and nothing else; gradients flow as before."""
    model = make_model("text", "grounding")
    packs = [make_pack(3, talk["where"], talk["red"], seed=1), make_pack(2, talk["many"], seed=2)]
    cached = cache_vision(packs, model, chunk=2)
    assert all(pack.encoder_tokens.dtype == torch.float16 for pack in cached)
    found = []
    for given in (packs, cached):
        model.zero_grad(set_to_none=True)
        losses = model(model.collator()(given), due=("text", "grounding"), seed=0)
        sum(loss.sum for loss in losses.values()).backward()
        gradient = model.backbone.model.multi_modal_projector.linear_1.weight.grad
        found.append((float(losses["text"].sum.detach()), float(losses["grounding"].sum.detach()), gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=2e-3)
    assert found[0][1] == pytest.approx(found[1][1], rel=2e-3)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=0.05, atol=0.01 * float(found[0][2].abs().max()))


def test_views_by_coverage(room, tmp_path):
    """The pack holds the views that the selection names, and only as many as the share needs."""
    order = coverage_order(room)
    config = _config(views=3, selection="coverage", view_cache=tmp_path)
    names = [room.frames[i].name for i in sorted(order.first(3))]
    assert list(build_pack(room, config).frame_names) == names
    assert len(list(tmp_path.glob("*.json"))) == 1
    share = float(order.gains[0] / order.total)
    few = build_pack(room, dataclasses.replace(config, coverage=share))
    assert list(few.frame_names) == [room.frames[order.order[0]].name]
