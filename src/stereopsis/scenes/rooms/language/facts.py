"""The facts of a room that language may use; sets of objects are bit masks, bit i = object i."""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Bool, Float

from stereopsis.scenes.rooms.language.config import Margins
from stereopsis.scenes.scene import Scene, SceneObject


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What is known about the seen objects of a room.

    Attributes:
        objects: those that some view sees, in the scene's order.
        margins: how clear a fact must be.
        boxes: [objects, 6] metres, aligned frame.
        places: x and y of each box's centre.
        everyone: mask of all objects.
        clear: mask of those that some view shows well enough to be asked about.
        having: word kind ("category", "colour", "size", "material") -> word -> mask.
        supporter: index of what the object stands on; -1 where that is the floor or unseen.
        on: for each object, mask of what stands directly on it.
        beside: for each object, mask of what is certainly next to it.
        maybe_beside: the same, with the doubtful ones.
        between_centres: metres, [objects][objects].
        between_boxes: metres between the boxes' surfaces, 0 where they meet.
        volume: cubic metres; nan where the axis-aligned box says too little about the object's own size.
        longest: metres, the longest side of a box; nan likewise.
    """

    objects: tuple[SceneObject, ...]
    margins: Margins
    boxes: np.ndarray
    places: tuple[tuple[float, float], ...]
    everyone: int
    clear: int
    having: dict[str, dict[str, int]]
    supporter: tuple[int, ...]
    on: tuple[int, ...]
    beside: tuple[int, ...]
    maybe_beside: tuple[int, ...]
    between_centres: list[list[float]]
    between_boxes: list[list[float]]
    volume: tuple[float, ...]
    longest: tuple[float, ...]

    def category(self, index: int) -> str:
        """Category of an object."""
        return self.objects[index].label

    def word(self, kind: str, index: int) -> str | None:
        """An attribute of an object; None where it has none."""
        return self.objects[index].attributes.get(kind)

    def mask(self, kind: str, word: str) -> int:
        """The objects with this word; 0 where there are none."""
        return self.having[kind].get(word, 0)

    def only(self, mask: int) -> int | None:
        """The index of the one object in a mask; None where there are none or several."""
        return mask.bit_length() - 1 if mask and not mask & (mask - 1) else None

    def all_clear(self, mask: int) -> bool:
        """Whether every object of a mask is well visible somewhere."""
        return not mask & ~self.clear

    def closest(self, anchor: int, among: int) -> int | None:
        """The one object of a mask that is closest to the anchor by both distances and with a margin."""
        return self._extreme(anchor, among & ~(1 << anchor), 1.0)

    def farthest(self, anchor: int, among: int) -> int | None:
        """The one object of a mask that is farthest from the anchor by both distances and with a margin."""
        return self._extreme(anchor, among & ~(1 << anchor), -1.0)

    def _extreme(self, anchor: int, among: int, sign: float) -> int | None:
        winner = None
        for table in (self.between_centres, self.between_boxes):
            best = clear_minimum([(sign * table[anchor][j], j) for j in bits(among)], self.margins)
            if best is None or winner not in (None, best):
                return None
            winner = best
        return winner

    def nearer_of(self, anchor: int, one: int, other: int) -> int | None:
        """Which of two objects is closer to the anchor; None where it is not clear."""
        return self.closest(anchor, 1 << one | 1 << other)

    def larger_of(self, one: int, other: int) -> int | None:
        """Which of two objects is larger by volume and not shorter; None where it is not clear."""
        big, small = (one, other) if self.volume[one] > self.volume[other] else (other, one)
        clearly = self.volume[big] > self.margins.larger * self.volume[small]
        return big if clearly and self.longest[big] >= self.longest[small] else None

    def biggest(self, among: int, smallest: bool = False) -> int | None:
        """The one object of a mask that is larger (or smaller) than every other one."""
        for one in bits(among):
            others = bits(among & ~(1 << one))
            if all(self.larger_of(one, other) == (other if smallest else one) for other in others):
                return one
        return None


def clear_minimum(entries: list[tuple[float, int]], margins: Margins) -> int | None:
    """The second item of the entry whose first (metres) is smallest by the margin; None if none is."""
    if not entries:
        return None
    entries.sort()
    if len(entries) > 1:
        first, second = entries[0][0], entries[1][0]
        if second - first < max(margins.nearer, margins.nearer_share * max(abs(first), abs(second))):
            return None
    return entries[0][1]


@functools.lru_cache(maxsize=1 << 14)
def bits(mask: int) -> tuple[int, ...]:
    """Indices of the set bits, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)


