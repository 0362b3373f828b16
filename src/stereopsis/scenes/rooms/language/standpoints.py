"""Directions from where a thing stands, and routes from thing to thing (VSI-Bench's relative directions and routes).

Who stands "by" a thing stands at its centre and faces another thing's centre, seen from above. What is turned by less
than `Margins.from_border_degrees` from a border between two answers is not asked.
"""

import math
import random
from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from stereopsis.scenes.rooms.language.balance import Candidate, Draft
from stereopsis.scenes.rooms.language.descriptions import Names
from stereopsis.scenes.rooms.language.facts import Facts, bits
from stereopsis.scenes.rooms.language.wording import chosen_from

_TRIPLES = 60  # of things that are looked at in a room
_ROUTES = 240
_TURNS = ("turn left", "turn right", "turn back")
_LOW = 1.2  # metres: who walks goes around what reaches below this height
_STANDING = "i am standing by {p} and facing {o}. "
_ASKED = {
    "easy": "is {q} to my left or to my right?",
    "medium": "is {q} to my left, to my right or at my back? "
    "at my back means that i would have to turn by at least 135 degrees to face it.",
    "hard": "is {q} to my front left, front right, back left or back right?",
}
_OPTIONS = {
    "easy": ("left", "right"),
    "medium": ("left", "right", "back"),
    "hard": ("front left", "front right", "back left", "back right"),
}
_ROUTE = (
    "a robot stands by {start} and faces {facing}. it wants to reach {goal}. fill in its turns: "
    "1. [turn] 2. go straight to {via} 3. [turn] 4. go straight to {goal}."
)


def bearing(facts: Facts, position: int, facing: int, other: int) -> float:
    """Degrees in (-180, 180] from the way to `facing` to the way to `other`, counter-clockwise (left is positive)."""
    x, y = facts.places[position]
    ahead, there = (math.atan2(facts.places[k][1] - y, facts.places[k][0] - x) for k in (facing, other))
    degrees = math.degrees(there - ahead) % 360.0
    return degrees - 360.0 if degrees > 180.0 else degrees


def direction(degrees: float, kind: str, margin: float) -> str | None:
    """The answer of one of the three kinds; None within the margin of a border.

    Left ends and back begins at 135 degrees ("medium"); the quarters of "hard" meet at 0, 90 and 180.
    """
    side, size = ("left" if degrees > 0 else "right"), abs(degrees)
    borders = {"easy": (0.0, 180.0), "medium": (0.0, 135.0), "hard": (0.0, 90.0, 180.0)}[kind]
    if any(abs(size - border) < margin for border in borders):
        return None
    if kind == "hard":
        return f"{'front' if size < 90 else 'back'} {side}"
    return "back" if kind == "medium" and size > 135 else side


def turn(degrees: float, margin: float) -> str | None:
    """How a robot turns towards something: left or right from 45 to 135 degrees, back beyond; None if not clear."""
    size = abs(degrees)
    if size < 45 + margin or abs(size - 135) < margin:
        return None
    return "turn back" if size > 135 else f"turn {'left' if degrees > 0 else 'right'}"


def _apart(facts: Facts, i: int, j: int) -> float:
    """Metres between two centres, seen from above."""
    (x, y), (u, v) = facts.places[i], facts.places[j]
    return math.hypot(x - u, y - v)


def direction_candidates(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    """Where a third thing is for somebody who stands by one and faces another."""
    things = list(bits(names.named))
    margins = facts.margins
    for _ in range(_TRIPLES if len(things) > 2 else 0):
        p, o, q = rng.sample(things, 3)
        if min(_apart(facts, p, o), _apart(facts, p, q), _apart(facts, o, q)) < margins.distance:
            continue
        degrees = bearing(facts, p, o, q)
        cues = tuple(f"{role} {facts.category(i)}" for role, i in (("by", p), ("facing", o), ("about", q)))
        for kind in _ASKED:
            answer = direction(degrees, kind, margins.from_border_degrees)
            if answer is not None:
                draft = partial(_direction, facts, names, (p, o, q), kind, answer)
                yield Candidate(f"object_rel_direction_{kind}", answer, cues, draft, f"{p} {o}")


def _direction(
    facts: Facts, names: Names, things: tuple[int, int, int], kind: str, answer: str, rng: random.Random
) -> Draft | None:
    picked = [names.pick(i, rng) for i in things]
    the = [name.the() for name in picked if name is not None]
    if len(the) < 3:
        return None
    text = (_STANDING + _ASKED[kind]).format(p=the[0], o=the[1], q=the[2])
    return chosen_from(facts, text, answer, _OPTIONS[kind], sum(1 << i for i in things), rng)


def free_ways(boxes: Float[np.ndarray, "objects 6"]) -> Bool[np.ndarray, "objects objects"]:
    """Whether the straight way between two centres passes through no other thing that stands low.

    Things that stand on the two, or carry them, are no obstacles.
    """
    centres = boxes[:, :2]
    low, high = centres - boxes[:, 3:5] / 2, centres + boxes[:, 3:5] / 2
    a, way = centres[:, None, None], (centres[None, :] - centres[:, None])[:, :, None]
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    at = np.sort(np.stack([(low - a) / way, (high - a) / way]), axis=0)  # [2, from, to, obstacle, axis]
    enter, leave = np.maximum(at[0].max(axis=-1), 0.0), np.minimum(at[1].min(axis=-1), 1.0)
    holds = np.all(np.abs(centres[:, None] - centres) <= boxes[:, 3:5] / 2, axis=-1)  # [centre, obstacle]
    obstacle = (boxes[:, 2] - boxes[:, 5] / 2 < _LOW) & ~holds[:, None] & ~holds[None, :]
    return ~((enter < leave) & obstacle).any(axis=-1)


def route_candidates(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    """Two turns of a robot that goes straight from thing to thing."""
    things = list(bits(names.named))
    margin = facts.margins.from_border_degrees
    free = free_ways(facts.boxes)
    for _ in range(_ROUTES if len(things) > 3 else 0):
        start, facing, via, goal = rng.sample(things, 4)
        if not (free[start, via] and free[via, goal]):
            continue
        legs = ((start, facing), (start, via), (via, goal), (start, goal))
        if min(_apart(facts, i, j) for i, j in legs) < facts.margins.distance:
            continue
        first = turn(bearing(facts, start, facing, via), margin)
        back = bearing(facts, via, start, goal)  # who arrives looks the other way
        second = turn(back - 180.0 if back > 0 else back + 180.0, margin)
        if first is None or second is None:
            continue
        answer = f"{first}, {second}"
        ends = (("start", start), ("facing", facing), ("via", via), ("goal", goal))
        cues = tuple(f"{role} {facts.category(i)}" for role, i in ends)
        draft = partial(_route, facts, names, (start, facing, via, goal), answer)
        yield Candidate("route_planning", answer, cues, draft, f"{start} {goal}")


def _route(
    facts: Facts, names: Names, things: tuple[int, int, int, int], answer: str, rng: random.Random
) -> Draft | None:
    picked = [names.pick(i, rng) for i in things]
    the = [name.the() for name in picked if name is not None]
    if len(the) < 4:
        return None
    text = _ROUTE.format(start=the[0], facing=the[1], via=the[2], goal=the[3])
    wrong = [f"{a}, {b}" for a in _TURNS for b in _TURNS if f"{a}, {b}" != answer]
    return chosen_from(facts, text, answer, [answer, *rng.sample(wrong, 3)], sum(1 << i for i in things), rng)
