"""What can be asked by somebody who stands somewhere in the room (the form of SQA3D)."""

import itertools
import random
from collections.abc import Iterator
from functools import partial

from stereopsis.scenes.rooms.language.balance import Candidate, Draft
from stereopsis.scenes.rooms.language.descriptions import Names
from stereopsis.scenes.rooms.language.facts import Facts, bits
from stereopsis.scenes.rooms.language.situations import Situation
from stereopsis.scenes.rooms.language.vocabulary import DIRECTIONS, WHERE, WHERE_ALSO, plural

_DIRECTION = (
    "is {x} to my left, to my right, in front or behind?",
    "where is {x}: left, right, front or behind?",
    "in which direction is {x}, left, right, front or behind?",
)
_WHAT = ("what is the closest thing {where}?", "which object {where} is closest to me?")
_COUNT = ("how many {things} are {where}?", "how many {things} do i have {where}?")
_COLOUR = ("what colour is the {thing} {where}?", "what is the colour of the {thing} {where}?")
_WHICH = ("which is closer to me, {x} or {y}?", "is {x} or {y} nearer to me?")


def situated_candidates(
    facts: Facts, names: Names, situations: list[Situation], rng: random.Random
) -> Iterator[Candidate]:
    """Everything that can be asked in each of the situations."""
    for number, situation in enumerate(situations):
        said = _Said(facts, names, situation, number)
        yield from said.directions()
        yield from said.nearest()
        yield from said.presence(rng)
        yield from said.counts(rng)
        yield from said.colours()
        yield from said.closer(rng)


def _where(direction: str, rng: random.Random) -> str:
    return WHERE[direction] if rng.random() < 0.6 else WHERE_ALSO[direction]


