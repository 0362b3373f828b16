"""The words of a Scan2Cap sample."""

from stereopsis.annotations import COORD_TOKEN, Annotation
from stereopsis.benchmarks.wording import first_answer

PROMPT = f"Given an object located at {COORD_TOKEN} , describe the object in detail."


def prompt(annotation: Annotation) -> str:
    """The same words for every object; the model adds the box centre's 3D encoding at ``<coord>``."""
    return PROMPT


def target(annotation: Annotation) -> str:
    """The first reference caption."""
    return first_answer(annotation)
