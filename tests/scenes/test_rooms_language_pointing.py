"""Questions that point: they are true, and their words do not say what is meant."""

import re

import numpy as np
import pytest

from stereopsis.data.pack import candidate_boxes, conversation_of
from stereopsis.scenes.first_view import from_first_view
from stereopsis.scenes.rooms import CATEGORIES, COLOURS, make_room
from stereopsis.scenes.rooms.language.pointing import PointingConfig, pointing_questions


@pytest.fixture(scope="module")
def rooms():
    return [make_room(seed).replace(annotations=pointing_questions(make_room(seed), seed)) for seed in range(12)]


def test_every_kind_is_asked_and_repeats(rooms):
    assert {a.type for room in rooms for a in room.annotations} == {"at_what", "at_colour", "standing_what"}
    assert all(room.annotations == pointing_questions(room, seed) for seed, room in enumerate(rooms))
    ids = [a.id for room in rooms for a in room.annotations]
    assert len(set(ids)) == len(ids)


def test_answers_are_true(rooms):
    for room in rooms:
        for asked in room.annotations:
            (thing,) = (room.object(i) for i in asked.object_ids)
            wanted = thing.attributes["colour"] if asked.type == "at_colour" else thing.label
            assert asked.answers[0] == wanted
            assert max(thing.visible_pixels) >= 24


def test_who_stands_somewhere_is_closest_to_what_is_said(rooms):
    found = 0
    for room in rooms:
        boxes = np.array([o.box for o in room.objects])
        for asked in room.annotations:
            if asked.type != "standing_what":
                continue
            found += 1
            spot = np.array(asked.position[:2])
            gap = np.maximum(np.abs(boxes[:, :2] - spot) - boxes[:, 3:5] / 2, 0)
            for distance in (np.hypot(*gap.T), np.hypot(*(boxes[:, :2] - spot).T)):
                order = distance.argsort()
                assert room.objects[order[0]].id == asked.object_ids[0]
                assert distance[order[1]] - distance[order[0]] >= 0.2 - 1e-9
    assert found > 10


def test_words_do_not_tell(rooms):
    words = {*(w for c in CATEGORIES for w in c.split()), *COLOURS}
    for room in rooms:
        for asked in room.annotations:
            assert words.isdisjoint(re.findall(r"[a-z]+", f"{asked.situation} {asked.text}"))


def test_the_model_is_given_the_place(rooms):
    for room in (rooms[0], from_first_view(rooms[0])):
        boxes = candidate_boxes(room, "objects")
        for asked in room.annotations:
            conversation = conversation_of(asked, room, boxes)
            wanted = room.object(asked.object_ids[0]).box[:3] if asked.position is None else asked.position
            assert conversation.prompt.count("<coord>") == 1
            assert conversation.point == pytest.approx(tuple(wanted))


def test_a_room_of_which_nothing_is_seen_is_not_asked_about():
    assert pointing_questions(make_room(1).replace(objects=()), 1) == ()


def test_no_more_than_asked_for(rooms):
    few = pointing_questions(rooms[3], 3, PointingConfig(at_what=2, at_colour=0, standing_what=1))
    assert sorted(a.type for a in few) == ["at_what", "at_what", "standing_what"]
