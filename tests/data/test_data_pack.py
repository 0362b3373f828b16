"""From annotations to conversations: which boxes, which are right, which point."""

import dataclasses

import numpy as np
import pytest
import torch

from stereopsis.data.pack import Conversation, candidate_boxes, conversation_of


def _of(scene, task):
    return next(a for a in scene.annotations if a.task == task)


def test_candidates_are_objects_or_detections(furnished):
    np.testing.assert_array_equal(candidate_boxes(furnished, "objects"), np.stack([o.box for o in furnished.objects]))
    np.testing.assert_array_equal(
        candidate_boxes(furnished, "detector"), np.stack([p.box for p in furnished.proposals])
    )


def test_without_detections_the_objects_serve_and_without_objects_nothing(furnished):
    bare = furnished.replace(proposals=())
    np.testing.assert_array_equal(candidate_boxes(bare, "detector"), candidate_boxes(bare, "objects"))
    assert candidate_boxes(furnished.replace(objects=()), "objects").shape == (0, 6)


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, (0, 1)), (0.59, (0, 1)), (0.61, (0,)), (1.0, (0,))])
def test_every_box_that_overlaps_a_target_enough_is_right(furnished, threshold, expected):
    """The two tables have IoU 0.6 with each other."""
    boxes = candidate_boxes(furnished, "objects")
    made = conversation_of(_of(furnished, "scanrefer"), furnished, boxes, iou_threshold=threshold)
    assert made.positives == expected
    assert made.grounds
    assert made.answer == "<ground>"


def test_several_targets_and_detections(furnished):
    annotation = dataclasses.replace(_of(furnished, "multi3drefer"), object_ids=(1, 3))
    boxes = candidate_boxes(furnished, "detector")
    assert conversation_of(annotation, furnished, boxes).positives == (0,)  # nothing was detected at the lamp
    objects = candidate_boxes(furnished, "objects")
    assert conversation_of(annotation, furnished, objects, iou_threshold=0.7).positives == (0, 2)


def test_no_target_means_the_zero_target(furnished):
    made = conversation_of(_of(furnished, "multi3drefer"), furnished, candidate_boxes(furnished, "objects"))
    assert made.grounds
    assert made.positives == ()
    empty = conversation_of(_of(furnished, "scanrefer"), furnished, np.zeros((0, 6)))
    assert empty.positives == ()


def test_a_caption_is_asked_at_the_centre_of_its_object(furnished):
    made = conversation_of(_of(furnished, "scan2cap"), furnished, candidate_boxes(furnished, "objects"))
    assert made.point == (5.0, 5.0, 1.0)
    assert made.prompt.count("<coord>") == 1
    assert made.answer == "a small lamp"
    assert made.positives == ()


def test_questions_keep_situation_words_and_first_answer(furnished):
    boxes = candidate_boxes(furnished, "objects")
    situated = conversation_of(_of(furnished, "sqa3d"), furnished, boxes)
    assert situated.prompt.startswith("I sit. What is behind me?")
    free = conversation_of(_of(furnished, "scanqa"), furnished, boxes)
    assert (free.id, free.task, free.answer, free.point) == ("q", "scanqa", "a lamp", None)
    assert not free.grounds


def test_an_unknown_object_is_named(furnished):
    annotation = dataclasses.replace(_of(furnished, "scanrefer"), object_ids=(99,))
    with pytest.raises(KeyError, match=r"'furnished' has no object 99"):
        conversation_of(annotation, furnished, candidate_boxes(furnished, "objects"))


def test_selecting_views_takes_everything_of_them(make_pack):
    talk = Conversation(id="a", task="scanqa", prompt="p", answer="a")
    latents = torch.arange(4.0).reshape(4, 1, 1, 1)
    pack = make_pack(4, talk, view_targets={"view_latents": latents}, scene_targets={"b": torch.ones(2)})
    pack = pack.replace(encoder_tokens=torch.rand(4, 4, 6, 5))
    few = pack.select_views([3, 1])
    assert few.frame_names == ("room/3", "room/1")
    for field in ("images", "coordinates", "coordinates_valid", "cameras", "intrinsics", "encoder_tokens"):
        assert torch.equal(getattr(few, field), getattr(pack, field)[[3, 1]]), field
    assert torch.equal(few.proposals.cells, pack.proposals.cells[:, [3, 1]])
    assert torch.equal(few.proposals.boxes, pack.proposals.boxes)
    assert few.view_targets["view_latents"].flatten().tolist() == [3.0, 1.0]
    assert torch.equal(few.scene_targets["b"], torch.ones(2))
    assert few.conversations == (talk,)
    assert len(pack.images) == 4
