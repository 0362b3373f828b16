"""Predicting and scoring: nothing is asked twice, nothing depends on how questions are grouped."""

import dataclasses

import numpy as np
import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, trained_benchmarks
from stereopsis.data.pack import candidate_boxes
from stereopsis.evaluation.in_memory import chance_rates, evaluate, majority_predictor, predict_scene, targets_of
from stereopsis.scenes.scene import Proposal

SPOKEN = ("sqa3d", "scanqa", "scan2cap")


def test_every_annotation_is_answered_once_in_order(trained, rooms, config):
    for room in rooms:
        predictions = predict_scene(trained, room, config)
        assert [p.annotation for p in predictions] == list(room.annotations)
        assert {p.annotation.task for p in predictions} == {*trained_benchmarks(), "vsibench"}


def test_only_the_tasks_that_are_asked_for_are_answered(trained, rooms, config):
    only = dataclasses.replace(config, tasks=("scanrefer", "sqa3d"))
    predictions = predict_scene(trained, rooms[0], only)
    wanted = [a.id for a in rooms[0].annotations if a.task in only.tasks]
    assert [p.annotation.id for p in predictions] == wanted
    assert predict_scene(trained, rooms[0].replace(annotations=()), config) == []
    assert predict_scene(trained, rooms[0], dataclasses.replace(config, tasks=())) == []


def test_repetition_gives_the_same_and_grouping_changes_nothing(trained, rooms, config):
    """Questions are padded to their neighbours' length: one at a time must say what many at once say."""
    many, again, alone = (predict_scene(trained, rooms[1], config, batch=batch) for batch in (64, 64, 1))
    for first, second, single in zip(many, again, alone, strict=True):
        assert first.text == second.text == single.text
        assert np.array_equal(first.scores, second.scores)
        np.testing.assert_allclose(first.scores, single.scores, atol=1e-5)
        assert first.zero_target_score == second.zero_target_score
    assert len({p.text for p in many if p.annotation.task in SPOKEN}) > 1


def test_answers_do_not_depend_on_what_else_is_asked(trained, rooms, config):
    room = rooms[2]
    everything = {p.annotation.id: p for p in predict_scene(trained, room, config)}
    for annotation in (room.annotations[0], room.annotations[-1]):
        (alone,) = predict_scene(trained, room.replace(annotations=(annotation,)), config)
        assert alone.text == everything[annotation.id].text
        np.testing.assert_allclose(alone.scores, everything[annotation.id].scores, atol=1e-5)


def test_grounding_scores_every_proposal_and_the_zero_target(trained, rooms, config):
    for proposals in ("detector", "objects"):
        boxes = candidate_boxes(rooms[0], proposals)
        predictions = predict_scene(trained, rooms[0], dataclasses.replace(config, proposals=proposals))
        pointed = [p for p in predictions if p.annotation.task in ("scanrefer", "multi3drefer")]
        assert pointed
        for prediction in pointed:
            assert np.array_equal(prediction.boxes, boxes)
            assert prediction.scores.shape == (len(boxes),)
            assert np.abs([*prediction.scores, prediction.zero_target_score]).max() <= 1 + 1e-6
            assert len(prediction.targets) == len(prediction.annotation.object_ids)
            assert prediction.text == ""


@pytest.mark.parametrize(("shift", "described"), [(0.0, True), (0.30, True), (0.36, False), (5.0, False)])
def test_strict_captions_are_empty_where_no_proposal_fits(trained, rooms, config, shift, described):
    """A box moved by a share s of its length overlaps with IoU (1 - s) / (1 + s): 0.54 at 0.30, 0.47 at 0.36."""
    captions = tuple(a for a in rooms[0].annotations if a.task == "scan2cap")
    room = rooms[0].replace(annotations=captions[:1])
    box = room.object(captions[0].object_ids[0]).box
    moved = box + np.array([shift * box[3], 0, 0, 0, 0, 0])
    far = box + np.array([50.0, 0, 0, 0, 0, 0])
    room = room.replace(proposals=(Proposal(box=far, score=1.0), Proposal(box=moved, score=0.1)))
    (prediction,) = predict_scene(trained, room, config)
    assert np.array_equal(prediction.targets, box[None])
    if described:
        assert np.array_equal(prediction.boxes, moved[None])
        assert prediction.text != ""
    else:
        assert prediction.boxes.shape == (0, 6)
        assert prediction.text == ""


def test_a_caption_speaks_of_the_proposal_and_not_of_the_hidden_truth(trained, rooms, config):
    """Moving the object within the proposal's reach must not move the question."""
    caption = next(a for a in rooms[0].annotations if a.task == "scan2cap")
    room = rooms[0].replace(annotations=(caption,))
    box = room.object(caption.object_ids[0]).box
    room = room.replace(proposals=(Proposal(box=box),))
    moved = tuple(
        dataclasses.replace(o, box=box + np.array([0.2 * box[3], 0, 0, 0, 0, 0]))
        if o.id == caption.object_ids[0]
        else o
        for o in room.objects
    )
    (here,), (there,) = (predict_scene(trained, r, config) for r in (room, room.replace(objects=moved)))
    assert here.text == there.text
    assert not np.array_equal(here.targets, there.targets)


