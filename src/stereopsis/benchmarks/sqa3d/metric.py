"""SQA3D: exact match and refined match after the data set's own cleaning of answers."""

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
from stereopsis.benchmarks.scoring.answers import clean_answer, refined_match

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


def normalise(text: str) -> str:
    """An answer as it is compared, spaces around it off."""
    return clean_answer(text.strip())


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
    refined = refined_match(text, accepted, empty_matches=empty_matches)
    return {"em": float(text in accepted), "em_r": float(refined)}


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
