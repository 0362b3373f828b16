"""ViewSpatial-Bench: the first letter of the answer's last line, by lmms-eval's rules (August 2026)."""

import re
from collections.abc import Sequence

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Prediction, SampleScore, references
from stereopsis.benchmarks.scoring.choices import score_choices
from stereopsis.benchmarks.wording import required_text

PROTOCOLS = (
    Protocol(
        task="viewspatial",
        name="lmms_eval",
        differs="the first A to D that stands alone in the answer's last line, small letters too",
        used_by=("lmms-eval",),
        default=True,
    ),
)
_LETTER = re.compile(r"\b([A-D])\b", re.IGNORECASE)


def prompt(annotation: Annotation) -> str:
    """Question, choices and instruction, as the paper words them."""
    choices = "\n".join(annotation.options)
    question = required_text(annotation, "question")
    return f"Question: {question}\nChoices: {choices}\nReply only to the corresponding option.\nAnswer:"


def letter_of(text: str) -> str | None:
    """The letter of a text, if it has one that stands alone ("a" in "a chair" is one)."""
    found = _LETTER.search(text)
    return None if found is None else found.group(1).upper()


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """Accuracy of every prediction, in order.

    Raises:
        StereopsisError: an annotation has no answer, was predicted twice, or there is no such protocol.
    """

    def right(prediction: Prediction) -> bool:
        return letter_of(prediction.text.split("\n")[-1]) == letter_of(references(prediction.annotation)[0])

    return score_choices(predictions, right, protocol_of(PROTOCOLS, protocol).name)
