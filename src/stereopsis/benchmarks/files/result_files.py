"""Scored results on disk, as ``evaluate`` and ``score`` leave them: per-sample scores, and the protocols behind them.

A result is a folder with ``records.jsonl`` (and ``summary.json``, whose settings name the protocols), a run folder that
has one under ``evaluation/``, or a records file by itself.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stereopsis.benchmarks.files.strict_json import refuse_repeated
from stereopsis.benchmarks.records import SampleScore
from stereopsis.benchmarks.registry import benchmark_names
from stereopsis.errors import RunFolderError
from stereopsis.reading import read_text

RECORDS_FILE = "records.jsonl"
SUMMARY_FILE = "summary.json"
EVALUATION_FOLDER = "evaluation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredResult:
    """Per-sample scores of one system.

    Attributes:
        path: the records file.
        samples: by benchmark.
        protocols: benchmark -> protocol; benchmarks whose protocol is not stated are absent.
        questions: (benchmark, id) -> what was asked, where the records say it.
        settings: how the result was made, as far as it is stated.
    """

    path: Path
    samples: Mapping[str, tuple[SampleScore, ...]]
    protocols: Mapping[str, str]
    questions: Mapping[tuple[str, str], str]
    settings: Mapping[str, Any]


def records_file(path: Path) -> Path:
    """The records file that a folder or file stands for.

    Raises:
        RunFolderError: there is none.
    """
    if path.is_file():
        if path.suffix == ".json":
            raise RunFolderError(
                f"{path} holds totals, not what each sample was worth; score again with --output FOLDER and name that "
                "folder"
            )
        return path
    for folder in (path, path / EVALUATION_FOLDER):
        if (folder / RECORDS_FILE).is_file():
            return folder / RECORDS_FILE
    raise RunFolderError(
        f"{path} holds no scored result (no {RECORDS_FILE}, nor {EVALUATION_FOLDER}/{RECORDS_FILE}); make one with "
        "'stereopsis evaluate' or 'stereopsis score --output FOLDER'"
    )


def read_result(path: Path) -> ScoredResult:
    """Read a result of any form named above.

    Raises:
        RunFolderError: there is none, it is damaged, or its samples were scored under several protocols.
    """
    file = records_file(path)
    summary = file.parent / SUMMARY_FILE
    settings: Mapping[str, Any] = {}
    if file.name == RECORDS_FILE and summary.is_file():
        settings = _object(_json(read_text(summary), str(summary)), str(summary)).get("settings") or {}
    samples: dict[str, list[SampleScore]] = {}
    protocols: dict[str, set[str]] = {}
    questions: dict[tuple[str, str], str] = {}
    try:
        lines = read_text(file).split("\n")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{file} cannot be read ({error})") from error
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {place}"
        record = _object(_json(line, where), where)
        sample = _sample(record, where)
        samples.setdefault(sample.task, []).append(sample)
        if isinstance(record.get("text"), str):
            questions[sample.task, sample.id] = f"{record.get('situation') or ''} {record['text']}".strip()
        if sample.protocol:
            protocols.setdefault(sample.task, set()).add(sample.protocol)
    if not samples:
        raise RunFolderError(f"{file} is empty; the evaluation did not finish")
    for task, found in samples.items():
        refuse_repeated([sample.id for sample in found], f"{file}, {task}")
    return ScoredResult(
        path=file,
        samples={task: tuple(samples[task]) for task in benchmark_names() if task in samples},
        protocols=_protocols(file, protocols, settings),
        questions=questions,
        settings=settings,
    )


def _protocols(file: Path, of_records: Mapping[str, set[str]], settings: Mapping[str, Any]) -> dict[str, str]:
    stated = settings.get("protocols")
    found = (
        {task: str(stated[task]) for task in benchmark_names() if task in stated} if isinstance(stated, dict) else {}
    )
    for task, names in of_records.items():
        if len(names | {found.get(task, next(iter(names)))}) > 1:
            raise RunFolderError(f"{file}: its {task} samples were scored under several protocols ({sorted(names)})")
        found[task] = next(iter(names))
    return found


def _sample(record: Mapping[str, Any], where: str) -> SampleScore:
    texts = {key: record.get(key) for key in ("id", "scene_id", "task", "type")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str)]
    scores = record.get("scores")
    if wrong or texts["task"] not in benchmark_names() or not isinstance(scores, dict):
        raise RunFolderError(
            f"{where}: a record needs the texts id, scene_id, task (one of {', '.join(benchmark_names())}) and type, "
            f"and scores by metric; {', '.join(wrong) or 'task or scores'} is missing or something else"
        )
    counts = {name: record.get(name) or () for name in ("bleu_counts", "meteor_counts")}
    numbers = {**scores, **{f"{name} {i}": each for name, listed in counts.items() for i, each in enumerate(listed)}}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < math.inf:
            raise RunFolderError(f"{where}: '{name}' must be a finite number, found {value!r}; evaluate again")
    values = {name: float(value) for name, value in scores.items()}
    protocol = record.get("protocol") if isinstance(record.get("protocol"), str) else ""
    return SampleScore.from_dict({**texts, **counts, "scores": values, "protocol": protocol})


def _json(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{where}: not valid JSON ({error}); evaluate or score again") from error


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RunFolderError(f"{where}: expected an object, found {str(value)[:60]!r}; evaluate or score again")
    return value
