"""A small grammar of descriptions, each of which evaluates to the set of objects that it fits."""

import dataclasses
import random

from stereopsis.scenes.rooms.language.facts import Facts, bits
from stereopsis.scenes.rooms.language.vocabulary import with_article

RELATION_WORDS: dict[str, str] = {
    "on": "on",
    "beside": "next to",
    "closest": "closest to",
    "farthest": "farthest from",
}
_ATTRIBUTE_SETS: tuple[tuple[str, ...], ...] = (
    (),
    ("colour",),
    ("size",),
    ("material",),
    ("size", "colour"),
    ("colour", "material"),
    ("size", "material"),
    ("size", "colour", "material"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """A noun phrase: "large red striped chair next to the desk".

    Attributes:
        category: its noun; None says "object".
        colour: a word, or nothing.
        size: "small" or "large", or nothing.
        material: a word, or nothing.
        superlative: "largest" or "smallest" of what the words before fit, or nothing.
        relation: a key of `RELATION_WORDS`, or "holding" ("with a lamp on it"), or nothing.
        anchor: the unique description of the relation's other side.
        held: the category that a "holding" relation names.
    """

    category: str | None = None
    colour: str | None = None
    size: str | None = None
    material: str | None = None
    superlative: str | None = None
    relation: str | None = None
    anchor: "Description | None" = None
    held: str | None = None

    def noun(self, noun: str | None = None) -> str:
        """The phrase without its relation; `noun` replaces the category's word (for plurals)."""
        words = (self.superlative, self.size, self.colour, self.material, noun or self.category or "object")
        return " ".join(word for word in words if word)

    def where(self) -> str:
        """The relation in words, without the noun."""
        if self.relation == "holding" and self.held:
            return f"with {with_article(self.held)} on it"
        if self.relation and self.anchor:
            return f"{RELATION_WORDS[self.relation]} {self.anchor.the()}"
        return ""

    def words(self) -> str:
        """The whole phrase without an article."""
        where = self.where()
        return f"{self.noun()} {where}" if where else self.noun()

    def the(self) -> str:
        """The whole phrase with its definite article."""
        return "the " + self.words()


def core(facts: Facts, description: Description) -> int:
    """Mask of the objects that category and attributes fit, before superlative and relation."""
    mask = facts.everyone
    if description.category is not None:
        mask &= facts.mask("category", description.category)
    if description.colour is not None:
        mask &= facts.mask("colour", description.colour)
    if description.size is not None:
        mask &= facts.mask("size", description.size)
    if description.material is not None:
        mask &= facts.mask("material", description.material)
    return mask


def evaluate(facts: Facts, description: Description) -> tuple[int, int]:
    """Masks of the objects that the description certainly fits, and of those that it may fit.

    A statement may be built on the description only where the two are equal.
    """
    mask = core(facts, description)
    if description.superlative is not None:
        best = facts.biggest(mask, smallest=description.superlative == "smallest")
        mask, doubtful = (0, mask) if best is None else (1 << best, 1 << best)
        if doubtful != mask:
            return mask, doubtful
    if description.relation is None:
        return mask, mask
    if description.relation == "holding":
        held = facts.mask("category", description.held or "")
        holders = sum(1 << i for i in bits(mask) if facts.on[i] & held)
        return holders, holders
    anchor = None if description.anchor is None else target(facts, description.anchor)
    if anchor is None:
        return 0, mask
    if description.relation == "on":
        return mask & facts.on[anchor], mask & facts.on[anchor]
    if description.relation == "beside":
        return mask & facts.beside[anchor], mask & facts.maybe_beside[anchor]
    find = facts.closest if description.relation == "closest" else facts.farthest
    best = find(anchor, mask)
    return (0, mask) if best is None else (1 << best, 1 << best)


def target(facts: Facts, description: Description) -> int | None:
    """The index of the one object that the description fits beyond doubt, or None."""
    sure, maybe = evaluate(facts, description)
    return facts.only(sure) if sure == maybe else None


class Names:
    """Short unique names of a room's objects, from category and attributes alone.

    An object that attributes cannot single out, or that no view shows clearly, has none.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.kinds: list[tuple[tuple[str, ...], ...]] = [
            _unique_attribute_sets(facts, i) if facts.clear >> i & 1 else () for i in range(len(facts.objects))
        ]
        self.named = sum(1 << i for i, kinds in enumerate(self.kinds) if kinds)

    def pick(self, index: int, rng: random.Random, without: str = "") -> Description | None:
        """A unique name without the attribute `without`: mostly the shortest, sometimes a richer one."""
        kinds = self.kinds[index]
        if without:
            kinds = tuple(kind for kind in kinds if without not in kind)
        if not kinds:
            return None
        short = [kind for kind in kinds if len(kind) <= max(len(kinds[0]), 1)]
        kind = kinds[0] if rng.random() < 0.6 else rng.choice(short)
        return described(self.facts, index, kind)


def described(facts: Facts, index: int, kinds: tuple[str, ...]) -> Description:
    """The description of an object by its category and these attributes."""
    attributes = facts.objects[index].attributes
    return Description(category=facts.category(index), **{kind: attributes[kind] for kind in kinds})


def _unique_attribute_sets(facts: Facts, index: int) -> tuple[tuple[str, ...], ...]:
    """The attribute sets that, with the category, fit this object only; the smallest first."""
    words = {kind: facts.word(kind, index) for kind in ("colour", "size", "material")}
    same = {kind: facts.mask(kind, word) for kind, word in words.items() if word is not None}
    category = facts.mask("category", facts.category(index))
    found = []
    for kinds in _ATTRIBUTE_SETS:
        mask = category
        for kind in kinds:
            mask &= same.get(kind, 0)
        if mask == 1 << index:
            found.append(kinds)
    return tuple(found)


def related(facts: Facts, names: Names, index: int, rng: random.Random) -> list[Description]:
    """Relations that hold for an object, as descriptions by category and relation, the most telling first.

    On something, holding something, next to something; then closest to or farthest from it among its kind.
    """
    category = facts.category(index)
    found = []
    below = facts.supporter[index]
    if below >= 0 and (anchor := names.pick(below, rng)):
        found.append(Description(category=category, relation="on", anchor=anchor))
    for held in sorted({facts.category(j) for j in bits(facts.on[index] & facts.clear)}):
        found.append(Description(category=category, relation="holding", held=held))
    neighbours = sorted(bits(facts.beside[index] & names.named), key=lambda j: facts.between_boxes[index][j])
    for j in neighbours[:2]:
        if anchor := names.pick(j, rng):
            found.append(Description(category=category, relation="beside", anchor=anchor))
    same = facts.mask("category", category)
    if same & (same - 1):
        others = bits(names.named & ~same)
        for j in rng.sample(others, min(4, len(others))):
            for relation, find in (("closest", facts.closest), ("farthest", facts.farthest)):
                if find(j, same) == index and (anchor := names.pick(j, rng)):
                    found.append(Description(category=category, relation=relation, anchor=anchor))
    return found