class _Said:
    """The questions of one situation."""

    def __init__(self, facts: Facts, names: Names, situation: Situation, number: int) -> None:
        self.facts, self.names, self.situation, self.number = facts, names, situation, number
        anchors = sorted(facts.category(i) for i in bits(situation.anchors))
        self.cues = (f"kind {situation.kind}", *(f"at {anchor}" for anchor in dict.fromkeys(anchors)))
        self.quarter = {
            j: direction
            for direction in DIRECTIONS
            for j in bits(situation.sure[direction] & names.named & ~situation.anchors)
        }

    def directions(self) -> Iterator[Candidate]:
        for j, direction in self.quarter.items():
            cues = (f"about {self.facts.category(j)}", *self.cues)
            yield Candidate("direction", direction, cues, partial(self._direction, j, direction), f"{j}")

    def _direction(self, j: int, direction: str, rng: random.Random) -> Draft | None:
        if (name := self.names.pick(j, rng)) is None:
            return None
        return self._draft(rng.choice(_DIRECTION).format(x=name.the()), (direction,), (j,))

    def nearest(self) -> Iterator[Candidate]:
        for direction in DIRECTIONS:
            j = self.situation.nearest(self.situation.maybe[direction], self.facts.margins)
            if j is None or not (self.situation.sure[direction] & self.facts.clear) >> j & 1:
                continue
            if self.situation.anchors >> j & 1:
                continue
            category = self.facts.category(j)
            cues = (f"where {direction}", *self.cues)
            yield Candidate("situated_what", category, cues, partial(self._nearest, j, direction))

    def _nearest(self, j: int, direction: str, rng: random.Random) -> Draft:
        text = rng.choice(_WHAT).format(where=_where(direction, rng))
        return self._draft(text, answer_names(self.facts, j), (j,))

    def presence(self, rng: random.Random) -> Iterator[Candidate]:
        for j, direction in self.quarter.items():
            wrong = rng.choice([d for d in DIRECTIONS if d != direction])
            for asked, answer in ((direction, "yes"), (wrong, "no")):
                cues = (f"about {self.facts.category(j)}", f"where {asked}", *self.cues)
                yield Candidate("situated_is", answer, cues, partial(self._is, j, asked, answer), f"{self.number} {j}")
        for category, mask in self.facts.having["category"].items():
            if mask & self.situation.anchors or not self.facts.all_clear(mask):
                continue
            asked = rng.choice(DIRECTIONS)
            if mask & self.situation.sure[asked]:
                answer = "yes"
            elif not mask & self.situation.maybe[asked]:
                answer = "no"
            else:
                continue
            cues = (f"any {category}", f"where {asked}", *self.cues)
            yield Candidate("situated_is", answer, cues, partial(self._any, category, asked, answer))

    def _is(self, j: int, asked: str, answer: str, rng: random.Random) -> Draft | None:
        if (name := self.names.pick(j, rng)) is None:
            return None
        return self._draft(f"is {name.the()} {_where(asked, rng)}?", (answer,), (j,))

    def _any(self, category: str, asked: str, answer: str, rng: random.Random) -> Draft:
        found = bits(self.facts.mask("category", category) & self.situation.sure[asked])
        return self._draft(f"is there a {category} {_where(asked, rng)}?", (answer,), tuple(found))

    def counts(self, rng: random.Random) -> Iterator[Candidate]:
        for category, mask in self.facts.having["category"].items():
            if mask & self.situation.anchors or not self.facts.all_clear(mask):
                continue
            empty = rng.choice(DIRECTIONS)  # one nought per category is plenty to choose from
            for direction in DIRECTIONS:
                sure = mask & self.situation.sure[direction]
                if sure == mask & self.situation.maybe[direction] and (sure or direction == empty):
                    cues = (f"about {category}", f"where {direction}", *self.cues)
                    draft = partial(self._count, category, direction, sure)
                    yield Candidate("situated_count", str(sure.bit_count()), cues, draft)

    def _count(self, category: str, direction: str, mask: int, rng: random.Random) -> Draft:
        text = rng.choice(_COUNT).format(things=plural(category), where=_where(direction, rng))
        return self._draft(text, (str(mask.bit_count()),), tuple(bits(mask)))

    def colours(self) -> Iterator[Candidate]:
        for category, mask in self.facts.having["category"].items():
            for direction in DIRECTIONS:
                sure = mask & self.situation.sure[direction]
                j = self.facts.only(sure)
                if j is None or sure != mask & self.situation.maybe[direction] or not self.facts.all_clear(sure):
                    continue
                colour = self.facts.word("colour", j)
                if colour is None or sure & self.situation.anchors:
                    continue
                cues = (f"about {category}", f"where {direction}")
                draft = partial(self._colour, category, direction, j, colour)
                yield Candidate("situated_colour", colour, cues, draft)

    def _colour(self, category: str, direction: str, j: int, colour: str, rng: random.Random) -> Draft:
        text = rng.choice(_COLOUR).format(thing=category, where=_where(direction, rng))
        return self._draft(text, (colour,), (j,))

    def closer(self, rng: random.Random) -> Iterator[Candidate]:
        named = list(bits(self.names.named & ~self.situation.anchors))
        rng.shuffle(named)
        for one, other in itertools.pairwise(named):
            if self.facts.category(one) == self.facts.category(other):
                continue
            winner = self.situation.nearest(1 << one | 1 << other, self.facts.margins)
            if winner is None:
                continue
            pair = sorted(self.facts.category(j) for j in (one, other))
            answer = "first" if self.facts.category(winner) == pair[0] else "second"
            cues = (f"pair {pair[0]} {pair[1]}", *self.cues)
            yield Candidate("situated_which", answer, cues, partial(self._which, one, other, winner))

    def _which(self, one: int, other: int, winner: int, rng: random.Random) -> Draft | None:
        first, second = self.names.pick(one, rng), self.names.pick(other, rng)
        if first is None or second is None:
            return None
        text = rng.choice(_WHICH).format(x=first.the(), y=second.the())
        best = first if winner == one else second
        return self._draft(text, unique((self.facts.category(winner), best.words())), (winner,))

    def _draft(self, text: str, answers: tuple[str, ...], about: tuple[int, ...]) -> Draft:
        ids = tuple(self.facts.objects[i].id for i in about)
        return Draft(text, answers, ids, situation=self.number)


def answer_names(facts: Facts, index: int) -> tuple[str, ...]:
    """How an object may be named in an answer: its category, or with its colour."""
    colour = facts.word("colour", index)
    category = facts.category(index)
    return (category,) if colour is None else (category, f"{colour} {category}")


def unique(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without repetitions, in order."""
    return tuple(dict.fromkeys(words))
