"""What a video of the room can be asked: the question types of VSI-Bench, in a few words of our own.

Distances are those between the surfaces of boxes, directions those between their centres, seen from above. The views,
in the order of the walk, are the video. Choices carry their letters ("B. red chair"); the answer is a letter then.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import partial

from stereopsis.scenes.rooms.catalogue import CATEGORIES
from stereopsis.scenes.rooms.language.balance import Candidate, Draft
from stereopsis.scenes.rooms.language.descriptions import Names, described
from stereopsis.scenes.rooms.language.facts import Facts, bits, clear_minimum
from stereopsis.scenes.rooms.language.standpoints import direction_candidates, route_candidates
from stereopsis.scenes.rooms.language.vocabulary import listed, plural
from stereopsis.scenes.rooms.language.wording import chosen_from, numbered
from stereopsis.scenes.scene import Scene

CHOICES = 4
_SETS = 40  # of four things around an anchor that are looked at in a room
_COUNT = ("how many {things} are in the room?", "how many {things} are there in this room?")
_APART = (
    "how many metres are {x} and {y} apart, from the closest point of one to that of the other?",
    "what is the distance between the closest points of {x} and {y}, in metres?",
)
_SIZE = (
    "how many centimetres does the longest side of {x} measure?",
    "what is the length of the longest side of {x}, in centimetres?",
)
_ROOM = ("how large is this room, in square metres?", "what is the area of the floor, in square metres?")
_NEAREST = (
    "which of these is closest to {x}, from closest point to closest point?",
    "measured between closest points, which of these objects is nearest to {x}?",
)
_ORDER = (
    "in which order do these first appear in the video: {things}?",
    "what comes into view first, and what then: {things}?",
)


def video_candidates(scene: Scene, facts: Facts, names: Names, rng: random.Random) -> list[Candidate]:
    """Everything of these types that could be asked about a room."""
    return [
        *_counts(facts),
        *_distances(facts, names),
        *_sizes(facts),
        *_floor(scene),
        *_nearest(facts, names, rng),
        *_orders(facts, rng),
        *direction_candidates(facts, names, rng),
        *route_candidates(facts, names, rng),
    ]


def _counts(facts: Facts) -> Iterator[Candidate]:
    """How many of a category that is there; never of one that is not, as errors are relative."""
    for category in CATEGORIES:
        mask = facts.mask("category", category)
        if mask and facts.all_clear(mask):
            number = mask.bit_count()
            draft = partial(_count, facts, category, mask, str(number))
            yield Candidate("object_counting", "", (f"about {category}={min(number, 3)}",), draft)


def _count(facts: Facts, category: str, mask: int, answer: str, rng: random.Random) -> Draft:
    return numbered(facts, rng.choice(_COUNT).format(things=plural(category)), answer, mask)


def _grade(value: float, borders: Sequence[float]) -> str:
    """Which interval of sizes or distances it lies in: the answer class of a number."""
    return str(sum(value >= border for border in borders))


def _distances(facts: Facts, names: Names) -> Iterator[Candidate]:
    for i, j in itertools.combinations(bits(names.named), 2):
        metres = facts.between_boxes[i][j]
        if metres >= facts.margins.distance:
            first, second = sorted((facts.category(i), facts.category(j)))
            cues = (f"about {first}", f"about {second}", f"pair {first} {second}")
            draft = partial(_apart, facts, names, i, j)
            yield Candidate("object_abs_distance", _grade(metres, (1.0, 1.7, 2.6)), cues, draft, f"{i} {j}")


def _apart(facts: Facts, names: Names, i: int, j: int, rng: random.Random) -> Draft | None:
    if rng.random() < 0.5:
        i, j = j, i
    x, y = names.pick(i, rng), names.pick(j, rng)
    if x is None or y is None:
        return None
    text = rng.choice(_APART).format(x=x.the(), y=y.the())
    return numbered(facts, text, f"{facts.between_boxes[i][j]:.1f}", 1 << i | 1 << j)


def _sizes(facts: Facts) -> Iterator[Candidate]:
    """Things are named by colour and pattern: their category would tell how large they are."""
    for i in bits(facts.clear):
        if not facts.longest[i] > 0:  # nan: the box around a turned thing says too little
            continue
        for kinds in (("colour",), ("material",), ("colour", "material")):
            words = {kind: facts.word(kind, i) for kind in kinds}
            mask = facts.everyone
            for kind, word in words.items():
                mask &= facts.mask(kind, word or "")
            if mask == 1 << i:
                cues = (*(f"about {word}" for word in words.values()), f"form {' '.join(kinds)}")
                draft = partial(_size, facts, i, kinds)
                grade = _grade(facts.longest[i], (0.6, 0.95, 1.5))
                yield Candidate("object_size_estimation", grade, cues, draft, f"{i}")


def _size(facts: Facts, i: int, kinds: tuple[str, ...], rng: random.Random) -> Draft:
    name = described(facts, i, kinds).noun("object")
    return numbered(facts, rng.choice(_SIZE).format(x=f"the {name}"), str(round(100 * facts.longest[i])), 1 << i)


def _floor(scene: Scene) -> Iterator[Candidate]:
    size = scene.provenance.get("room_size")
    if size is not None:
        area = float(size[0]) * float(size[1])
        yield Candidate("room_size_estimation", _grade(area, (14.5, 18.5, 23.5)), (), partial(_area, area))


def _area(area: float, rng: random.Random) -> Draft:
    return Draft(rng.choice(_ROOM), (f"{area:.1f}",))


def _nearest(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    """Which of four is nearest to an anchor, with the margin of all comparisons.

    A category must not win by its name: of each two that are offered together either wins as often as the other,
    and beside an anchor's category each wins as often as it loses against one of the others.
    """
    things = list(bits(names.named))
    for _ in range(_SETS if len(things) > CHOICES else 0):
        anchor, *others = rng.sample(things, 1 + CHOICES)
        kinds = [facts.category(j) for j in others]
        if len(set(kinds)) < CHOICES or any(_stacked(facts, anchor, j) for j in others):
            continue
        best = clear_minimum([(facts.between_boxes[anchor][j], j) for j in others], facts.margins)
        if best is None:
            continue
        won, lost = facts.category(best), [kind for j, kind in zip(others, kinds, strict=True) if j != best]
        cues = [f"pair {min(won, k)} {max(won, k)}={'first' if won < k else 'second'}" for k in lost]
        cues += [f"to {facts.category(anchor)} from {k}={w}" for k, w in ((won, "won"), (rng.choice(lost), "lost"))]
        draft = partial(_which, facts, names, anchor, others, best)
        yield Candidate("object_rel_distance", "", tuple(cues), draft, f"{anchor}")


def _stacked(facts: Facts, i: int, j: int) -> bool:
    """Whether one of two stands on the other."""
    return facts.supporter[i] == j or facts.supporter[j] == i


def _which(facts: Facts, names: Names, anchor: int, others: list[int], best: int, rng: random.Random) -> Draft | None:
    x = names.pick(anchor, rng, without="size")
    picked = {j: names.pick(j, rng, without="size") for j in others}
    words = {j: name.words() for j, name in picked.items() if name is not None}
    if x is None or len(words) < len(others):
        return None
    text = rng.choice(_NEAREST).format(x=x.the())
    return chosen_from(facts, text, words[best], list(words.values()), 1 << anchor | 1 << best, rng)


def _orders(facts: Facts, rng: random.Random) -> Iterator[Candidate]:
    """In which order categories come into view: four of them, or three where the walk shows no four apart.

    A category appears where one of its things is well visible; it is left out where a glimpse came before.
    """
    first: dict[int, list[str]] = {}
    for category, mask in facts.having["category"].items():
        seen = [facts.objects[i].visible_pixels for i in bits(mask)]
        clear = _first_view(seen, facts.margins.clear_pixels)
        if clear is not None and clear == _first_view(seen, 1):
            first.setdefault(clear, []).append(category)
    length = min(CHOICES, len(first))
    if length < 3:
        return
    for _ in range(12):
        order = [rng.choice(first[view]) for view in sorted(rng.sample(sorted(first), length))]
        pairs = itertools.combinations(order, 2)
        cues = tuple(f"pair {min(a, b)} {max(a, b)}={'first' if a < b else 'second'}" for a, b in pairs)
        yield Candidate("obj_appearance_order", "", cues, partial(_order, facts, order), " ".join(sorted(order)))


def _first_view(seen: Sequence[Sequence[int]], pixels: int) -> int | None:
    """The first view in which one of some things has so many pixels."""
    return min((view for each in seen for view, count in enumerate(each) if count >= pixels), default=None)


def _order(facts: Facts, order: list[str], rng: random.Random) -> Draft:
    wrong = [list(p) for p in itertools.permutations(order) if list(p) != order]
    options = [", ".join(p) for p in (order, *rng.sample(wrong, CHOICES - 1))]
    text = rng.choice(_ORDER).format(things=listed(rng.sample(order, len(order))))
    mask = sum(facts.mask("category", category) for category in order)
    return chosen_from(facts, text, options[0], options, mask, rng)
