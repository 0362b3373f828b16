"""What can be asked about the room as a whole (the form of ScanQA)."""

import random
from collections.abc import Iterator
from functools import partial

from stereopsis.scenes.rooms.catalogue import CATEGORIES
from stereopsis.scenes.rooms.language.balance import Candidate, Draft
from stereopsis.scenes.rooms.language.descriptions import Description, Names, core
from stereopsis.scenes.rooms.language.facts import Facts, bits
from stereopsis.scenes.rooms.language.situated import answer_names, unique
from stereopsis.scenes.rooms.language.vocabulary import plural, with_article
from stereopsis.scenes.rooms.paint import COLOURS, MATERIALS

_COUNT = ("how many {things} are in the room?", "how many {things} are there?")
_IS_THERE = ("is there {thing} in the room?", "does the room have {thing}?")
_IS_ON = ("is there {thing} on {x}?", "does {x} have {thing} on it?")
_COLOUR = ("what colour is {x}?", "what is the colour of {x}?")
_PATTERN = (
    "is {x} plain, striped, checkered or wooden?",
    "what does {x} look like: plain, striped, checkered or wooden?",
)
_ON = ("what is on top of {x}?", "what is on {x}?")
_UNDER = ("what is {x} on?", "what is {x} standing on?")
_NEAREST = ("what is the closest object to {x}?", "which object is closest to {x}?")
_LARGER = ("which is larger, {x} or {y}?", "is {x} or {y} bigger?")
_CLOSER = ("which is closer to {z}, {x} or {y}?", "is {x} or {y} closer to {z}?")


