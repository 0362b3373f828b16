"""Shuffled targets: every scene gets the truth about another one, and nothing else changes."""

import dataclasses

import pytest
import torch

from stereopsis.data.batch import Batch, SceneProposals
from stereopsis.data.layout import VisualLayout


def batch_of(views: tuple[int, ...]) -> Batch:
    n, scenes = sum(views), len(views)
    ids = torch.arange(scenes * 5).view(scenes, 5)
    number = torch.arange(n, dtype=torch.float32)
    proposals = [
        SceneProposals(boxes=torch.full((s + 1, 6), float(s)), cells=torch.zeros(s + 1, v, 1, 1).bool())
        for s, v in enumerate(views)
    ]
    return Batch(
        input_ids=ids,
        position_ids=ids,
        segments=ids,
        labels=ids,
        layout=VisualLayout(
            index=torch.zeros(n, 1, 1, dtype=torch.int64),
            scene=torch.repeat_interleave(torch.arange(scenes), torch.tensor(views)),
        ),
        images=torch.zeros(n, 3, 2, 2, dtype=torch.uint8),
        coordinates=torch.zeros(n, 1, 1, 3),
        coordinates_valid=torch.ones(n, 1, 1, dtype=torch.bool),
        cameras=torch.eye(4).repeat(n, 1, 1) * number[:, None, None],
        intrinsics=torch.eye(3).repeat(n, 1, 1) * number[:, None, None],
        encoder_tokens=None,
        proposals=tuple(proposals),
        query_index=torch.zeros(0, dtype=torch.int64),
        query_scene=torch.zeros(0, dtype=torch.int64),
        query_targets=torch.zeros(0, 0, dtype=torch.bool),
        coord_index=torch.zeros(0, dtype=torch.int64),
        coord_xyz=torch.zeros(0, 3),
        targets={"of_views": number[:, None], "of_scenes": torch.arange(scenes, dtype=torch.float32)[:, None]},
        scene_ids=tuple(f"scene {s}" for s in range(scenes)),
        conversation_ids=((),) * scenes,
    )


def test_every_scene_has_the_truth_about_the_one_before():
    batch = batch_of((2, 2, 2))
    other = batch.other_rooms()
    assert other.targets["of_views"].flatten().tolist() == [4, 5, 0, 1, 2, 3]
    assert other.targets["of_scenes"].flatten().tolist() == [2, 0, 1]
    assert other.cameras[:, 0, 0].tolist() == other.intrinsics[:, 0, 0].tolist() == [4, 5, 0, 1, 2, 3]
    assert [len(p.boxes) for p in other.proposals] == [3, 1, 2]
    seen = ("input_ids", "labels", "images", "coordinates", "coordinates_valid", "layout", "query_targets")
    assert all(getattr(other, name) is getattr(batch, name) for name in seen)


@pytest.mark.parametrize("views", [(3,), (1, 2)])
def test_one_scene_or_scenes_of_different_sizes_are_refused(views):
    with pytest.raises(ValueError, match="at least two scenes"):
        batch_of(views).other_rooms()


def test_as_many_rounds_as_scenes_are_the_batch():
    batch = batch_of((1, 1, 1))
    around = batch.other_rooms().other_rooms().other_rooms()
    torch.testing.assert_close(around.targets, batch.targets)
    assert dataclasses.asdict(around.layout).keys() == dataclasses.asdict(batch.layout).keys()
