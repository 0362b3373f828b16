"""The answer cleaning that this line of work shares, and the refined match behind EM-R.

The rules are LEO's, which took them from the authors of its situated questions; Video-3D-LLM, Ross3D, 3DRS and
Chat-Scene apply them to prediction and answer alike. They are kept to the letter, oddities included ("none" means
"zero", a digit that ends a word is dropped): another cleaning is another metric.
"""

import re
from collections.abc import Iterable

_SPELLING = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}
# fmt: off
_NUMBERS = {
    "none": "zero", "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six",
    "7": "seven", "8": "eight", "9": "nine", "10": "ten", "11": "eleven", "12": "twelve", "13": "thirteen",
    "14": "fourteen", "15": "fifteen", "16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen",
    "20": "twenty", "23": "twenty-three",
}
# fmt: on
_WORDS = {**_SPELLING, **_NUMBERS}
_KNOWN_WORD = re.compile(r"\b(?:" + "|".join(sorted(_WORDS, key=len, reverse=True)) + r")\b")
_SPACES = re.compile(" {2,}")
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9,'\s\-:]+")
_SPLIT_OCLOCK = re.compile(r"\bo' +clock\b")
_NUMBERED_WORD = re.compile(r"\b([a-zA-Z]+)[0-9]\b")
_ARTICLES = tuple(re.compile(rf"\b{article}\b ([a-zA-Z]+)") for article in ("a", "an", "the"))
_BACKWARDS = re.compile(r"\bbackwards\b")


def clean_answer(text: str) -> str:
    """Bring an answer to the form that is compared.

    In this order: lower case; outer spaces off, runs of spaces to one; characters other than letters, digits,
    whitespace and , ' - : removed; known misspellings corrected ("tv" becomes "TV"); numbers 0-20 and 23, and
    "none", to words; the last digit of a word removed ("mat2"); a, an, the before a word removed; "backwards"
    to "backward".
    """
    text = _SPACES.sub(" ", _without_outer_spaces(text.lower()))
    text = _FORBIDDEN.sub("", text)
    text = _KNOWN_WORD.sub(lambda found: _WORDS[found.group()], text)
    text = _SPLIT_OCLOCK.sub("o'clock", text)
    text = _NUMBERED_WORD.sub(r"\1", text)
    for article in _ARTICLES:
        text = article.sub(r"\1", text)
    return _BACKWARDS.sub("backward", text)


def _without_outer_spaces(text: str) -> str:
    """Spaces off at both ends, also before a last line end (where a regular expression's "$" matches too)."""
    body, end = (text[:-1], "\n") if text.endswith("\n") else (text, "")
    return (body.rstrip(" ") + end).lstrip(" ")


def refined_match(text: str, accepted: Iterable[str], *, empty_matches: bool = False) -> bool:
    """EM-R: whether a text equals an accepted answer, or, blanks apart, one of the two is part of the other.

    Args:
        text: the cleaned prediction.
        accepted: the cleaned answers.
        empty_matches: whether an empty text (or answer) counts as part of everything, as in LEO's code.
    """
    words = "".join(text.split())
    for answer in accepted:
        known = "".join(answer.split())
        if answer == text or ((empty_matches or (known and words)) and (words in known or known in words)):
            return True
    return False