def masks(rows: Bool[np.ndarray, "rows objects"]) -> tuple[int, ...]:
    """One bit mask per row."""
    count = rows.shape[1]
    if count > 62:
        return tuple(sum(1 << int(j) for j in np.flatnonzero(row)) for row in rows)
    return tuple((rows @ (1 << np.arange(count, dtype=np.int64))).tolist())


def box_distance(
    boxes: Float[np.ndarray, "objects 6"], others: Float[np.ndarray, "others 6"], axes: int = 3
) -> Float[np.ndarray, "objects others"]:
    """Metres between the surfaces of axis-aligned boxes, 0 where they meet; `axes` = 2: on the floor plan."""
    apart = np.abs(boxes[:, None, :axes] - others[None, :, :axes])
    apart -= (boxes[:, None, 3 : 3 + axes] + others[None, :, 3 : 3 + axes]) / 2
    return np.sqrt((np.maximum(apart, 0.0) ** 2).sum(-1))


def own_size(box: Float[np.ndarray, "6"], yaw: float) -> tuple[float, float, float] | None:
    """An object's own width, depth and height from the axis-aligned box around it, turned by `yaw` radians.

    None where the box hardly depends on which side is the longer one (near 45 degrees).
    """
    dx, dy, dz = box[3:].tolist()
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    if min(c, s) < 1e-3:
        return (dx, dy, dz)
    determinant = c * c - s * s
    if abs(determinant) < 0.35:
        return None
    return ((c * dx - s * dy) / determinant, (c * dy - s * dx) / determinant, dz)


def gather(scene: Scene, margins: Margins) -> Facts:
    """Work out the facts of a scene's seen objects; an object that no view sees is left out altogether."""
    objects = tuple(o for o in scene.objects if not o.visible_pixels or max(o.visible_pixels) > 0)
    count = len(objects)
    boxes = np.array([o.box for o in objects], dtype=np.float64).reshape(count, 6)
    index = {o.id: i for i, o in enumerate(objects)}
    having: dict[str, dict[str, int]] = {"category": {}, "colour": {}, "size": {}, "material": {}}
    clear = 0
    on = [0] * count
    supporter = [-1] * count
    sizes = []
    for i, thing in enumerate(objects):
        attributes = thing.attributes
        for kind, words in having.items():
            word = thing.label if kind == "category" else attributes.get(kind)
            if word is not None:
                words[word] = words.get(word, 0) | 1 << i
        if not thing.visible_pixels or max(thing.visible_pixels) >= margins.clear_pixels:
            clear |= 1 << i
        below = attributes.get("supported_by")
        supporter[i] = -1 if below is None else index.get(below, -1)
        if supporter[i] >= 0:
            on[supporter[i]] |= 1 << i
        sizes.append(own_size(thing.box, float(attributes.get("yaw") or 0.0)))
    gaps = box_distance(boxes, boxes)
    beside, maybe = _beside(gaps, boxes, supporter, margins)
    between = boxes[:, None, :3] - boxes[None, :, :3]
    return Facts(
        objects=objects,
        margins=margins,
        boxes=boxes,
        places=tuple((float(x), float(y)) for x, y in boxes[:, :2]),
        everyone=(1 << count) - 1,
        clear=clear,
        having=having,
        supporter=tuple(supporter),
        on=tuple(on),
        beside=masks(beside),
        maybe_beside=masks(maybe),
        between_centres=np.sqrt((between * between).sum(-1)).tolist(),
        between_boxes=gaps.tolist(),
        volume=tuple(math.nan if s is None else s[0] * s[1] * s[2] for s in sizes),
        longest=tuple(math.nan if s is None else max(s) for s in sizes),
    )


def _beside(
    gaps: np.ndarray, boxes: np.ndarray, supporter: list[int], margins: Margins
) -> tuple[np.ndarray, np.ndarray]:
    """Who is certainly, and who is perhaps, next to whom.

    Certainly: near, at the same height, and on the same thing (or both on none). What is above or below the
    other, or on different furniture, is at most perhaps next to it; what stands on the other is not.
    """
    stacked = box_distance(boxes, boxes, axes=2) <= 0.0
    low, high = boxes[:, 2] - boxes[:, 5] / 2, boxes[:, 2] + boxes[:, 5] / 2
    level = np.minimum(high[:, None], high) - np.maximum(low[:, None], low) > 0.1
    base = np.array(supporter)
    maybe = gaps < margins.apart
    np.fill_diagonal(maybe, False)
    for i, below in enumerate(supporter):
        while below >= 0:
            maybe[i, below] = maybe[below, i] = False
            below = supporter[below]
    return maybe & (gaps < margins.beside) & ~stacked & level & (base[:, None] == base), maybe
