"""Distances, sizes, neighbours and descriptions against values worked out by hand and by slow loops."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.scenes.rooms.language.config import Margins
from stereopsis.scenes.rooms.language.descriptions import Description, Names, evaluate, related, target
from stereopsis.scenes.rooms.language.facts import bits, box_distance, clear_minimum, gather, masks, own_size
from stereopsis.scenes.rooms.language.situations import find_situations
from stereopsis.scenes.rooms.language.vocabulary import listed, plural, with_article
from stereopsis.scenes.scene import Scene, SceneObject


def thing(number, label, centre, extent=(0.5, 0.5, 0.8), pixels=(100,), **facts):
    defaults = {"colour": "red", "material": "plain", "size": "small", "supported_by": None, "yaw": None}
    return SceneObject(
        id=number,
        label=label,
        box=np.array([*centre, *extent], dtype=float),
        attributes=defaults | facts,
        visible_pixels=pixels,
    )


def room(*things):
    return gather(Scene(id="room", frames=(), objects=tuple(things)), Margins())


@given(st.integers(0, 2**70))
def test_bits_are_the_binary_digits(mask):
    assert list(bits(mask)) == [i for i in range(71) if mask >> i & 1]


@pytest.mark.parametrize("count", [5, 62, 63, 100])
def test_masks_hold_each_column(count):
    rows = np.random.default_rng(count).random((4, count)) < 0.5
    assert [list(bits(m)) for m in masks(rows)] == [np.flatnonzero(row).tolist() for row in rows]


def test_box_distance_by_hand():
    boxes = np.array([[0, 0, 0, 2, 2, 2], [4, 5, 0, 2, 2, 2], [0.5, 0, 3, 2, 2, 2]], dtype=float)
    gaps = box_distance(boxes, boxes)
    assert gaps[0, 1] == pytest.approx(math.hypot(2, 3))
    assert gaps[0, 2] == pytest.approx(1.0)
    assert box_distance(boxes, boxes, axes=2)[0, 2] == 0.0
    assert np.array_equal(gaps, gaps.T)


@given(
    st.tuples(*[st.floats(0.1, 3)] * 3),
    st.floats(-math.pi, math.pi).filter(lambda a: abs(math.cos(2 * a)) > 0.4),
)
def test_own_size_undoes_the_turn(size, yaw):
    w, d, h = size
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    box = np.array([0, 0, 0, w * c + d * s, w * s + d * c, h])
    assert own_size(box, yaw) in (
        pytest.approx(size, rel=1e-3, abs=5e-3),
        pytest.approx((d, w, h), rel=1e-3, abs=5e-3),
    )


def test_own_size_is_unknown_at_45_degrees():
    assert own_size(np.array([0, 0, 0, 1, 1, 1.0]), math.pi / 4) is None


def test_clear_minimum_wants_a_margin():
    margins = Margins(nearer=0.2, nearer_share=0.1)
    assert clear_minimum([(1.0, 7), (1.15, 8)], margins) is None
    assert clear_minimum([(1.3, 8), (1.0, 7)], margins) == 7
    assert clear_minimum([(5.0, 7), (5.4, 8)], margins) is None  # a tenth of 5.4 m is more than 0.4 m
    assert clear_minimum([(5.0, 7), (5.7, 8)], margins) == 7
    assert clear_minimum([(3.0, 1)], margins) == 1
    assert clear_minimum([], margins) is None


def test_closest_needs_both_distances_to_agree():
    """The bed's middle is farther than the stool's, its side is nearer: nobody is said to be closest."""
    facts = room(
        thing(1, "door", (0, 0, 1), (0.1, 1, 2)),
        thing(2, "bed", (1.5, 0, 0.4), (2.0, 1.5, 0.8)),
        thing(3, "stool", (-1.2, 0, 0.9), (0.4, 0.4, 0.4)),
    )
    assert facts.between_boxes[0][1] < facts.between_boxes[0][2]
    assert facts.between_centres[0][1] > facts.between_centres[0][2]
    assert facts.closest(0, facts.everyone) is None
    assert facts.closest(0, 0b010) == 1
    assert facts.closest(0, 0b001) is None


def test_larger_needs_volume_and_length():
    cube, rod, slightly = (1, 1, 1), (0.2, 0.2, 3), (1, 1, 1.2)
    facts = room(*(thing(i, "box", (3 * i, 0, 1), size) for i, size in enumerate((cube, rod, slightly))))
    assert facts.larger_of(0, 1) is None
    assert facts.larger_of(0, 2) is None
    facts = room(thing(1, "box", (0, 0, 1), (1, 1, 1)), thing(2, "box", (3, 0, 1), (1, 1, 1.5)))
    assert facts.larger_of(0, 1) == facts.larger_of(1, 0) == 1
    assert (facts.biggest(0b11), facts.biggest(0b11, smallest=True)) == (1, 0)


def test_beside_by_hand():
    facts = room(
        thing(1, "table", (0, 0, 0.4), (1, 1, 0.8)),
        thing(2, "chair", (0.9, 0, 0.4)),  # 0.15 m away: beside
        thing(3, "chair", (0, 1.4, 0.4)),  # 0.65 m away: perhaps
        thing(4, "chair", (-3, 0, 0.4)),  # far
        thing(5, "lamp", (0, 0, 0.95), (0.2, 0.2, 0.3), supported_by=1),  # on it: not beside
        thing(6, "picture", (0.9, 0, 1.6), (0.5, 0.05, 0.5)),  # above the chair: at most perhaps beside
    )
    assert facts.beside[0] == 0b000010
    assert facts.maybe_beside[0] == 0b000110 | (0b100000 if facts.between_boxes[0][5] < 0.85 else 0)
    assert facts.beside[1] == 0b000001
    assert facts.on[0] == 0b010000
    assert facts.supporter == (-1, -1, -1, -1, 0, -1)


def test_unseen_objects_are_no_facts_and_glimpsed_ones_are_unclear():
    facts = room(
        thing(4, "chair", (0, 0, 0.4), pixels=(0, 0)),
        thing(5, "chair", (2, 0, 0.4), pixels=(3, 23)),
        thing(6, "chair", (4, 0, 0.4), pixels=(24, 0)),
        thing(7, "chair", (6, 0, 0.4), pixels=()),  # visibility unknown: taken as seen
    )
    assert [o.id for o in facts.objects] == [5, 6, 7]
    assert facts.clear == 0b110


TABLE = Description(category="table")
CHAIRS = (
    thing(1, "chair", (0, 0, 0.4), colour="red", material="plain"),
    thing(2, "chair", (4, 0, 0.4), colour="red", material="striped"),
    thing(3, "chair", (2, 4, 0.4), colour="blue", material="striped"),
    thing(4, "table", (0.85, 0, 0.4), (0.8, 0.8, 0.8), colour="blue"),
    thing(5, "lamp", (0.85, 0, 1.0), (0.2, 0.2, 0.4), colour="blue", supported_by=4),
)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (Description(category="chair"), {1, 2, 3}),
        (Description(colour="blue"), {3, 4, 5}),
        (Description(category="chair", colour="red", material="striped"), {2}),
        (Description(category="sofa"), set()),
        (Description(category="chair", relation="beside", anchor=TABLE), {1}),
        (Description(category="chair", relation="farthest", anchor=TABLE), {3}),
        (Description(category="chair", colour="red", relation="closest", anchor=TABLE), {1}),
        (Description(category="lamp", relation="on", anchor=TABLE), {5}),
        (Description(category="table", relation="holding", held="lamp"), {4}),
        (Description(category="table", relation="holding", held="vase"), set()),
    ],
    ids=lambda value: value.words() if isinstance(value, Description) else "",
)  # fmt: skip
def test_descriptions_fit_what_they_say(description, expected):
    facts = room(*CHAIRS)
    sure, maybe = evaluate(facts, description)
    assert sure == maybe
    assert {facts.objects[i].id for i in bits(sure)} == expected


def test_doubtful_descriptions_say_so():
    facts = room(*CHAIRS)
    ambiguous = Description(category="lamp", relation="on", anchor=Description(category="chair"))
    assert evaluate(facts, ambiguous) == (0, 0b10000)
    equal = Description(category="chair", superlative="largest")
    assert evaluate(facts, equal) == (0, 0b00111)
    assert target(facts, equal) is None


def test_words_of_a_description():
    table = Description(category="table", colour="blue")
    words = Description(category="box", size="large", colour="red", material="striped")
    assert words.the() == "the large red striped box"
    assert Description(category="chair", relation="beside", anchor=table).words() == "chair next to the blue table"
    assert Description(colour="red", relation="on", anchor=table).words() == "red object on the blue table"
    assert Description(category="table", relation="holding", held="lamp").the() == "the table with a lamp on it"
    assert (plural("bookshelf"), plural("box"), plural("trash can")) == ("bookshelves", "boxes", "trash cans")
    assert with_article("orange chair") == "an orange chair"
    assert listed(("a", "b", "c")) == "a, b and c"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_names_and_relations_are_unique_and_true(seed):
    rng = random.Random(seed)
    things = [
        thing(
            i + 1,
            rng.choice(("chair", "table", "box")),
            (rng.uniform(0, 5), rng.uniform(0, 5), 0.4),
            tuple(rng.uniform(0.3, 1.0) for _ in range(3)),
            colour=rng.choice(("red", "blue")),
            material=rng.choice(("plain", "striped")),
            size=rng.choice(("small", "large")),
        )
        for i in range(rng.randint(1, 9))
    ]
    facts = room(*things)
    names = Names(facts)
    for i in range(len(things)):
        for without in ("", "colour", "size"):
            name = names.pick(i, rng, without=without)
            if name is not None:
                assert target(facts, name) == i
                assert not without or getattr(name, without) is None
        for description in related(facts, names, i, rng):
            assert evaluate(facts, description)[0] >> i & 1


def test_situations_keep_their_distance_and_name_their_anchors():
    facts = room(
        thing(1, "sofa", (2.5, 0.5, 0.4), (2, 0.9, 0.8)),
        thing(2, "door", (2.5, 5.0, 1.0), (0.9, 0.06, 2.0)),
        thing(3, "plant", (0.3, 2.5, 0.5), (0.4, 0.4, 1.0)),
        thing(4, "lamp", (4.7, 2.5, 0.7), (0.3, 0.3, 1.4)),
    )
    found = [s for seed in range(20) for s in find_situations(facts, Names(facts), 6, random.Random(seed))]
    assert {s.kind for s in found} == {"beside", "behind", "left", "right"}
    for situation in found:
        assert all(not a & b for a in situation.sure.values() for b in situation.sure.values() if a is not b)
        for side in situation.sure:
            assert not situation.sure[side] & ~situation.maybe[side]
        if situation.text == "i am facing the door and the sofa is right behind me.":
            x, y, _ = situation.position
            assert (x, y) == pytest.approx((2.5, 0.95 + 0.45))
            assert situation.yaw == pytest.approx(math.pi / 2)
            assert situation.sure["left"] >> 2 & 1
            assert situation.sure["right"] >> 3 & 1
            assert situation.sure["behind"] & 1
    assert any("the sofa is right behind me" in s.text and "facing the door" in s.text for s in found)
