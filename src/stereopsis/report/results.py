"""A finished evaluation, typed: what was asked, what was said, what it was worth."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.evaluation.records import RECORDS_FILE, SUMMARY_FILE
from stereopsis.reading import parse_json
from stereopsis.report.values import boxes, intervals, items, mapping, number, read_json, text, text_lines


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationRecord:
    """One line of ``records.jsonl``; see `stereopsis.evaluation.records.record_of`.

    Boxes are cx cy cz dx dy dz in the aligned frame, metres.
    """

    id: str
    scene_id: str
    task: str
    type: str
    situation: str
    text: str
    answers: tuple[str, ...]
    object_ids: tuple[int, ...]
    prediction: str
    boxes: Float[np.ndarray, "candidates 6"]
    cosines: Float[np.ndarray, " candidates_or_none"]
    zero_cosine: float
    targets: Float[np.ndarray, "targets 6"]
    scores: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the question over all arms."""
        return self.task, self.id


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """A task's numbers in points; see `stereopsis.benchmarks.scoring.summary.Summary`."""

    count: int
    scene_count: int
    overall: Mapping[str, Interval]
    macro: Mapping[str, Interval]
    by_type: Mapping[str, Mapping[str, Interval]]
    type_counts: Mapping[str, int]
    unavailable: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredEvaluation:
    """Records, summaries by task, and the settings they were made with."""

    records: tuple[EvaluationRecord, ...]
    tasks: Mapping[str, TaskSummary]
    settings: Mapping[str, Any]


def read_evaluation(folder: Path) -> StoredEvaluation | None:
    """Read a finished evaluation; None where there is none at all.

    Raises:
        RunFolderError: only one of its two files is there, or one is damaged.
    """
    present = [name for name in (RECORDS_FILE, SUMMARY_FILE) if (folder / name).is_file()]
    if not present:
        return None
    if len(present) == 1:
        missing = SUMMARY_FILE if present[0] == RECORDS_FILE else RECORDS_FILE
        raise RunFolderError(f"{folder} holds {present[0]} but no {missing}; run 'stereopsis evaluate' again")
    file = folder / RECORDS_FILE
    records = []
    for row, line in enumerate(text_lines(file), start=1):
        where = f"{file}, line {row}"
        try:
            content = parse_json(line)
        except ValueError as error:
            raise RunFolderError(f"{where}: not valid JSON ({error}); run 'stereopsis evaluate' again") from error
        records.append(_record(mapping(content, where), where))
    summary = mapping(read_json(folder / SUMMARY_FILE), str(folder / SUMMARY_FILE))
    tasks = mapping(summary.get("tasks"), f"{folder / SUMMARY_FILE}: tasks")
    return StoredEvaluation(
        records=tuple(records),
        tasks={task: _summary(value, f"{folder / SUMMARY_FILE}: tasks.{task}") for task, value in tasks.items()},
        settings=mapping(summary.get("settings") or {}, f"{folder / SUMMARY_FILE}: settings"),
    )


def _record(content: Mapping[str, Any], where: str) -> EvaluationRecord:
    candidates = boxes(content.get("boxes") or [], f"{where}: boxes")
    cosines = [number(each, f"{where}: cosines") for each in items(content.get("cosines") or [], f"{where}: cosines")]
    if cosines and len(cosines) != len(candidates):
        raise RunFolderError(f"{where}: {len(cosines)} cosines for {len(candidates)} boxes; evaluate again")
    scores = mapping(content.get("scores") or {}, f"{where}: scores")
    return EvaluationRecord(
        id=text(content, "id", where),
        scene_id=text(content, "scene_id", where),
        task=text(content, "task", where),
        type=text(content, "type", where),
        situation=str(content.get("situation") or ""),
        text=str(content.get("text") or ""),
        answers=tuple(str(each) for each in items(content.get("answers") or [], f"{where}: answers")),
        object_ids=tuple(int(each) for each in items(content.get("object_ids") or [], f"{where}: object_ids")),
        prediction=str(content.get("prediction") or ""),
        boxes=candidates,
        cosines=np.array(cosines, dtype=np.float64),
        zero_cosine=number(content.get("zero_cosine"), f"{where}: zero_cosine"),
        targets=boxes(content.get("targets") or [], f"{where}: targets"),
        scores={name: number(value, f"{where}: scores.{name}") for name, value in scores.items()},
    )


def _summary(value: Any, where: str) -> TaskSummary:
    content = mapping(value, where)
    by_type = mapping(content.get("by_type") or {}, f"{where}.by_type")
    counts = mapping(content.get("type_counts") or {}, f"{where}.type_counts")

    def count(key: str) -> int:
        found = number(content.get(key), f"{where}.{key}")
        return 0 if math.isnan(found) else int(found)

    return TaskSummary(
        count=count("count"),
        scene_count=count("scene_count"),
        overall=intervals(content.get("overall"), f"{where}.overall"),
        macro=intervals(content.get("macro") or {}, f"{where}.macro"),
        by_type={name: intervals(each, f"{where}.by_type.{name}") for name, each in by_type.items()},
        unavailable={k: str(v) for k, v in mapping(content.get("unavailable") or {}, f"{where}.unavailable").items()},
        type_counts={name: int(number(each, f"{where}.type_counts.{name}")) for name, each in counts.items()},
    )
