"""The words: few, lower case, and always the same, because a tiny tokenizer and a tiny model learn them."""

from collections.abc import Sequence

DIRECTIONS: tuple[str, ...] = ("front", "left", "behind", "right")
WHERE: dict[str, str] = {
    "front": "in front of me",
    "left": "to my left",
    "behind": "behind me",
    "right": "to my right",
}
WHERE_ALSO: dict[str, str] = {
    "front": "ahead of me",
    "left": "on my left",
    "behind": "at my back",
    "right": "on my right",
}

_PLURALS = {"shelf": "shelves", "bookshelf": "bookshelves"}


def plural(noun: str) -> str:
    """The plural of a category name."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def with_article(phrase: str) -> str:
    """As "orange chair" -> "an orange chair"."""
    return ("an " if phrase[:1] in "aeiou" else "a ") + phrase


def listed(phrases: Sequence[str]) -> str:
    """As "a", "a and b", "a, b and c"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]
