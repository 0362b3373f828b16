"""What is said about one view, checked pixel by pixel."""

import re

import numpy as np
import pytest

from stereopsis.scenes.rooms import CATEGORIES, COLOURS, MATERIALS, render_room
from stereopsis.scenes.rooms.language import ViewConfig, view_annotations
from stereopsis.scenes.scene import Scene, SceneObject


def singular(noun: str) -> str:
    return next(c for c in CATEGORIES if noun in (c, c + "s", c + "es", c.replace("shelf", "shelves")))


def visible(scene: Scene, instances: np.ndarray, least: int = 1) -> list[SceneObject]:
    return [o for o in scene.objects if (instances == o.id).sum() >= least]


def column(instances: np.ndarray, thing: SceneObject) -> float:
    return float(np.nonzero(instances == thing.id)[1].mean())


def find(things: list[SceneObject], name: str) -> list[SceneObject]:
    """The things that a name like "lamp", "red lamp", "striped lamp" or "red object" fits."""
    word, _, noun = name.partition(" ")
    if word not in (*COLOURS, *MATERIALS):
        return [o for o in things if o.label == name]
    kind = "colour" if word in COLOURS else "material"
    return [o for o in things if noun in (o.label, "object") and o.attributes[kind] == word]


def check(scene: Scene, instances: np.ndarray, question: str, answer: str, kind: str) -> None:
    things = visible(scene, instances)
    if kind == "exist":
        name = re.fullmatch(
            r"(?:is there|can you see|does the room have) an? (.+?)(?: in this picture| in the room)?\?", question
        )[1]
        assert answer == ("yes" if find(things, name) else "no")
    elif kind in ("colour", "pattern"):
        name = re.fullmatch(r".*?the (?:colour of the )?(.+?)(?: look like:)?(?: plain, .*)?\?", question)[1]
        (thing,) = find(things, name)
        assert answer == thing.attributes["colour" if kind == "colour" else "material"]
    elif kind == "count":
        noun = re.fullmatch(r"how many (.+?) (?:are in the room|are there|can you see)\?", question)[1]
        assert answer == str(len(find(things, noun[:-1] if noun.endswith(" objects") else singular(noun))))
    elif kind == "left_right":
        side, x, y = re.fullmatch(r"which is further (left|right), the (.+) or the (.+)\?", question).groups()
        places = {}
        for name in (x, y):
            (thing,) = find(things, name)
            places[name] = column(instances, thing)
        assert answer == (min if side == "left" else max)(places, key=places.get)
    elif kind == "on":
        (below,) = find(things, re.fullmatch(r"what is on (?:top of )?the (.+)\?", question)[1])
        assert [o.label for o in things if o.attributes["supported_by"] == below.id] == [answer]
    elif kind == "under":
        (above,) = find(things, re.fullmatch(r"what is the (.+?) (?:standing )?on\?", question)[1])
        assert [o.label for o in things if o.id == above.attributes["supported_by"]] == [answer]
    elif kind == "beside":
        side, name = re.fullmatch(r"what is (left|right) of the (.+)\?", question).groups()
        (thing,) = find(things, name)
        here = column(instances, thing)
        sign = 1 if side == "right" else -1
        beyond = [o for o in things if (column(instances, o) - here) * sign > 0]
        assert min(beyond, key=lambda o: abs(column(instances, o) - here)).label == answer
    else:
        assert kind == "caption"
        names = re.sub(r"\.$", "", answer).replace(" and ", ", ").split(", ")
        order = sorted(visible(scene, instances, 24), key=lambda o: column(instances, o))
        shown = [f"{o.attributes['colour']} {o.label}" for o in order]
        said = [re.sub(r"^an? ", "", name) for name in names]
        places = iter(shown)
        assert all(name in places for name in said)  # in the same order
        assert len(said) == min(len(order), 6)


@pytest.mark.parametrize("seed", range(20_000_100, 20_000_108))
def test_views_are_described_truthfully(seed):
    room = render_room(seed)
    for index, instances in enumerate(room.instances):
        records = view_annotations(room.scene, instances, index, seed)
        assert records == view_annotations(room.scene, instances, index, seed)
        assert len(records) >= 5
        for question, answer, kind in records:
            check(room.scene, instances, question, answer, kind)


def thing(number, label, colour, below=None):
    attributes = {"colour": colour, "material": "plain", "size": "small", "supported_by": below}
    return SceneObject(id=number, label=label, box=np.ones(6), attributes=attributes)


def test_a_picture_by_hand():
    """A red chair, a blue table with a lamp on it, a few pixels of a second chair, and an id nobody knows."""
    scene = Scene(
        id="hand",
        frames=(),
        objects=(
            thing(3, "chair", "red"),
            thing(5, "table", "blue"),
            thing(6, "lamp", "green", below=5),
            thing(9, "chair", "pink"),
        ),
    )
    instances = np.zeros((20, 40), dtype=np.uint16)
    instances[8:18, 2:8] = 3
    instances[10:18, 20:34] = 5
    instances[2:10, 30:34] = 6
    instances[0, 38:40] = 9
    instances[19, :] = 77
    said = [r for seed in range(60) for r in view_annotations(scene, instances, 0, seed)]
    facts = {(r.question, r.answer) for r in said}
    for question, answer, kind in said:
        check(scene, instances, question, answer, kind)
        assert "pink chair" not in question + answer
    assert "a red chair, a blue table and a green lamp." in {r.answer for r in said if r.type == "caption"}
    assert ("what is on the table?", "lamp") in facts
    assert ("what is the lamp on?", "table") in facts
    assert not any(question.endswith(" objects are there?") for question, _ in facts)  # one of them is unclear
    assert not any(question.startswith("how many chairs") for question, _ in facts)  # how many is unclear
    assert not any(question in ("what colour is the chair?",) for question, _ in facts)  # which one, too
    assert ("what is left of the table?", "chair") in facts


def test_an_empty_view_is_still_described():
    scene = Scene(id="wall", frames=())
    records = view_annotations(scene, np.zeros((8, 8), dtype=np.uint16), 0, 0)
    assert records
    assert all(answer in ("no", "0") for _, answer, _ in records)


def test_quota_of_views():
    room = render_room(11)
    only = ViewConfig(quota={"colour": 1})
    records = [r for i, v in enumerate(room.instances) for r in view_annotations(room.scene, v, i, 0, only)]
    assert {r.type for r in records} == {"colour"}
    assert len(records) <= len(room.instances)
