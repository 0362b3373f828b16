"""The words of a ScanQA sample."""

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.wording import first_answer, required_text

SUFFIX = "Answer the question simply."


def prompt(annotation: Annotation) -> str:
    """Question and instruction."""
    return f"{required_text(annotation, 'question')} {SUFFIX}"


def target(annotation: Annotation) -> str:
    """The first answer."""
    return first_answer(annotation)
