"""The words of a VSI-Bench sample."""

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.wording import first_answer, required_text

OPENING = "These are frames of a video."
CHOOSE = "Answer with the option's letter from the given choices directly."
SAY = "Please answer the question using a single word or phrase."
SAY_NUMBER = "Answer briefly and directly in one float number."


def prompt(annotation: Annotation) -> str:
    """Opening, question, options (if any) and instruction, each on a line of its own."""
    lines = [OPENING, required_text(annotation, "question")]
    if annotation.options:
        return "\n".join([*lines, "Options:", *annotation.options, CHOOSE])
    return "\n".join([*lines, SAY])


def vlmevalkit_prompt(annotation: Annotation) -> str:
    """As VLMEvalKit asks: no line over the options, and a float wanted."""
    lines = [OPENING, required_text(annotation, "question"), *annotation.options]
    return "\n".join([*lines, CHOOSE if annotation.options else SAY_NUMBER])


def target(annotation: Annotation) -> str:
    """The option's letter, or the number."""
    return first_answer(annotation)
