"""Pieces of prompts and targets that several benchmarks share."""

from stereopsis.annotations import Annotation
from stereopsis.errors import StereopsisError


def required_text(annotation: Annotation, what: str) -> str:
    """The question or expression of an annotation.

    Raises:
        StereopsisError: it is empty.
    """
    if not annotation.text.strip():
        raise StereopsisError(f"{annotation.task} '{annotation.id}' has no {what}: its field 'text' is empty")
    return annotation.text


def first_answer(annotation: Annotation) -> str:
    """The answer or caption that a model is trained to give.

    Raises:
        StereopsisError: there is none.
    """
    if not annotation.answers or not annotation.answers[0].strip():
        raise StereopsisError(
            f"{annotation.task} '{annotation.id}' has no answer to train on; train on a split whose answers are public"
        )
    return annotation.answers[0]
