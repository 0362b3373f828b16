"""Protocols: the ways in which one metric's name has been computed, each with a name of its own."""

import dataclasses
from collections.abc import Callable, Sequence

from stereopsis.annotations import Annotation
from stereopsis.errors import StereopsisError, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to compute a benchmark's metrics.

    Attributes:
        task: the benchmark.
        name: how it is asked for, unique within the benchmark.
        differs: what it does, and where that differs from the task's other protocols.
        prompt: its words for an annotation, where they differ from the benchmark's.
        requires_box: whether a caption counts only where a candidate fits the object that it is about.
        used_by: the papers or released codes whose figures follow it.
        default: whether it is taken where none is named; exactly one of a task is.
    """

    task: str
    name: str
    differs: str
    prompt: Callable[[Annotation], str] | None = None
    requires_box: bool = False
    used_by: tuple[str, ...] = ()
    default: bool = False


def protocol_of(protocols: Sequence[Protocol], name: str | None = None) -> Protocol:
    """The named protocol of a benchmark's `PROTOCOLS`, or its default.

    Raises:
        StereopsisError: the benchmark has no protocol of that name.
    """
    for protocol in protocols:
        if protocol.default if name is None else protocol.name == name:
            return protocol
    raise StereopsisError(
        f"{protocols[0].task} has no protocol '{name}'{did_you_mean(str(name), [p.name for p in protocols])}; "
        "what they are stands on its card"
    )
