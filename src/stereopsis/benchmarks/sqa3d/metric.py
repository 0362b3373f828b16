"""SQA3D: exact match and refined match after the data set's own cleaning of answers.

The rules are those of the data set's authors, as this line of work (LEO, Video-3D-LLM, Ross3D, 3DRS) applies
them to prediction and answer alike. They are kept to the letter, oddities included ("none" means "zero", a
digit that ends a word is dropped): another cleaning is another metric.
"""

import re
from collections.abc import Sequence

from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import (
    Metric,
    Prediction,
    SampleScore,
    references,
    require_unique,
    sample_score,
)

METRICS = (Metric(name="em"), Metric(name="em_r", shown=False))
QUESTION_TYPES = ("what", "is", "how", "can", "which", "others")
PROTOCOLS = (
    Protocol(
        task="sqa3d",
        name="strict",
        differs="EM-R: an empty prediction (or answer) is contained in nothing and contains nothing",
        used_by=("Video-3D-LLM (EM)", "3DRS (EM)", "Ross3D (EM)"),
        default=True,
    ),
    Protocol(
        task="sqa3d",
        name="released",
        differs="EM-R: an empty prediction matches every answer, since the empty string is part of every string",
        used_by=("LEO's released code (EM-R)",),
    ),
)

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


def normalise(text: str) -> str:
    """An answer as it is compared, spaces around it off."""
    return clean_answer(text.strip())


def _without_outer_spaces(text: str) -> str:
    """Spaces off at both ends, also before a last line end (where a regular expression's "$" matches too)."""
    body, end = (text[:-1], "\n") if text.endswith("\n") else (text, "")
    return (body.rstrip(" ") + end).lstrip(" ")


def question_type(question: str) -> str:
    """What, is, how, can, which or others: how the question begins, in any case ("What's" is "what")."""
    start = question.lstrip().lower()
    return next((name for name in QUESTION_TYPES[:-1] if start.startswith(name)), "others")


def score_sample(prediction: Prediction, *, empty_matches: bool = False) -> dict[str, float]:
    """EM: 1.0 where the cleaned text equals a cleaned answer; EM-R: also where, spaces apart, one contains the other.

    Args:
        prediction: its text is taken to the letter; a line end at its end makes it differ.
        empty_matches: whether an empty text counts as contained in everything (protocol ``released``).

    Raises:
        StereopsisError: the annotation has no answer.
    """
    accepted = {clean_answer(answer) for answer in references(prediction.annotation)}
    text = clean_answer(prediction.text)
    if text in accepted:
        return {"em": 1.0, "em_r": 1.0}
    words, known = "".join(text.split()), ["".join(answer.split()) for answer in accepted]
    if not empty_matches:
        known = [answer for answer in known if answer and words]
    return {"em": 0.0, "em_r": float(any(words in answer or answer in words for answer in known))}


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """EM and EM-R of every prediction, in order.

    Raises:
        StereopsisError: an annotation has no answer, was predicted twice, or there is no such protocol.
    """
    require_unique(predictions)
    rules = protocol_of(PROTOCOLS, protocol).name
    return [
        sample_score(prediction, score_sample(prediction, empty_matches=rules == "released"), protocol=rules)
        for prediction in predictions
    ]
