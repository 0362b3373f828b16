"""Per-sample records on disk: what was asked, what was said, what it was worth."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.benchmarks import Prediction, SampleScore, Summary, benchmark_named, prompt_of, score
from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.reading import parse_json, read_json, read_text

RECORDS_FILE = "records.jsonl"
SUMMARY_FILE = "summary.json"
TIMINGS_FILE = "timings.jsonl"


def normalised(prediction: Prediction) -> str:
    """The words in the form in which they are compared; empty where the benchmark points."""
    benchmark = benchmark_named(prediction.annotation.task)
    return "" if benchmark.points else benchmark.normalise(prediction.text)


def chosen(prediction: Prediction) -> list[int]:
    """Which candidates a grounding prediction means; none where the benchmark does not point."""
    choose = benchmark_named(prediction.annotation.task).choose
    return [] if choose is None else choose(prediction)


def sample_score_of(prediction: Prediction, protocols: Mapping[str, str] | None = None) -> SampleScore | None:
    """What one prediction is worth, where a benchmark scores samples one by one; None where it scores whole sets.

    Args:
        prediction: what was said or pointed at.
        protocols: benchmark -> protocol; None = the defaults.

    Raises:
        StereopsisError: the prediction lacks what its benchmark needs.
    """
    alone = benchmark_named(prediction.annotation.task).scored_alone
    return score([prediction], protocols=protocols)[0] if alone else None


def record_of(prediction: Prediction, sample: SampleScore | None, **more: Any) -> dict[str, Any]:
    """One line of ``records.jsonl``.

    Boxes are rounded to millimetres. For grounding, ``boxes`` are all candidates with their ``cosines``, ``chosen``
    are the indices of those that are meant, and ``zero_cosine`` belongs to "no such object". ``ranked`` is there
    where a system gave several answers.

    Args:
        prediction: what was said or pointed at.
        sample: what it was worth; None where that depends on the whole set.
        more: further fields.
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
        "prompt": prompt_of(annotation),
        "prediction": prediction.text,
        **({"ranked": list(prediction.ranked)} if prediction.ranked else {}),
        "normalised": normalised(prediction),
        "boxes": np.round(prediction.boxes, 3).tolist(),
        "cosines": np.round(prediction.scores, 4).tolist(),
        "zero_cosine": prediction.zero_target_score,
        "chosen": chosen(prediction),
        "targets": np.round(prediction.targets, 3).tolist(),
        **score_fields(sample),
        **more,
    }


def score_fields(sample: SampleScore | None) -> dict[str, Any]:
    """A record's fields that tell what the sample was worth; empty where that depends on the whole set."""
    if sample is None:
        return {"scores": {}, "bleu_counts": [], "meteor_counts": []}
    return {
        "scores": dict(sample.scores),
        "bleu_counts": list(sample.bleu_counts),
        "meteor_counts": list(sample.meteor_counts),
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
            "protocol": s.protocol,
            "unavailable": dict(s.unavailable),
        }
        for task, s in summaries.items()
    }


def write_results(
    folder: Path, records: Sequence[dict[str, Any]], summary: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write records and summary, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / RECORDS_FILE, "".join(f"{json.dumps(r)}\n" for r in records), error=RunFolderError)
    write_atomic(
        folder / SUMMARY_FILE,
        json.dumps({"settings": settings, "tasks": summary}, indent=1) + "\n",
        error=RunFolderError,
    )


def read_results(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records and summary of an evaluation.

    Raises:
        RunFolderError: there is no finished evaluation in the folder.
    """
    for name in (RECORDS_FILE, SUMMARY_FILE):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder} holds no finished evaluation (no {name}); run 'stereopsis evaluate' first")
    try:
        records = [parse_json(line) for line in read_text(folder / RECORDS_FILE).splitlines()]
        summary = read_json(folder / SUMMARY_FILE)
        if not all(isinstance(record, dict) for record in [*records, summary]):
            raise ValueError("it holds something else than objects")
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{folder} is damaged ({error}); start it anew with 'stereopsis evaluate' and --overwrite"
        ) from error
    return records, summary
