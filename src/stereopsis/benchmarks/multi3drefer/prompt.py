"""The words of a Multi3DRefer sample."""

from stereopsis.annotations import GROUND_TOKEN, Annotation
from stereopsis.benchmarks.scanrefer.prompt import PREFIX
from stereopsis.benchmarks.wording import required_text

SUFFIX = "There may be no corresponding object, or there may be one or more objects."


def prompt(annotation: Annotation) -> str:
    """Instruction, description and the warning about the number of objects, on lines of their own."""
    return f"{PREFIX}\n{required_text(annotation, 'description')}\n{SUFFIX}"


def target(annotation: Annotation) -> str:
    """The one special token at which the grounding head reads its query."""
    return GROUND_TOKEN
