"""Figures that papers have printed, to stand beside ours: ``published.json``, read into records."""

import dataclasses
import functools
import json
from importlib import resources

from stereopsis.scenes.annotations import Task


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
        protocol: the one of the task's `PROTOCOLS` that it follows; None where that is not known, so that a difference
            in protocol cannot be excluded.
    """

    task: Task
    split: str
    method: str
    metric: str
    value: float
    source: str
    protocol: str | None


@functools.cache
def _all() -> tuple[Published, ...]:
    text = resources.files("stereopsis.benchmarks").joinpath("published.json").read_text(encoding="utf-8")
    return tuple(Published(**row) for row in json.loads(text))


def published(task: Task | None = None, metric: str | None = None) -> tuple[Published, ...]:
    """The figures of a task and a metric, or all; in the order of the file."""
    return tuple(row for row in _all() if task in (None, row.task) and metric in (None, row.metric))
