"""Figures that papers have printed, to stand beside ours."""

import dataclasses
from pathlib import Path

from stereopsis.reading import read_json

FILE = "published.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One printed figure.

    Attributes:
        task: the benchmark.
        split: of the benchmark.
        method: the system.
        metric: the name of ours that it belongs to ("cider", "acc@0.25").
        value: in points.
        source: where it was printed.
        protocol: the one of the benchmark's protocols that it follows; None where that is not known, so that a
            difference in protocol cannot be excluded.
    """

    task: str
    split: str
    method: str
    metric: str
    value: float
    source: str
    protocol: str | None


def figures_beside(module_file: str, task: str) -> tuple[Published, ...]:
    """The rows of the ``published.json`` beside a module.

    Args:
        module_file: its ``__file__``.
        task: the benchmark, which the rows do not repeat.
    """
    rows = read_json(Path(module_file).parent / FILE)
    return tuple(Published(task=task, **row) for row in rows)
