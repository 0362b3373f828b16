"""Per-sample records on disk: what was asked, what was said, what it was worth."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.benchmarks import Prediction, SampleScore, Summary
from stereopsis.errors import RunFolderError

RECORDS_FILE = "records.jsonl"
SUMMARY_FILE = "summary.json"


def record_of(prediction: Prediction, sample: SampleScore) -> dict[str, Any]:
    """One line of ``records.jsonl``.

    Boxes are rounded to millimetres. For grounding, ``boxes`` are all candidates with their ``cosines``, and
    ``zero_cosine`` belongs to "no such object".
    """
    annotation = prediction.annotation
    return {
        "id": annotation.id,
        "scene_id": annotation.scene_id,
        "task": annotation.task,
        "type": annotation.type,
        "situation": annotation.situation,
        "text": annotation.text,
        "answers": list(annotation.answers),
        "object_ids": list(annotation.object_ids),
        "prediction": prediction.text,
        "boxes": np.round(prediction.boxes, 3).tolist(),
        "cosines": np.round(prediction.scores, 4).tolist(),
        "zero_cosine": prediction.zero_target_score,
        "targets": np.round(prediction.targets, 3).tolist(),
        "scores": dict(sample.scores),
        "bleu_counts": list(sample.bleu_counts),
    }


def summary_dict(summaries: dict[Any, Summary]) -> dict[str, Any]:
    """Summaries as plain data; intervals become {"mean", "low", "high"}, unknown bounds become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return None if np.isnan(value) else round(value, 4)
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        return value

    def interval(value: Any) -> dict[str, Any]:
        return {"mean": plain(value.mean), "low": plain(value.low), "high": plain(value.high)}

    return {
        task: {
            "count": s.count,
            "scene_count": s.scene_count,
            "overall": {k: interval(v) for k, v in s.overall.items()},
            "macro": {k: interval(v) for k, v in s.macro.items()},
            "by_type": {t: {k: interval(v) for k, v in m.items()} for t, m in s.by_type.items()},
            "type_counts": dict(s.type_counts),
        }
        for task, s in summaries.items()
    }


def write_results(
    folder: Path, records: Sequence[dict[str, Any]], summary: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write records and summary, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / RECORDS_FILE, "".join(f"{json.dumps(r)}\n" for r in records))
    _write(folder / SUMMARY_FILE, json.dumps({"settings": settings, "tasks": summary}, indent=1) + "\n")


def read_results(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records and summary of an evaluation.

    Raises:
        RunFolderError: there is no finished evaluation in the folder.
    """
    for name in (RECORDS_FILE, SUMMARY_FILE):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder} holds no finished evaluation (no {name}); run 'stereopsis evaluate' first")
    records = [json.loads(line) for line in (folder / RECORDS_FILE).read_text().splitlines()]
    return records, json.loads((folder / SUMMARY_FILE).read_text())


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)
