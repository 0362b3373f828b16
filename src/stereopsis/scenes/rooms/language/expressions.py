"""Captions and referring expressions (the forms of Scan2Cap, ScanRefer and Multi3DRefer)."""

import dataclasses
import random
from collections.abc import Iterator
from functools import partial

from stereopsis.scenes.rooms.catalogue import CATEGORIES
from stereopsis.scenes.rooms.language.balance import Candidate, Draft
from stereopsis.scenes.rooms.language.descriptions import (
    Description,
    Names,
    described,
    evaluate,
    related,
    target,
)
from stereopsis.scenes.rooms.language.facts import Facts, bits
from stereopsis.scenes.rooms.language.vocabulary import plural, with_article
from stereopsis.scenes.rooms.paint import COLOURS, MATERIALS

_REFER = ("{the}.", "find {the}.", "i am looking for {the}.")
_REFER_SPLIT = ("this is {a}. it is {where}.", "find {a}. it is {where}.")
_EVERY = ("every {x}.", "find any {x}.", "point at each {x}.")


def captions(facts: Facts, names: Names, index: int, rng: random.Random) -> tuple[str, ...]:
    """Two or three reference captions of an object: its attributes, and where it is."""
    kinds = tuple(kind for kind in ("size", "colour", "material") if facts.word(kind, index) is not None)
    full = described(facts, index, kinds)
    brief = dataclasses.replace(full, size=None, material=None)
    relations = related(facts, names, index, rng)
    category = facts.category(index)
    if not relations:
        same = facts.mask("category", category).bit_count()
        alone = f"it is the only {category}" if same == 1 else f"it is one of {same} {plural(category)}"
        return (f"this is {with_article(full.noun())}. {alone}.", f"{with_article(brief.noun())}. {alone}.")
    main = relations[0]
    has = f"has {with_article(main.held)} on it" if main.held else f"is {main.where()}"
    other = [r for r in relations[1:] if r.relation not in ("holding", main.relation)]
    third = f"this {full.noun()} is {other[0].where()}." if other else f"this {full.noun()} {has}."
    return (
        f"this is {with_article(full.noun())}. it {has}.",
        f"{with_article(brief.noun())} {main.where()}.",
        third,
    )


def single_candidates(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    """Expressions that fit exactly one object; "unique" where it is the only one of its category."""
    for i in bits(facts.clear):
        category = facts.category(i)
        alone = facts.mask("category", category) == 1 << i
        for description in _single(facts, names, i, rng):
            if target(facts, description) == i:
                draft = partial(_refer, facts, description, i)
                kind = "unique" if alone else "multiple"
                yield Candidate(kind, category, (), draft, f"{i}")


def _single(facts: Facts, names: Names, i: int, rng: random.Random) -> Iterator[Description]:
    """Descriptions that may single an object out, some of them by relation or size."""
    category = facts.category(i)
    if name := names.pick(i, rng):
        yield name
    kinds = ((), ("colour",), ("size",), ("material",))
    for relation in related(facts, names, i, rng):
        described_too = described(facts, i, rng.choice(kinds)) if relation.relation != "closest" else relation
        yield dataclasses.replace(
            relation, colour=described_too.colour, size=described_too.size, material=described_too.material
        )
    for superlative in ("largest", "smallest"):
        if facts.mask("category", category) != 1 << i:
            yield Description(category=category, superlative=superlative)


def _refer(facts: Facts, description: Description, i: int, rng: random.Random) -> Draft:
    split = description.relation in ("on", "beside")
    templates = (*_REFER, *_REFER_SPLIT) if split else _REFER
    text = rng.choice(templates).format(
        the=description.the(), a=with_article(description.noun()), where=description.where()
    )
    return Draft(text, (), (facts.objects[i].id,))


def multi_candidates(facts: Facts, names: Names, rng: random.Random) -> Iterator[Candidate]:
    """Expressions that fit none, one or several objects, worded alike, so that the words do not tell."""
    for description in _several(facts, names, rng):
        sure, maybe = evaluate(facts, description)
        if sure != maybe or not facts.all_clear(sure):
            continue
        category = description.category
        mask = facts.everyone if category is None else facts.mask("category", category)
        if not sure and not facts.all_clear(mask):
            continue
        number = ("zero", "one", "many")[min(sure.bit_count(), 2)]
        kind = {"zero": "zt", "one": "st", "many": "mt"}[number]
        if number != "many":
            others = category is not None and mask & ~sure
            kind += "_w_d" if others else "_wo_d"
        kinds = ("category", "colour", "material", "relation")
        words = {kind: getattr(description, kind) for kind in kinds if getattr(description, kind)}
        cues: tuple[str, ...] = (*(f"about {word}" for word in words.values()), f"form {' '.join(words)}")
        if description.anchor is not None:
            cues += (f"anchor {description.anchor.category}",)
        draft = partial(_every, facts, description, sure, kind)
        yield Candidate("multi", number, cues, draft, "|".join(cues))


def _several(facts: Facts, names: Names, rng: random.Random) -> Iterator[Description]:
    present = facts.having["category"]
    for category in (*present, *rng.sample(CATEGORIES, 8)):
        yield Description(category=category)
    for category in present:
        for colour in rng.sample(COLOURS, 2):
            yield Description(category=category, colour=colour)
        yield Description(category=category, material=rng.choice(MATERIALS))
    for i in bits(facts.clear):
        yield described(facts, i, tuple(k for k in ("colour",) if facts.word(k, i) is not None))
        yield described(facts, i, tuple(k for k in ("material",) if facts.word(k, i) is not None))
    for word in COLOURS:
        yield Description(colour=word)
    for word in MATERIALS:
        yield Description(material=word)
    for j in bits(names.named):
        if (anchor := names.pick(j, rng)) is None:
            continue
        for relation, near in (("on", facts.on[j]), ("beside", facts.beside[j])):
            wanted = {facts.category(i) for i in bits(near)}
            if wanted:
                wanted.add(rng.choice(sorted(present)))
            for category in sorted(wanted - {facts.category(j)}):
                yield Description(category=category, relation=relation, anchor=anchor)


def _every(facts: Facts, description: Description, mask: int, kind: str, rng: random.Random) -> Draft:
    text = rng.choice(_EVERY).format(x=description.words())
    return Draft(text, (), tuple(facts.objects[i].id for i in bits(mask)), kind)
