"""A whole evaluation: shared over processes, streamed, resumed, and the same to the last byte however often it died."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from stereopsis import __version__
from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, SampleScore, benchmark_named, score, summarise
from stereopsis.benchmarks.files.submissions import SUBMISSION_FILE, write_submission
from stereopsis.data.pack import candidate_boxes
from stereopsis.errors import RunFolderError, StereopsisError
from stereopsis.evaluation.predictors import Failure, Outcome, Pass, Predictor, spoken_prediction
from stereopsis.evaluation.questions import EvaluationSample, Key, counts, fingerprint_of, key_of, unanswered_tasks
from stereopsis.evaluation.records import (
    RECORDS_FILE,
    SUMMARY_FILE,
    TIMINGS_FILE,
    read_results,
    record_of,
    sample_score_of,
    score_fields,
    summary_dict,
)
from stereopsis.evaluation.sharding import Processes, share
from stereopsis.evaluation.stream import PARTS_FOLDER, Part, claim, finished, read_failures, read_parts
from stereopsis.files import write_atomic
from stereopsis.progress import tracked

SCHEMA = 1
TOLD_FAILURES = 3


def settings_of(predictor: Predictor, asked: Sequence[EvaluationSample], limit: int | None = None) -> dict[str, Any]:
    """All that must be the same for two evaluations to be one, as plain values.

    Args:
        predictor: who answers.
        asked: what is asked.
        limit: as given to `questions`, for people to read.
    """
    identity = dict(predictor.identity)
    found = counts(asked)
    return {
        "schema": SCHEMA,
        "benchmarks": found,
        "limit": limit,
        "scenes": len(asked),
        "questions": fingerprint_of(asked, str(identity.get("proposals", "detector")), predictor.protocols),
        "protocols": {task: predictor.protocols[task] for task in found},
        "predictor": identity,
        "versions": {"stereopsis": __version__, **{name: version(name) for name in ("torch", "transformers")}},
    }


def run_evaluation(
    predictor: Predictor,
    asked: Sequence[EvaluationSample],
    folder: Path,
    *,
    limit: int | None = None,
    facts: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    overwrite: bool = False,
    meteor: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Answer everything, score it, and write records, timings and summary; goes on where an earlier attempt stopped.

    A finished evaluation with the same settings is kept as it is. Any number of processes may work on it, and another
    number may go on with it.

    Args:
        predictor: who answers.
        asked: what is asked; the same on every process.
        folder: the evaluation's; see `stereopsis.evaluation.stream`.
        limit: as given to `questions`.
        facts: further entries for ``settings`` in summary.json.
        processes: which process this is; None = alone.
        overwrite: start anew, whatever is there.
        meteor: whether benchmarks that report METEOR get it; where Java is absent, the summary says so.
        console: shows the progress of the main process.

    Returns:
        The summary's tasks; on processes other than the main one nothing.

    Raises:
        RunFolderError: the folder holds an evaluation with other settings, another process works on it, or it is
            damaged.
        StereopsisError: nothing is asked, or questions got no usable answer. All others are kept, and the next
            attempt asks only for those.
    """
    processes = processes or Processes()
    if not asked:
        raise StereopsisError("nothing is asked about these scenes; choose other scenes or benchmarks")
    settings = settings_of(predictor, asked, limit)
    if processes.main:
        claim(folder, settings, overwrite=overwrite)
    processes.wait()
    if finished(folder):
        processes.wait()
        return read_results(folder)[1]["tasks"] if processes.main else {}
    with Part(folder, processes.rank) as part:
        processes.wait()  # torn lines are cut off
        done = set(read_parts(folder))
        processes.wait()  # nobody writes before everybody has read
        waiting = [each for each in asked if any(key_of(a) not in done for a in each.annotations)]
        weights = [sum(key_of(a) not in done for a in each.annotations) for each in waiting]
        mine = [waiting[i] for i in share(weights, processes.count)[processes.rank]]
        stamp = {"checkpoint": str(settings["predictor"]["checkpoint"])[:16], "version": __version__}
        ahead, shown = _read_ahead(predictor, mine), console if processes.main else None
        for each, prepared in tracked(ahead, "Answering", "scenes", total=len(mine), console=shown):
            _answer(predictor, each, prepared, part, done, stamp)
        processes.wait()
        try:
            return _merge(predictor, asked, folder, {**(facts or {}), **settings}, meteor) if processes.main else {}
        finally:
            processes.wait()


