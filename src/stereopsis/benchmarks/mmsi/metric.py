"""MMSI-Bench: the letter between backticks, by lmms-eval's rules (August 2026)."""

import re
from collections.abc import Sequence

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Prediction, SampleScore, references
from stereopsis.benchmarks.scoring.choices import score_choices
from stereopsis.benchmarks.wording import required_text

SUFFIX = "\nAnswer with the option's letter from the given choices directly. Enclose the option's letter within ``."
PROTOCOLS = (
    Protocol(
        task="mmsi",
        name="lmms_eval",
        differs="the letter within ``, else within `, then within {}; else the first A to F that no word follows",
        used_by=("lmms-eval", "MMSI-Bench's own script"),
        default=True,
    ),
)
_ENCLOSED = (re.compile(r"``([^`]*)``"), re.compile(r"`([^`]*)`"), re.compile(r"\{([^}]*)\}"))
_LETTER = re.compile(r"\b[A-F]\b(?!\s[a-zA-Z])", re.IGNORECASE)


def prompt(annotation: Annotation) -> str:
    """The question, which holds its options, and the instruction."""
    return f"{required_text(annotation, 'question').strip()}{SUFFIX}"


def letter_of(text: str) -> str | None:
    """The letter that an answer encloses, each kind of mark looked for in what the one before it left."""
    for marks in _ENCLOSED:
        if found := marks.search(text):
            text = found.group(1)
    letter = _LETTER.search(text)
    return None if letter is None else letter.group().upper()


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """Accuracy of every prediction, in order.

    Raises:
        StereopsisError: an annotation has no answer, was predicted twice, or there is no such protocol.
    """

    def right(prediction: Prediction) -> bool:
        return letter_of(prediction.text) == references(prediction.annotation)[0].strip().upper()

    return score_choices(predictions, right, protocol_of(PROTOCOLS, protocol).name)