def room_candidates(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    """Everything that can be asked about the room."""
    yield from _counts(facts)
    yield from _existence(facts, names, rng)
    yield from _attributes(facts, names, rng)
    yield from _supports(facts, names)
    yield from _nearest(facts, names)
    yield from _comparisons(facts, names, rng)


def _draft(facts: Facts, text: str, answers: tuple[str, ...], mask: int) -> Draft:
    return Draft(text, answers, tuple(facts.objects[i].id for i in bits(mask)))


def _counts(facts: Facts) -> Iterator[Candidate]:
    wanted = [Description(category=category) for category in CATEGORIES]
    wanted += [Description(colour=colour) for colour in COLOURS]
    wanted += [Description(material=material) for material in MATERIALS]
    for category, mask in facts.having["category"].items():
        for colour, same in facts.having["colour"].items():
            if mask & same and mask & (mask - 1):
                wanted.append(Description(category=category, colour=colour))
    for description in wanted:
        mask = core(facts, description)
        if facts.all_clear(mask):
            words = {kind: getattr(description, kind) for kind in ("category", "colour", "material")}
            form = "+".join(kind for kind, word in words.items() if word)
            cues = (*(f"about {word}" for word in words.values() if word), f"form {form}")
            draft = partial(_count, facts, description, mask)
            yield Candidate("count", str(mask.bit_count()), cues, draft, form)


def _count(facts: Facts, description: Description, mask: int, rng: random.Random) -> Draft:
    noun = plural(description.category or "object")
    text = rng.choice(_COUNT).format(things=description.noun(noun))
    return _draft(facts, text, (str(mask.bit_count()),), mask)


def _existence(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    for category in CATEGORIES:
        mask = facts.mask("category", category)
        if facts.all_clear(mask):
            bare = Description(category=category)
            cues = (f"any {category}", "form category")
            answer = "yes" if mask else "no"
            yield Candidate("existence", answer, cues, partial(_exists, facts, bare, mask), "category")
        for kind, words in (("colour", COLOURS), ("material", MATERIALS)):
            if mask and facts.all_clear(mask):
                yield from _existence_with(facts, category, kind, mask, words, rng)
    for below in bits(names.named):
        yield from _existence_on(facts, names, below, rng)


def _existence_with(
    facts: Facts, category: str, kind: str, mask: int, words: tuple[str, ...], rng: random.Random
) -> Iterator[Candidate]:
    """Of a category that is there: in a colour (or pattern) that it has, and in one that it has not."""
    there = [word for word in words if mask & facts.mask(kind, word)]
    missing = [word for word in words if word not in there]
    for answer, options in (("yes", there), ("no", missing)):
        if options:
            word = rng.choice(options)
            colour, material = (word, None) if kind == "colour" else (None, word)
            description = Description(category=category, colour=colour, material=material)
            cues = (f"with {category}", f"about {word}", f"form {kind}")
            found = mask & facts.mask(kind, word)
            yield Candidate("existence", answer, cues, partial(_exists, facts, description, found), category)


def _exists(facts: Facts, description: Description, mask: int, rng: random.Random) -> Draft:
    text = rng.choice(_IS_THERE).format(thing=with_article(description.noun()))
    return _draft(facts, text, ("yes" if mask else "no",), mask)


def _existence_on(facts: Facts, names: Names, below: int, rng: random.Random) -> Iterator[Candidate]:
    """Of small things that are in the room: whether one is on this piece of furniture."""
    small = {facts.category(i) for i in range(len(facts.objects)) if facts.supporter[i] >= 0}
    for category in sorted(small):
        there = facts.mask("category", category)
        if not facts.all_clear(there) or there >> below & 1 or facts.supporter[below] >= 0:
            continue
        found = there & facts.on[below]
        cues = (f"is {category} on", f"on {facts.category(below)}", "form on")
        draft = partial(_exists_on, facts, names, category, below, found)
        yield Candidate("existence", "yes" if found else "no", cues, draft, "on")


def _exists_on(facts: Facts, names: Names, category: str, below: int, mask: int, rng: random.Random) -> Draft | None:
    if (name := names.pick(below, rng)) is None:
        return None
    text = rng.choice(_IS_ON).format(thing=with_article(category), x=name.the())
    return _draft(facts, text, ("yes" if mask else "no",), mask)


def _attributes(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    asked = (("colour", "colour", _COLOUR), ("pattern", "material", _PATTERN))
    for i in bits(facts.clear):
        for kind, attribute, templates in asked:
            word = facts.word(attribute, i)
            if word is None:
                continue
            description = _name_without(facts, names, i, attribute, rng)
            if description is None:
                continue
            cues = [f"about {description.category or 'object'}"]
            if description.anchor is not None:
                cues.append(f"anchor {description.anchor.category}")
                cues.append(f"anchor {description.anchor.colour}")
            draft = partial(_attribute, facts, description, i, word, templates)
            yield Candidate(kind, word, tuple(cues), draft)


def _name_without(facts: Facts, names: Names, i: int, attribute: str, rng: random.Random) -> Description | None:
    """A unique description that does not give the attribute away."""
    options: list[Description] = []
    if name := names.pick(i, rng, without=attribute):
        options.append(name)
    below = facts.supporter[i]
    if below >= 0 and facts.on[below] == 1 << i and (anchor := names.pick(below, rng)):
        options.append(Description(relation="on", anchor=anchor))
    same = facts.mask("category", facts.category(i))
    if same != 1 << i:
        for superlative in ("largest", "smallest"):
            if facts.biggest(same, smallest=superlative == "smallest") == i:
                options.append(Description(category=facts.category(i), superlative=superlative))
    return rng.choice(options) if options else None


def _attribute(
    facts: Facts, description: Description, i: int, word: str, templates: tuple[str, ...], rng: random.Random
) -> Draft:
    return _draft(facts, rng.choice(templates).format(x=description.the()), (word,), 1 << i)


def _supports(facts: Facts, names: Names) -> Iterator[Candidate]:
    for below in bits(names.named):
        above = facts.only(facts.on[below])
        if above is not None and facts.clear >> above & 1:
            cues = (f"on {facts.category(below)}", "form on")
            draft = partial(_relation, facts, names, below, above, _ON)
            yield Candidate("relation", facts.category(above), cues, draft, f"{above} {below}")
    for above in bits(names.named):
        below = facts.supporter[above]
        if below >= 0 and facts.clear >> below & 1:
            cues = (f"under {facts.category(above)}", "form under")
            draft = partial(_relation, facts, names, above, below, _UNDER)
            yield Candidate("relation", facts.category(below), cues, draft, f"{above} {below}")


def _relation(
    facts: Facts, names: Names, asked: int, answer: int, templates: tuple[str, ...], rng: random.Random
) -> Draft | None:
    if (name := names.pick(asked, rng)) is None:
        return None
    text = rng.choice(templates).format(x=name.the())
    return _draft(facts, text, answer_names(facts, answer), 1 << answer)


def _nearest(facts: Facts, names: Names) -> Iterator[Candidate]:
    for i in bits(names.named):
        if facts.supporter[i] >= 0 or facts.on[i]:
            continue  # what is closest to the thing on or under it is a matter of taste
        j = facts.closest(i, facts.everyone)
        if j is not None and facts.clear >> j & 1:
            cues = (f"about {facts.category(i)}",)
            draft = partial(_relation, facts, names, i, j, _NEAREST)
            yield Candidate("nearest", facts.category(j), cues, draft)


def _comparisons(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    things = list(bits(names.named))
    pairs = [(i, j) for n, i in enumerate(things) for j in things[n + 1 :]]
    for i, j in pairs:
        winner = facts.larger_of(i, j)
        if winner is not None:
            yield _versus(facts, names, "larger", i, j, winner, None)
    for i, j in rng.sample(pairs, min(16, len(pairs))):
        z = rng.choice(things)
        winner = None if z in (i, j) else facts.nearer_of(z, i, j)
        if winner is not None and not (facts.supporter[i] == z or facts.supporter[j] == z):
            yield _versus(facts, names, "closer", i, j, winner, z)


def _versus(facts: Facts, names: Names, kind: str, i: int, j: int, winner: int, z: int | None) -> Candidate:
    """Which of two: the answer class is whether the alphabetically first category wins, or the first colour.

    Things are told apart by colour and pattern, never by their size, which would give the larger one away.
    """
    first, second = facts.category(i), facts.category(j)
    if first == second:
        first, second = facts.word("colour", i) or "", facts.word("colour", j) or ""
    cues: tuple[str, ...] = (f"pair {min(first, second)} {max(first, second)}",)
    if z is not None:
        cues += (f"to {facts.category(z)}",)
    won = first if winner == i else second
    answer = "first" if won == min(first, second) else "second"
    return Candidate(kind, answer, cues, partial(_which, facts, names, i, j, winner, z))


def _which(facts: Facts, names: Names, i: int, j: int, winner: int, z: int | None, rng: random.Random) -> Draft | None:
    if rng.random() < 0.5:
        i, j = j, i
    x, y = names.pick(i, rng, without="size"), names.pick(j, rng, without="size")
    to = None if z is None else names.pick(z, rng)
    if x is None or y is None or (z is not None and to is None):
        return None
    templates = _LARGER if to is None else _CLOSER
    text = rng.choice(templates).format(x=x.the(), y=y.the(), z="" if to is None else to.the())
    best = (x if winner == i else y).words()
    short = facts.category(winner)
    answers = (best,) if facts.category(i) == facts.category(j) else unique((short, best))
    return _draft(facts, text, answers, 1 << winner)
