"""The words of a ScanRefer sample."""

from stereopsis.annotations import GROUND_TOKEN, Annotation
from stereopsis.benchmarks.wording import required_text

PREFIX = "Identify the object according to the following description."


def prompt(annotation: Annotation) -> str:
    """Instruction and description, on lines of their own."""
    return f"{PREFIX}\n{required_text(annotation, 'description')}"


def target(annotation: Annotation) -> str:
    """The one special token at which the grounding head reads its query."""
    return GROUND_TOKEN
