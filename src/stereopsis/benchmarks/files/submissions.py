"""Answers in the form that a benchmark's own server takes, for splits whose answers its authors keep."""

import json
from collections.abc import Sequence
from pathlib import Path

from stereopsis.benchmarks.records import Prediction
from stereopsis.benchmarks.registry import all_benchmarks, benchmark_named
from stereopsis.errors import StereopsisError
from stereopsis.files import write_atomic

SUBMISSION_FILE = "submission_{task}.json"
"""What ``evaluate`` calls it, beside its records."""


def submissions(folder: Path | None) -> list[Path]:
    """The submissions that an evaluation wrote."""
    return [] if folder is None else sorted(folder.glob(SUBMISSION_FILE.format(task="*")))


def write_submission(path: Path, task: str, predictions: Sequence[Prediction]) -> None:
    """Write one prediction per question, the file whole or not at all.

    Raises:
        StereopsisError: the benchmark has no such form.
    """
    write = benchmark_named(task).submission
    if write is None:
        able = ", ".join(each.name for each in all_benchmarks().values() if each.submission is not None)
        raise StereopsisError(f"{task} has no server whose form is known here; a submission can be written for {able}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(write(predictions), indent=1) + "\n")
