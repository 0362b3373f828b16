"""The words of a ScanRefer sample."""

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.wording import GROUND_TOKEN, required_text

PREFIX = "Identify the object according to the following description."


def prompt(annotation: Annotation) -> str:
    """Instruction and description, on lines of their own."""
    return f"{PREFIX}\n{required_text(annotation, 'description')}"


def target(annotation: Annotation) -> str:
    """The one special token at which the grounding head reads its query."""
    return GROUND_TOKEN