def _read_ahead(predictor: Predictor, asked: Sequence[EvaluationSample]) -> Iterator[tuple[EvaluationSample, Future]]:
    """Each scene with what the predictor prepares of it, while the scene before it is answered."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead: Future | None = None
        for number, each in enumerate(asked):
            now = ahead or pool.submit(predictor.prepare, each.scene)
            following = asked[number + 1 : number + 2]
            ahead = pool.submit(predictor.prepare, following[0].scene) if following else None
            yield each, now


def _answer(
    predictor: Predictor, each: EvaluationSample, prepared: Future, part: Part, done: set[Key], stamp: Mapping[str, Any]
) -> None:
    """Answer one scene's questions and append their records; what cannot be answered is noted."""
    start = time.perf_counter()
    try:
        passes = predictor.passes(each.scene, each.annotations, prepared.result())
    except StereopsisError as error:
        missing = [a for a in each.annotations if key_of(a) not in done]
        part.fail(_failure(Failure(annotation=a, reason=str(error))) for a in missing)
        return
    for one in passes:
        if all(key_of(a) in done for a in one.annotations):
            continue
        outcomes = _outcomes(one)
        # The scene's own encoding counts for its first pass.
        seconds = round((time.perf_counter() - start) / len(one.annotations), 6)
        start = time.perf_counter()
        records, failures = [], []
        for annotation, outcome in zip(one.annotations, outcomes, strict=True):
            if key_of(annotation) in done:
                continue
            made = _record(annotation, outcome, predictor.protocols, stamp)
            if isinstance(made, Failure):
                failures.append(_failure(made))
            else:
                records.append({**made, "seconds": seconds})
        part.append(records)
        part.fail(failures)


def _outcomes(one: Pass) -> Sequence[Outcome]:
    try:
        return one.run()
    except StereopsisError as error:
        return [Failure(annotation=a, reason=str(error)) for a in one.annotations]


def _record(
    annotation: Annotation, outcome: Outcome, protocols: Mapping[str, str], stamp: Mapping[str, Any]
) -> dict[str, Any] | Failure:
    if isinstance(outcome, Failure):
        return outcome
    if benchmark_named(annotation.task).unanswered([annotation]):
        return record_of(outcome, None, protocol=protocols[annotation.task], sample_score=None, **stamp)
    try:
        sample = sample_score_of(outcome, protocols)
    except StereopsisError as error:
        return Failure(annotation=annotation, reason=str(error))
    kept = None if sample is None else sample.to_dict()
    return record_of(outcome, sample, protocol=protocols[annotation.task], sample_score=kept, **stamp)


def _failure(failure: Failure) -> dict[str, str]:
    annotation = failure.annotation
    return {
        "task": annotation.task,
        "id": annotation.id,
        "scene_id": annotation.scene_id,
        "reason": failure.reason,
    }


def _merge(
    predictor: Predictor, asked: Sequence[EvaluationSample], folder: Path, settings: Mapping[str, Any], meteor: bool
) -> dict[str, Any]:
    """Score what all processes wrote and put it into canonical order."""
    found = read_parts(folder)
    missing = sum(key_of(a) not in found for each in asked for a in each.annotations)
    if missing:
        _tell_failures(folder, missing, len(found))
    proposals = str(settings["predictor"].get("proposals", "detector"))
    kept: dict[Key, SampleScore] = {}
    rules, words = predictor.protocols, []
    open_tasks = unanswered_tasks(asked)
    sent: dict[str, list[Prediction]] = {task: [] for task in open_tasks}
    for each in asked:
        boxes = candidate_boxes(each.scene, proposals)
        for a in each.annotations:
            record = found[key_of(a)]
            if a.task in sent:
                sent[a.task].append(Prediction(annotation=a, text=record["prediction"]))
            elif benchmark_named(a.task).scored_alone:
                kept[key_of(a)] = SampleScore.from_dict(record["sample_score"])
            else:
                words.append(spoken_prediction(a, each.scene, boxes, record["prediction"], rules[a.task]))
    scored = score(words, protocols=rules, meteor=meteor)
    kept |= {key_of(p.annotation): sample for p, sample in zip(words, scored, strict=True)}
    records, timings, samples = [], [], []
    for each in asked:
        for a in each.annotations:
            record, sample = found[key_of(a)], kept.get(key_of(a))
            seconds, _ = record.pop("seconds"), record.pop("sample_score")
            timings.append({"task": a.task, "id": a.id, "scene_id": a.scene_id, "seconds": seconds})
            records.append({**record, **score_fields(sample)})
            samples += [] if sample is None else [sample]
    tasks = summary_dict(summarise(samples))
    for task, predictions in sent.items():
        write_submission(folder / SUBMISSION_FILE.format(task=task), task, predictions)
    write_atomic(folder / TIMINGS_FILE, "".join(json.dumps(timing) + "\n" for timing in timings), error=RunFolderError)
    write_atomic(folder / RECORDS_FILE, "".join(json.dumps(record) + "\n" for record in records), error=RunFolderError)
    summary = {"settings": dict(settings), "tasks": tasks}
    write_atomic(folder / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n", error=RunFolderError)
    shutil.rmtree(folder / PARTS_FOLDER)
    return tasks


def _tell_failures(folder: Path, missing: int, kept: int) -> None:
    failures = read_failures(folder)
    told = "; ".join(
        f"{f['task']} '{f['id']}' of scene '{f['scene_id']}': {f['reason']}" for f in failures[:TOLD_FAILURES]
    )
    more = f"; and {len(failures) - TOLD_FAILURES} more" if len(failures) > TOLD_FAILURES else ""
    raise StereopsisError(
        f"{missing} questions got no usable answer ({told or 'a process stopped before it came to them'}{more}). The "
        f"other {kept} are kept in {folder / PARTS_FOLDER}; when the cause is gone, the same command asks only for the "
        "missing ones"
    )
