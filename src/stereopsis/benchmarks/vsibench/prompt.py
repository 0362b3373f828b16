"""The words of a VSI-Bench sample."""

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.wording import first_answer, required_text

OPENING = "These are frames of a video."
CHOOSE = "Answer with the option's letter from the given choices directly."
SAY = "Please answer the question using a single word or phrase."


def prompt(annotation: Annotation) -> str:
    """Opening, question, options (if any) and instruction, each on a line of its own."""
    lines = [OPENING, required_text(annotation, "question")]
    if annotation.options:
        return "\n".join([*lines, "Options:", *annotation.options, CHOOSE])
    return "\n".join([*lines, SAY])


def target(annotation: Annotation) -> str:
    """The option's letter, or the number."""
    return first_answer(annotation)
