"""A few scenes with their questions, the truth, and every arm's answers, chosen by rule and not by hand."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from stereopsis.benchmarks import Kind, benchmark_named, benchmarks_of
from stereopsis.report.images import EmbeddedImage
from stereopsis.report.read import ReportSubject
from stereopsis.report.results import EvaluationRecord
from stereopsis.report.rooms import map_picture, open_room, spread, view_pictures
from stereopsis.report.tables import ordered_arms, title_of

SCENES = 4
QUESTIONS_PER_TASK = 3
CAPTIONS = 1
QUESTION_KINDS: tuple[Kind, ...] = ("text", "choice", "number")
NOT_DESCRIBED = "(not described: no candidate box covers it; it counts as an empty caption)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    """What one arm said; ``right`` is None where that is a matter of degree (captions), ``rouge_l`` in points."""

    arm: int
    text: str
    right: bool | None
    rouge_l: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownQuestion:
    """A question or caption request with truth and answers; ``subject`` names the object to describe."""

    number: int
    task: str
    type: str
    situation: str
    text: str
    truth: tuple[str, ...]
    answers: tuple[ShownAnswer, ...]
    caption: bool
    on_map: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionScene:
    """One scene's views and questions; pictures are empty where the scenes are not at hand."""

    scene_id: str
    views: tuple[EmbeddedImage, ...]
    view_count: int
    map: EmbeddedImage | None
    questions: tuple[ShownQuestion, ...]


def records_by_arm(subject: ReportSubject) -> dict[int, dict[tuple[str, str], EvaluationRecord]]:
    """Every evaluated arm's records by their key, arms in table order."""
    return {
        index: {record.key: record for record in arm.evaluation.records}
        for index, arm in ordered_arms(subject)
        if arm.evaluation is not None
    }


def question_scenes(subject: ReportSubject, folders: Mapping[str, Path]) -> tuple[QuestionScene, ...]:
    """Evenly spread scenes, each with questions of different types and one caption.

    Args:
        subject: with at least one evaluated arm (else the result is empty).
        folders: of the evaluated scenes; scenes at hand are preferred.
    """
    by_arm = records_by_arm(subject)
    if not by_arm:
        return ()
    asked: dict[str, list[EvaluationRecord]] = {}
    for record in next(iter(by_arm.values())).values():
        asked.setdefault(record.scene_id, []).append(record)
    tasks = {each.name for each in benchmarks_of(*QUESTION_KINDS)}
    ids = [name for name in sorted(asked) if any(r.task in tasks for r in asked[name])]
    ids = [name for name in ids if name in folders] or ids
    chosen = [ids[index] for index in spread(len(ids), SCENES)]
    return tuple(
        _scene(name, number, asked[name], by_arm, folders.get(name), subject) for number, name in enumerate(chosen)
    )


def pick(records: Sequence[EvaluationRecord], count: int, turn: int) -> list[EvaluationRecord]:
    """One record of every type in turn, beginning ``turn * count`` types further on, so that scenes differ."""
    piles: dict[tuple[str, str], list[EvaluationRecord]] = {}
    for record in records:
        piles.setdefault((record.task, record.type), []).append(record)
    names = sorted(piles)
    if not names:
        return []
    start = turn * count % len(names)
    names = names[start:] + names[:start]
    chosen: list[EvaluationRecord] = []
    depth = 0
    while len(chosen) < min(count, len(records)):
        chosen += [piles[name][depth] for name in names if depth < len(piles[name])]
        depth += 1
    return sorted(chosen[:count], key=lambda record: (record.type, record.id))


def _scene(
    name: str,
    turn: int,
    records: Sequence[EvaluationRecord],
    by_arm: Mapping[int, Mapping[tuple[str, str], EvaluationRecord]],
    folder: Path | None,
    subject: ReportSubject,
) -> QuestionScene:
    described = {each.name for each in benchmarks_of("caption")}
    quota = {
        **{each.name: QUESTIONS_PER_TASK for each in benchmarks_of(*QUESTION_KINDS)},
        **dict.fromkeys(sorted(described), CAPTIONS),
    }
    picked = [r for task, count in quota.items() for r in pick(_candidates(records, task, described), count, turn)]
    scene = None if folder is None else open_room(folder)
    spoken = {} if scene is None else {(a.task, a.id): a for a in scene.annotations}
    labels = {} if scene is None else {item.id: item.label for item in scene.objects}
    numbered = list(enumerate(picked, start=1))
    marks = [(number, spoken[record.key]) for number, record in numbered if record.key in spoken]
    seen_from_above = None if scene is None else map_picture(scene, marks)
    placed = {number for number, annotation in marks if annotation.position is not None}
    return QuestionScene(
        scene_id=name,
        views=() if scene is None else view_pictures(scene),
        view_count=0 if scene is None else len(scene.frames),
        map=seen_from_above,
        questions=tuple(
            ShownQuestion(
                number=number,
                task=title_of(record.task),
                type=record.type.replace("_", " "),
                situation=record.situation,
                text=record.text or _request(record, labels),
                truth=tuple(dict.fromkeys(record.answers)),
                answers=tuple(
                    _answer(index, table[record.key]) for index, table in by_arm.items() if record.key in table
                ),
                caption=record.task in described,
                on_map=seen_from_above is not None and number in placed,
            )
            for number, record in numbered
        ),
    )


def _candidates(records: Sequence[EvaluationRecord], task: str, described: set[str]) -> list[EvaluationRecord]:
    """A task's records; of captions those of objects that a candidate box covers, as others are never described."""
    of_task = [record for record in records if record.task == task]
    covered = [record for record in of_task if len(record.boxes) or record.prediction]
    return covered if task in described and covered else of_task


def _request(record: EvaluationRecord, labels: Mapping[int, str]) -> str:
    label = next((labels[each] for each in record.object_ids if each in labels), "")
    return f"Describe the {label}." if label else "Describe the object at this place."


def _answer(arm: int, record: EvaluationRecord) -> ShownAnswer:
    benchmark = benchmark_named(record.task)
    exact = None if benchmark.captions else record.scores.get(benchmark.headline)
    overlap = next((metric.name for metric in benchmark.metrics if metric.name.startswith("rouge_l")), "")
    rouge = record.scores.get(overlap) if benchmark.captions else None
    return ShownAnswer(
        arm=arm,
        text=record.prediction or (NOT_DESCRIBED if benchmark.captions and not len(record.boxes) else ""),
        right=None if exact is None else exact >= 1.0,
        rouge_l=None if rouge is None else 100.0 * rouge,
    )
