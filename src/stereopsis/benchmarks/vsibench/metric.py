"""VSI-Bench: accuracy of choices and mean relative accuracy of numbers, by the rules of its implementations.

Mean relative accuracy (Yang et al. 2024, "Thinking in Space"): the share of ten confidence levels 0.5, 0.55, ..., 0.95
at which the relative error is at most one minus the level. The paper writes "less than"; every released
implementation computes "at most", in floating point, and so does this one.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Metric, Prediction, SampleScore, references, require_unique, sample_score
from stereopsis.benchmarks.vsibench.extraction import last_number, letter_in
from stereopsis.benchmarks.vsibench.prompt import vlmevalkit_prompt
from stereopsis.errors import StereopsisError

METRICS = (Metric(name="score"),)
PROTOCOLS = (
    Protocol(
        task="vsibench",
        name="original",
        differs="choices and numbers alike: the answer's first word without its final stops",
        used_by=("thinking-in-space", "lmms-eval until July 2026"),
        default=True,
    ),
    Protocol(
        task="vsibench",
        name="lmms_eval",
        differs="numbers: the first number of the answer, in digits or in English words; choices as in 'original'",
        used_by=("lmms-eval since July 2026",),
    ),
    Protocol(
        task="vsibench",
        name="vlmevalkit",
        differs="asks without a line over the options and for a float; looks for letter and number in the whole "
        "answer, behind <answer> and <think> first, numbers from the end",
        prompt=vlmevalkit_prompt,
        used_by=("VLMEvalKit", "EASI"),
    ),
)
LEVELS = np.linspace(0.5, 0.95, 10)
_DIGITS = re.compile(r"-?\d+(?:\.\d+)?")
# fmt: off
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1000}


def mean_relative_accuracy(said: float, truth: float) -> float:
    """Share of the ten confidence levels at which the relative error is within bounds; 0 for NaN and infinities."""
    return float((abs(said - truth) / truth <= 1 - LEVELS).mean())


def first_word(text: str) -> str:
    """Up to the first space, without final stops and outer space; a leading space leaves nothing."""
    return text.split(" ", 1)[0].rstrip(".").strip()


def bare_number(text: str) -> float | None:
    """The first word as a number, if it is one."""
    try:
        return float(first_word(text))
    except ValueError:
        return None


def first_number(text: str) -> float | None:
    """The first number of a text, in digits ("-2.5") or in English words ("three hundred and one"), if any.

    Digits stop at a comma ("1,234" is 1). Words are added up, also where "and" stands between them ("two and three"
    is 5); "hundred" and "thousand" multiply what stands before them.
    """
    text = text.strip().lower()
    digits = _DIGITS.search(text)
    words: list[str] = []
    start = len(text)
    for found in re.finditer("[a-z]+", text):
        if found.group() in _WORDS or found.group() in _SCALES:
            start = min(start, found.start())
            words.append(found.group())
        elif words and found.group() != "and":
            break
    if digits is not None and digits.start() < start:
        return float(digits.group())
    return _spelled_out(words) if words else None


def _spelled_out(words: Sequence[str]) -> float:
    thousands = rest = 0
    for word in words:
        if word == "thousand":
            thousands, rest = thousands + max(rest, 1) * 1000, 0
        else:
            rest = max(rest, 1) * 100 if word == "hundred" else rest + _WORDS[word]
    return float(thousands + rest)


_NUMBER_OF: dict[str, Callable[[str], float | None]] = {
    "original": bare_number,
    "lmms_eval": first_number,
    "vlmevalkit": last_number,
}


def score_sample(prediction: Prediction, protocol: str) -> float:
    """What an answer is worth, 0 to 1: right or wrong for a choice, mean relative accuracy for a number.

    Raises:
        StereopsisError: the annotation has no answer, or its answer is no number other than 0.
    """
    annotation = prediction.annotation
    truth = references(annotation)[0]
    if annotation.options:
        if protocol == "vlmevalkit":
            return float(letter_in(prediction.text) == letter_in(truth))
        return float(first_word(prediction.text).lower() == truth.lower())
    said = _NUMBER_OF[protocol](prediction.text)
    try:
        expected = float(truth)
    except ValueError:
        expected = 0.0
    if expected == 0.0:
        raise StereopsisError(
            f"vsibench '{annotation.id}': its answer is '{truth}', expected a number other than 0; correct the "
            "annotation, or give it its options"
        )
    return 0.0 if said is None else mean_relative_accuracy(said, expected)


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """The score of every prediction, in order.

    Raises:
        StereopsisError: an annotation has no usable answer, was predicted twice, or there is no such protocol.
    """
    require_unique(predictions)
    rules = protocol_of(PROTOCOLS, protocol).name
    return [sample_score(each, {"score": score_sample(each, rules)}, protocol=rules) for each in predictions]
