"""MindCube: the letter that an answer ends with, by the authors' order of patterns (also lmms-eval's, August 2026)."""

import re
from collections.abc import Sequence

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Prediction, SampleScore, references
from stereopsis.benchmarks.scoring.choices import score_choices
from stereopsis.benchmarks.wording import required_text

PROTOCOLS = (
    Protocol(
        task="mindcube",
        name="official",
        differs="the last capital A to E with a full stop behind it; else what <Answer> holds; else phrases, then any "
        "capital that stands alone, from the last line up",
        used_by=("MindCube", "lmms-eval"),
        default=True,
    ),
)
_SIMPLE = re.compile(r"([A-E])\.")
_SECTION = re.compile(r"<Answer>(.*?)(?:<|$)", re.DOTALL)
_IN_SECTION = tuple(map(re.compile, (r"[Mm]y answer is ([A-E])", r"[Tt]he answer is ([A-E])", r"\b([A-E])\b")))
_PHRASES = tuple(
    map(
        re.compile,
        (
            r"(?:^|\n)(?:Answer: )?([A-E])(?:$|\s)",
            r"[*\"]([A-E])[*\"]",
            r"\bAnswer:?\s*([A-E])\b",
            r"[Mm]y answer is ([A-E])",
            r"answer is ([A-E])",
        ),
    )
)
_ALONE = re.compile(r"\b([A-E])\b")


def prompt(annotation: Annotation) -> str:
    """The file's own words (``input_prompt``), or its question."""
    return required_text(annotation, "question")


def letter_of(text: str) -> str | None:
    """The letter of an answer, if any.

    The authors' list tries several patterns that need a full stop behind the letter after the first, which has found
    any such letter already; those are left out here.
    """
    if simple := _SIMPLE.findall(text):
        return str(simple[-1])
    if section := _SECTION.search(text):
        for pattern in _IN_SECTION:
            if found := pattern.findall(section.group(1)):
                return str(found[-1])
    for pattern in _PHRASES:
        if found := pattern.findall(text):
            return str(found[-1])
    lines = (_ALONE.search(line) for line in reversed(text.split("\n")))
    return next((found.group(1) for found in lines if found), None)


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """Accuracy of every prediction, in order.

    Raises:
        StereopsisError: an annotation has no answer, was predicted twice, or there is no such protocol.
    """

    def right(prediction: Prediction) -> bool:
        return letter_of(prediction.text.strip()) == references(prediction.annotation)[0]

    return score_choices(predictions, right, protocol_of(PROTOCOLS, protocol).name)