def test_targets_are_the_annotated_objects_boxes(hand_scene):
    scene = hand_scene("s", [{"task": "multi3drefer", "object_ids": (3, 1)}, {"task": "multi3drefer"}])
    assert targets_of(scene.annotations[0], scene)[:, 0].tolist() == [20.0, 0.0]
    assert targets_of(scene.annotations[1], scene).shape == (0, 6)


def test_scores_are_points_over_all_samples_and_by_type(hand_scene):
    def question(kind: str, answer: str) -> dict:
        return {"task": "sqa3d", "text": "?", "answers": (answer,), "type": kind}

    scenes = [
        hand_scene("a", [question("count", "two"), question("count", "two"), question("is", "yes")]),
        hand_scene("b", [question("is", "no")]),
    ]

    def always_two(scene):
        return [Prediction(annotation=a, text="two") for a in scene.annotations]

    result = evaluate(always_two, scenes)
    assert [s.scores["em"] for s in result.samples] == [1.0, 1.0, 0.0, 0.0]
    summary = result.summaries["sqa3d"]
    assert (summary.count, summary.scene_count) == (4, 2)
    assert summary.overall["em"].mean == 50.0
    assert summary.macro["em"].mean == 50.0
    assert {kind: values["em"].mean for kind, values in summary.by_type.items()} == {"count": 100.0, "is": 0.0}
    assert [p.annotation.id for p in result.predictions] == ["a-0", "a-1", "a-2", "b-0"]


def test_the_majority_says_the_most_frequent_training_answer_of_the_type(hand_scene):
    def said(kind: str, *answers: str, task: str = "sqa3d", **more) -> Annotation:
        return Annotation(id="x", scene_id="x", task=task, type=kind, answers=answers, **more)

    train = [said("count", "two"), said("count", "two"), said("count", "three"), said("is", "yes"), said("is", "yes")]
    train += [said("is", "yes"), said("caption", "a red chair", task="scan2cap"), said("unique", task="scanrefer")]
    scene = hand_scene(
        "s",
        [
            {"task": "sqa3d", "type": "count", "answers": ("two",), "text": "?"},
            {"task": "sqa3d", "type": "is", "answers": ("no",), "text": "?"},
            {"task": "sqa3d", "type": "unheard of", "answers": ("yes",), "text": "?"},
            {"task": "scan2cap", "type": "caption", "answers": ("a red chair",), "object_ids": (2,)},
            {"task": "scanrefer", "type": "unique", "text": "the cube", "object_ids": (1,)},
            {"task": "scanqa", "type": "count", "answers": ("two",), "text": "?"},
        ],
    )
    predictions = majority_predictor(train, ("sqa3d", "scan2cap", "scanrefer"))(scene)
    assert [p.text for p in predictions] == ["two", "yes", "yes", "a red chair"]
    assert [p.annotation.id for p in predictions] == ["s-0", "s-1", "s-2", "s-3"]  # no grounding, no scanqa
    result = evaluate(majority_predictor(train, ("sqa3d",)), [scene])
    assert result.summaries["sqa3d"].overall["em"].mean == pytest.approx(200 / 3)
    assert result.summaries.keys() == {"sqa3d"}


def test_chance_is_the_mean_over_expressions_of_the_share_of_right_proposals(hand_scene):
    scenes = [
        hand_scene(
            "a",
            [
                {"task": "scanrefer", "text": "the first", "object_ids": (1,)},  # one of four proposals
                {"task": "multi3drefer", "text": "both", "object_ids": (1, 2)},  # two of four, each F1 2/3
                {"task": "multi3drefer", "text": "none"},  # a guess always names something
            ],
            proposals=(0.0, 10.0, 70.0, 80.0),
        ),
        # shifted by 0.5: IoU 1/3, so right at 0.25 and wrong at 0.5
        hand_scene("b", [{"task": "scanrefer", "text": "the third", "object_ids": (3,)}], proposals=(20.5, 90.0)),
    ]
    rates = chance_rates(scenes, "detector")
    assert rates["scanrefer"] == pytest.approx({"acc@0.25": 100 * (0.25 + 0.5) / 2, "acc@0.5": 100 * 0.25 / 2})
    assert rates["multi3drefer"] == pytest.approx({"f1@0.25": 100 * (1 / 3 + 0) / 2, "f1@0.5": 100 * (1 / 3) / 2})


def test_chance_among_the_true_objects_is_one_in_three(hand_scene):
    scene = hand_scene("a", [{"task": "scanrefer", "text": "x", "object_ids": (1,)}], proposals=(99.0,))
    assert chance_rates([scene], "objects")["scanrefer"] == pytest.approx({"acc@0.25": 100 / 3, "acc@0.5": 100 / 3})
    assert chance_rates([scene], "detector")["scanrefer"] == {"acc@0.25": 0.0, "acc@0.5": 0.0}
    assert chance_rates([hand_scene("b", [])], "objects") == {}
