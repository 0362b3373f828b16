"""Places where an agent can stand, said in words from which its surroundings follow without doubt.

The words do not fix the place to the centimetre ("next to the sofa"), so a situation holds every free spot
that they allow, and a statement about it is made only where it is true from all of them.
"""

import dataclasses
import math
import random

import numpy as np
from jaxtyping import Float

from stereopsis.scenes.rooms.language.config import Margins
from stereopsis.scenes.rooms.language.descriptions import Names
from stereopsis.scenes.rooms.language.facts import Facts, bits, box_distance, clear_minimum, masks
from stereopsis.scenes.rooms.language.vocabulary import DIRECTIONS

_AXES = np.array([0.0, math.pi / 2, math.pi, -math.pi / 2])  # of DIRECTIONS, counter-clockwise from the facing
_BESIDE = (
    "i am standing next to {x} and facing {y}.",
    "i am next to {x}, facing {y}.",
    "i stand by {x} and look at {y}.",
)
_PLACED = {
    "behind": (
        "i am facing {y} and {x} is right behind me.",
        "i am looking at {y} with {x} right behind me.",
    ),
    "left": (
        "i am facing {y} and {x} is right on my left.",
        "i am looking at {y} with {x} right on my left.",
    ),
    "right": (
        "i am facing {y} and {x} is right on my right.",
        "i am looking at {y} with {x} right on my right.",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """An agent that stands next to one object and faces another.

    Attributes:
        text: the words.
        position: [3] metres, aligned frame, on the floor; one of the spots that the words allow.
        yaw: facing direction there, radians counter-clockwise from +x.
        anchors: mask of the two objects that the words name.
        kind: "beside", or where the first object is: "behind", "left", "right".
        sure: direction -> mask of the objects that certainly lie there.
        maybe: direction -> mask of the objects that may lie there.
        centre_distance: [spots][objects] metres on the floor plan from the agent to the centres.
        side_distance: [spots][objects] metres on the floor plan from the agent to the nearest sides.
    """

    text: str
    position: tuple[float, float, float]
    yaw: float
    anchors: int
    kind: str
    sure: dict[str, int]
    maybe: dict[str, int]
    centre_distance: list[list[float]]
    side_distance: list[list[float]]

    def nearest(self, among: int, margins: Margins) -> int | None:
        """The object of a mask that is nearest from every spot, by both distances and with a margin."""
        winner = None
        for table in (self.centre_distance, self.side_distance):
            for row in table:
                best = clear_minimum([(row[j], j) for j in bits(among)], margins)
                if best is None or winner not in (None, best):
                    return None
                winner = best
        return winner


def find_situations(facts: Facts, names: Names, most: int, rng: random.Random) -> list[Situation]:
    """Up to `most` situations of a room; fewer (or none) where little is free or uniquely named."""
    pairs = [(x, y) for x in bits(names.named & _standing(facts)) for y in bits(names.named) if x != y]
    rng.shuffle(pairs)
    room = FreeFloor(facts)
    found: list[Situation] = []
    for x, y in pairs[: 6 * most]:
        if len(found) == most:
            break
        kind = rng.choice(("beside", "beside", "behind", "left", "right"))
        situation = _situate(facts, names, room, x, y, kind, rng)
        if situation is not None:
            found.append(situation)
    return found


class FreeFloor:
    """Where there is room to stand: within the bounds of what was seen, and outside all furniture."""

    def __init__(self, facts: Facts) -> None:
        boxes = facts.boxes
        bottom, top = boxes[:, 2] - boxes[:, 5] / 2, boxes[:, 2] + boxes[:, 5] / 2
        self.body = facts.margins.body
        self.obstacles = boxes[(bottom < 1.7) & (top > 0.1)]
        low, high = boxes[:, :2] - boxes[:, 3:5] / 2, boxes[:, :2] + boxes[:, 3:5] / 2
        self.low, self.high = low.min(0) + self.body, high.max(0) - self.body

    def free(self, spots: Float[np.ndarray, "spots 2"]) -> np.ndarray:
        """Which spots one can stand on."""
        inside = ((spots >= self.low) & (spots <= self.high)).all(-1)
        points = np.concatenate([spots, np.zeros((len(spots), 4))], axis=1)
        gaps = box_distance(points, self.obstacles, axes=2) if len(self.obstacles) else np.full((len(spots), 1), 9.0)
        return inside & (gaps > self.body).all(-1)


def _standing(facts: Facts) -> int:
    """Mask of the objects that one can stand next to: they reach down to the floor and up from it."""
    bottom = facts.boxes[:, 2] - facts.boxes[:, 5] / 2
    top = facts.boxes[:, 2] + facts.boxes[:, 5] / 2
    return masks(((bottom < 0.3) & (top > 0.25))[None])[0] if len(bottom) else 0


def _situate(
    facts: Facts, names: Names, room: FreeFloor, x: int, y: int, kind: str, rng: random.Random
) -> Situation | None:
    spots = _ring(facts, x) if kind == "beside" else _placed(facts, x, y, kind)
    free = room.free(spots)
    if not free.any() or (kind != "beside" and not free[0]):
        return None
    spots = spots[free]
    towards = facts.boxes[y, :2] - spots
    if np.sqrt((towards**2).sum(-1)).min() < facts.margins.facing:
        return None
    name_x, name_y = names.pick(x, rng), names.pick(y, rng)
    if name_x is None or name_y is None:
        return None
    yaws = np.arctan2(towards[:, 1], towards[:, 0])
    offsets = facts.boxes[None, :, :2] - spots[:, None]
    centre = np.sqrt((offsets**2).sum(-1))
    points = np.concatenate([spots, np.zeros((len(spots), 4))], axis=1)
    bearing = np.arctan2(offsets[..., 1], offsets[..., 0]) - yaws[:, None]
    off_axis = np.abs((bearing[None] - _AXES[:, None, None] + math.pi) % (2 * math.pi) - math.pi)
    sure = (off_axis <= math.radians(facts.margins.sure_degrees)).all(1)
    maybe = (off_axis < math.radians(facts.margins.maybe_degrees)).any(1)
    chosen = 0 if kind != "beside" else rng.randrange(len(spots))
    templates = _BESIDE if kind == "beside" else _PLACED[kind]
    return Situation(
        text=rng.choice(templates).format(x=name_x.the(), y=name_y.the()),
        position=(float(spots[chosen, 0]), float(spots[chosen, 1]), 0.0),
        yaw=float(yaws[chosen]),
        anchors=1 << x | 1 << y,
        kind=kind,
        sure=dict(zip(DIRECTIONS, masks(sure), strict=True)),
        maybe=dict(zip(DIRECTIONS, masks(maybe), strict=True)),
        centre_distance=centre.tolist(),
        side_distance=box_distance(points, facts.boxes, axes=2).tolist(),
    )


def _ring(facts: Facts, x: int) -> Float[np.ndarray, "8 2"]:
    """The middles of the four sides and the four corners, an arm's length away."""
    cx, cy, _, dx, dy, _ = facts.boxes[x]
    reach = facts.margins.reach
    steps = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)], dtype=np.float64)
    size = np.array([dx / 2 + reach, dy / 2 + reach])
    size = np.where(np.abs(steps).sum(-1, keepdims=True) == 2, size - reach * 0.3, size)
    return np.array([cx, cy]) + steps * size


def _placed(facts: Facts, x: int, y: int, kind: str) -> Float[np.ndarray, "5 2"]:
    """Where x is behind, left or right of an agent that faces y; then the same with small deviations."""
    centre, goal = facts.boxes[x, :2], facts.boxes[y, :2]
    half = facts.boxes[x, 3:5] / 2
    spot = centre
    for _ in range(4):
        forward = goal - spot
        forward = forward / max(float(np.hypot(*forward)), 1e-6)
        left = np.array([-forward[1], forward[0]])
        away = {"behind": forward, "left": -left, "right": left}[kind]
        reach = float((half / np.maximum(np.abs(away), 1e-6)).min()) + facts.margins.reach
        spot = centre + away * reach
        if kind == "behind":
            break
    aside = np.array([-away[1], away[0]])
    moves = np.array([(0, 0), (0.3, 0), (-0.15, 0), (0, 0.25), (0, -0.25)])
    return spot + moves[:, :1] * away + moves[:, 1:] * aside
