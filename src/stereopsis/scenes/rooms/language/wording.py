"""How drafts with a number or with lettered choices are written."""

import random
from collections.abc import Sequence

from stereopsis.scenes.rooms.language.balance import Draft
from stereopsis.scenes.rooms.language.facts import Facts, bits

LETTERS = "ABCD"


def numbered(facts: Facts, text: str, answer: str, mask: int) -> Draft:
    """A question that is answered by a number, about the objects of a mask."""
    return Draft(text, (answer,), tuple(facts.objects[i].id for i in bits(mask)))


def chosen_from(facts: Facts, text: str, right: str, options: Sequence[str], mask: int, rng: random.Random) -> Draft:
    """A question that is answered by the letter of the right option; the options are shuffled."""
    shuffled = rng.sample(list(options), len(options))
    lettered = tuple(f"{letter}. {option}" for letter, option in zip(LETTERS, shuffled, strict=False))
    ids = tuple(facts.objects[i].id for i in bits(mask))
    return Draft(text, (LETTERS[shuffled.index(right)],), ids, options=lettered)
