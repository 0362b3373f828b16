"""The words of an SQA3D sample."""

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.wording import first_answer, required_text

SUFFIX = "Answer the question using a single word or phrase."


def prompt(annotation: Annotation) -> str:
    """Situation, question and instruction, joined by spaces; a missing situation is left out."""
    question = required_text(annotation, "question")
    return " ".join(part for part in (annotation.situation, question, SUFFIX) if part)


def target(annotation: Annotation) -> str:
    """The answer."""
    return first_answer(annotation)
