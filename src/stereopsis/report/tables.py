"""The report's tables as plain data: the ablation table and the table by question type."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, all_benchmarks, benchmark_named
from stereopsis.benchmarks.scoring.baselines import chance_scores
from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.report.read import ReportedArm, ReportSubject
from stereopsis.report.results import EvaluationRecord, StoredEvaluation

BOLD_RULE = "A value is bold only where its 95 % interval lies above every other row's interval in its column."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A metric of a task: its key in summaries and its heading."""

    task: str
    metric: str
    heading: str


def title_of(task: str) -> str:
    """How people call a benchmark; its name where it is not known here."""
    benchmark = all_benchmarks().get(task)
    return task if benchmark is None else benchmark.title


def main_columns() -> tuple[Column, ...]:
    """The metrics that benchmarks show, each benchmark's headline first."""
    return tuple(
        Column(task=each.name, metric=metric.name, heading=metric.heading)
        for each in all_benchmarks().values()
        for metric in sorted(each.metrics, key=lambda metric: metric.name != each.headline)
        if metric.shown
    )


def type_columns() -> tuple[Column, ...]:
    """What the table by question type shows: headlines. Captions have none, as CIDEr of a part is another figure."""
    return tuple(
        Column(task=each.name, metric=each.headline, heading=each.metric(each.headline).heading)
        for each in all_benchmarks().values()
        if not each.captions
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A value with its interval (None: not measured), and whether it stands out."""

    value: Interval | None
    best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A line of the ablation table; ``arm`` is the arm's index in the subject, -1 for a baseline."""

    label: str
    kind: Literal["baseline", "blind", "arm"]
    arm: int
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MainTable:
    """The ablation table; empty where nothing was evaluated."""

    columns: tuple[Column, ...]
    rows: tuple[AblationRow, ...]


Verdict = Literal["above", "chance", "below", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypeCell:
    """A type's value in one arm, and how it compares with the type's baseline."""

    arm: int
    value: Interval | None
    verdict: Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypeRow:
    """A question type (or the mean over types): samples, the baseline's score in points, every arm's."""

    name: str
    count: int
    baseline: float
    cells: tuple[TypeCell, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypeGroup:
    """One task's types; ``baseline_name`` is "majority" or "chance"."""

    column: Column
    baseline_name: str
    rows: tuple[TypeRow, ...]
    macro: TypeRow


def ordered_arms(subject: ReportSubject) -> list[tuple[int, ReportedArm]]:
    """Arms as tables list them: blind ones first, then as given."""
    return sorted(enumerate(subject.arms), key=lambda pair: not pair[1].blind)


def main_table(subject: ReportSubject) -> MainTable:
    """Rows: majority, chance, blind arms, arms. Columns: the metrics that any row has."""
    sources: list[tuple[str, Literal["baseline", "blind", "arm"], int, Mapping[str, Mapping[str, Interval]]]] = []
    if any(subject.majority.overall.values()):
        sources.append(("majority answer", "baseline", -1, subject.majority.overall))
    if any(subject.chance.overall.values()):
        sources.append(("chance", "baseline", -1, subject.chance.overall))
    for index, arm in ordered_arms(subject):
        if arm.evaluation is not None:
            overall = {task: summary.overall for task, summary in arm.evaluation.tasks.items()}
            sources.append((arm.label, "blind" if arm.blind else "arm", index, overall))
    if all(index < 0 for _, _, index, _ in sources):
        return MainTable(columns=(), rows=())
    values = {
        column: [overall.get(column.task, {}).get(column.metric) for _, _, _, overall in sources]
        for column in main_columns()
    }
    columns = tuple(column for column in values if any(value is not None for value in values[column]))
    best = {column: best_row(values[column]) for column in columns}
    rows = tuple(
        AblationRow(
            label=label,
            kind=kind,
            arm=index,
            cells=tuple(Cell(value=values[c][number], best=best[c] == number) for c in columns),
        )
        for number, (label, kind, index, _) in enumerate(sources)
    )
    return MainTable(columns=columns, rows=rows)


def absent_metrics(evaluated: Iterable[tuple[str, StoredEvaluation]]) -> tuple[str, ...]:
    """Which metrics could not be computed, and why (METEOR without Java), one sentence each; label, evaluation."""
    found: dict[str, list[str]] = {}
    rows = list(evaluated)
    for label, evaluation in rows:
        for task, summary in evaluation.tasks.items():
            for metric, reason in summary.unavailable.items():
                heading = metric.replace("_", "-").upper()
                found.setdefault(f"{title_of(task)} has no {heading}: {reason}", []).append(label)
    return tuple(
        f"{text}." if len(labels) == len(rows) else f"{text} ({', '.join(labels)})." for text, labels in found.items()
    )


def best_row(values: Sequence[Interval | None]) -> int | None:
    """Index of the value whose interval lies above all others, or None (see `BOLD_RULE`).

    A value without bounds counts as a point for the others, but cannot win: nothing is known of its spread.
    """
    known = [(index, value) for index, value in enumerate(values) if value is not None and not math.isnan(value.mean)]
    if len(known) < 2:
        return None
    winner, value = max(known, key=lambda pair: pair[1].mean)
    others = max(v.mean if math.isnan(v.high) else v.high for index, v in known if index != winner)
    return winner if value.low > others else None


def verdict(value: Interval | None, baseline: float) -> Verdict:
    """At chance where the interval includes the baseline; unknown without bounds or baseline."""
    if value is None or math.isnan(value.low) or math.isnan(value.high) or math.isnan(baseline):
        return "unknown"
    if value.high < baseline:
        return "below"
    return "chance" if value.low <= baseline else "above"


def type_table(subject: ReportSubject) -> tuple[TypeGroup, ...]:
    """Every task's question types with their baseline: majority for questions, chance for grounding."""
    arms = [(index, arm) for index, arm in ordered_arms(subject) if arm.evaluation is not None]
    groups = []
    for column in type_columns():
        summaries = {p: arm.evaluation.tasks.get(column.task) for p, arm in arms if arm.evaluation is not None}
        counts: dict[str, int] = {}
        for summary in summaries.values():
            counts.update(summary.type_counts if summary is not None else {})
        if not counts:
            continue
        baseline = type_baseline(subject, column)

        def row(name: str, count: int, base: float, values: Mapping[int, Interval | None]) -> TypeRow:
            cells = tuple(TypeCell(arm=p, value=v, verdict=verdict(v, base)) for p, v in values.items())
            return TypeRow(name=name, count=count, baseline=base, cells=cells)

        rows = tuple(
            row(
                name,
                counts[name],
                baseline.get(name, math.nan),
                {p: None if s is None else s.by_type.get(name, {}).get(column.metric) for p, s in summaries.items()},
            )
            for name in sorted(counts)
        )
        macro = {p: None if s is None else s.macro.get(column.metric) for p, s in summaries.items()}
        mean = float(np.mean([each.baseline for each in rows]))  # NaN where any type's is unknown
        groups.append(
            TypeGroup(
                column=column,
                baseline_name="chance" if benchmark_named(column.task).points else "majority",
                rows=rows,
                macro=row("mean over types", sum(counts.values()), mean, macro),
            )
        )
    return tuple(groups)


def type_baseline(subject: ReportSubject, column: Column) -> dict[str, float]:
    """The baseline of every type, points: the majority's, or for grounding what a random proposal scores.

    Chance by type is computed from the first evaluated arm's records (same scenes, same proposals) where the
    comparison does not state it.
    """
    points = benchmark_named(column.task).points
    stated = subject.chance if points else subject.majority
    values = {t: m[column.metric].mean for t, m in stated.by_type.get(column.task, {}).items() if column.metric in m}
    if values or not points:
        return values
    evaluation = next((arm.evaluation for arm in subject.arms if arm.evaluation is not None), None)
    found: dict[str, list[float]] = {}
    for record in evaluation.records if evaluation is not None else ():
        if record.task == column.task:
            found.setdefault(record.type, []).append(chance_scores(prediction_of(record))[column.metric])
    return {name: 100.0 * float(np.mean(each)) for name, each in found.items()}


def prediction_of(record: EvaluationRecord) -> Prediction:
    """What a record of ours says that was pointed at."""
    return Prediction(
        annotation=Annotation(id=record.id, task=record.task, scene_id=record.scene_id, type=record.type),
        boxes=record.boxes,
        scores=record.cosines,
        zero_target_score=record.zero_cosine,
        targets=record.targets,
    )
