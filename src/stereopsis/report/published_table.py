"""Our results beside published ones: who reached what, under which protocol, and where the number comes from.

A published number stands in the table only where ours was measured on the same data: ScanNet scenes. Results on
procedural rooms or on one's own captures get a table of their own, which says so.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stereopsis.benchmarks import Published, benchmark_named, benchmark_names
from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.report.read import COMPARISON_FILE, EVALUATION_FOLDER, RECIPE_FILE, read_subject
from stereopsis.report.results import StoredEvaluation, read_evaluation
from stereopsis.report.tables import absent_metrics, title_of

UNSTATED = "not stated"
PROTOCOL_MARK, SUBSET_MARK = "†", "‡"

_ROOM = re.compile(r"room-\d+")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OwnResult:
    """One of our rows: its name and its evaluation."""

    label: str
    evaluation: StoredEvaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableColumn:
    """A metric of a benchmark; ``type`` is empty for the value over all samples."""

    task: str
    metric: str
    type: str = ""

    @property
    def key(self) -> str:
        """The metric's name in files: ``metric`` or ``metric/type``."""
        return f"{self.metric}/{self.type}" if self.type else self.metric

    @property
    def heading(self) -> str:
        """The metric for people."""
        known = {metric.name: metric.heading for metric in benchmark_named(self.task).metrics}
        return f"{known.get(self.metric, self.metric)} {self.type}".strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableCell:
    """A value in points, with bounds where they are known, and the footnotes it carries.

    Attributes:
        value: points.
        protocol: under which it was measured.
        source: where a published value stands; empty for ours.
        marks: keys of the table's footnotes.
    """

    value: Interval
    protocol: str
    source: str = ""
    marks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRow:
    """A method: published, or ours. One cell per column, None where it was not measured."""

    label: str
    kind: Literal["published", "ours"]
    cells: tuple[TableCell | None, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Where its published values stand, each once."""
        return tuple(dict.fromkeys(cell.source for cell in self.cells if cell is not None and cell.source))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """A table ready to be written in any form.

    Attributes:
        columns: metrics.
        rows: published ones first.
        footnotes: mark -> sentence.
        remarks: sentences about the whole table.
    """

    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    footnotes: Mapping[str, str]
    remarks: tuple[str, ...]


class _Footnotes:
    """Equal sentences share a mark; marks of a kind are numbered."""

    def __init__(self) -> None:
        self.by_text: dict[str, str] = {}

    def mark(self, sign: str, text: str) -> str:
        if text not in self.by_text:
            number = 1 + sum(mark.startswith(sign) for mark in self.by_text.values())
            self.by_text[text] = f"{sign}{number}"
        return self.by_text[text]


def read_own_results(folders: Sequence[Path]) -> list[OwnResult]:
    """Evaluations of run folders, comparison folders, evaluation folders and results of ``stereopsis score``.

    Raises:
        RunFolderError: a folder holds no finished evaluation, or two rows would have one name.
    """
    found: list[OwnResult] = []
    for folder in folders:
        if (folder / COMPARISON_FILE).is_file() or (folder / RECIPE_FILE).is_file():
            arms = [(arm.label, arm.evaluation) for arm in read_subject(folder, alone=True).arms]
        else:
            inner = folder / EVALUATION_FOLDER
            evaluation = read_evaluation(inner if inner.is_dir() else folder)
            stated = None if evaluation is None else evaluation.settings.get("name")
            arms = [(str(stated or folder.resolve().name), evaluation)]
        evaluated = [OwnResult(label=label, evaluation=each) for label, each in arms if each is not None]
        if not evaluated:
            raise RunFolderError(f"{folder} holds no finished evaluation; run 'stereopsis evaluate' or 'score' first")
        found += evaluated
    labels = [each.label for each in found]
    for label in {label for label in labels if labels.count(label) > 1}:
        same = [index for index, each in enumerate(labels) if each == label]
        for number, index in enumerate(same, start=1):
            found[index] = dataclasses.replace(found[index], label=f"{label} ({number})")
    return found


def results_table(
    own: Sequence[OwnResult],
    published: Iterable[Published] = (),
    *,
    default_protocols: Mapping[str, str] | None = None,
) -> ResultsTable:
    """Put our rows beside the published ones.

    A cell whose protocol is not that of our first row is marked with a dagger and a footnote; one of ours that does
    not cover the whole split, with a double dagger.

    Args:
        own: our results.
        published: numbers of papers; only those of benchmarks that ours cover are taken.
        default_protocols: what an evaluation used that states none.

    Raises:
        RunFolderError: nothing was evaluated, or our rows of one benchmark were measured on different data.
    """
    tasks = [task for task in benchmark_names() if any(task in each.evaluation.tasks for each in own)]
    if not tasks:
        raise RunFolderError("there is no evaluated benchmark to make a table of; run 'stereopsis evaluate' first")
    data = {task: _data_of(own, task) for task in tasks}
    comparable = {task for task in tasks if data[task] == benchmark_named(task).data}
    numbers = [each for each in published if each.task in comparable]
    columns = _columns(own, numbers, tasks)
    notes = _Footnotes()
    reference = {task: next(p for each in own if (p := _protocol(each, task, default_protocols))) for task in tasks}
    published_rows = _published_rows(numbers, columns, reference, notes)
    own_rows = [_own_row(each, columns, reference, default_protocols, comparable, notes) for each in own]
    return ResultsTable(
        columns=tuple(columns),
        rows=(*published_rows, *own_rows),
        footnotes={mark: text for text, mark in notes.by_text.items()},
        remarks=(
            *_remarks(data, reference, bool(published_rows)),
            *absent_metrics((each.label, each.evaluation) for each in own),
        ),
    )


def _data_of(own: Sequence[OwnResult], task: str) -> str:
    """What a benchmark's questions are about, told from the scenes' names."""
    found: dict[str, list[str]] = {}
    for each in own:
        if task in each.evaluation.tasks:
            scenes = {record.scene_id for record in each.evaluation.records if record.task == task}
            found.setdefault(_data_name(scenes, task), []).append(each.label)
    if len(found) > 1:
        listed = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in found.items())
        raise RunFolderError(
            f"{title_of(task)} was measured on different data ({listed}); such figures cannot stand in one table: "
            "make one for each"
        )
    return next(iter(found))


def _data_name(scenes: set[str], task: str) -> str:
    benchmark = benchmark_named(task)
    if scenes and all(re.fullmatch(benchmark.scenes, scene) for scene in scenes):
        return benchmark.data
    if scenes and all(_ROOM.fullmatch(scene) for scene in scenes):
        return "procedural rooms"
    return "other scenes"


def _columns(own: Sequence[OwnResult], numbers: Sequence[Published], tasks: Sequence[str]) -> list[TableColumn]:
    """Every metric that we measured; a single type's only where a paper reports it too."""
    columns = []
    for task in tasks:
        measured = {
            name for each in own if task in each.evaluation.tasks for name in each.evaluation.tasks[task].overall
        }
        order = [metric.name for metric in benchmark_named(task).metrics if metric.name in measured]
        names = [*order, *sorted(measured - set(order))]
        columns += [TableColumn(task=task, metric=name) for name in names]
        reported = {number.metric for number in numbers if number.task == task}
        kinds = sorted(
            {kind for each in own if task in each.evaluation.tasks for kind in each.evaluation.tasks[task].by_type}
        )
        typed = [TableColumn(task=task, metric=name, type=kind) for kind in kinds for name in names]
        columns += [column for column in typed if column.key in reported]
    return columns


def _protocol(own: OwnResult, task: str, defaults: Mapping[str, str] | None) -> str:
    """The protocol of one of our results; empty where it does not hold the benchmark."""
    if task not in own.evaluation.tasks:
        return ""
    stated: Any = own.evaluation.settings.get("protocols")
    if isinstance(stated, dict) and isinstance(stated.get(task), str):
        return stated[task]
    return (defaults or {}).get(task, UNSTATED)


def _published_rows(
    numbers: Sequence[Published], columns: Sequence[TableColumn], reference: Mapping[str, str], notes: _Footnotes
) -> list[TableRow]:
    """One row per method; a method that reports a metric under two protocols gets a second row."""
    column_of = {(column.task, column.key): number for number, column in enumerate(columns)}
    rows: dict[str, list[TableCell | None]] = {}
    for number in numbers:
        where = column_of.get((number.task, number.metric))
        if where is None:
            continue
        protocol = number.protocol or UNSTATED
        label = number.method
        if label in rows and rows[label][where] is not None:
            label = f"{number.method} ({protocol})"
        cells = rows.setdefault(label, [None] * len(columns))
        if cells[where] is not None:
            raise RunFolderError(
                f"{label} is listed twice for {number.task} {number.metric}; correct the published numbers"
            )
        value = float(number.value)
        cells[where] = TableCell(
            value=Interval(mean=value, low=float("nan"), high=float("nan")),
            protocol=protocol,
            source=number.source,
            marks=_protocol_marks(number.task, protocol, reference, notes),
        )
    return [TableRow(label=label, kind="published", cells=tuple(cells)) for label, cells in rows.items()]


def _protocol_marks(task: str, protocol: str, reference: Mapping[str, str], notes: _Footnotes) -> tuple[str, ...]:
    ours = reference[task]
    if protocol == ours and protocol != UNSTATED:
        return ()
    if protocol == UNSTATED:
        text = f"{title_of(task)}: the protocol is not stated; ours is '{ours}'."
    else:
        text = f"{title_of(task)}: measured under protocol '{protocol}', not '{ours}'."
    return (notes.mark(PROTOCOL_MARK, text),)


def _own_row(
    own: OwnResult,
    columns: Sequence[TableColumn],
    reference: Mapping[str, str],
    defaults: Mapping[str, str] | None,
    comparable: set[str],
    notes: _Footnotes,
) -> TableRow:
    cells: list[TableCell | None] = []
    for column in columns:
        summary = own.evaluation.tasks.get(column.task)
        values = {} if summary is None else summary.by_type.get(column.type, {}) if column.type else summary.overall
        value = values.get(column.metric)
        if summary is None or value is None:
            cells.append(None)
            continue
        protocol = _protocol(own, column.task, defaults)
        marks: tuple[str, ...] = ()
        if protocol != reference[column.task]:
            marks = _protocol_marks(column.task, protocol, reference, notes)
        benchmark = benchmark_named(column.task)
        size = benchmark.splits[benchmark.evaluated]
        if column.task in comparable and summary.count != size:
            text = f"{title_of(column.task)}: {summary.count} samples; the split that papers report has {size}."
            marks = (*marks, notes.mark(SUBSET_MARK, text))
        cells.append(TableCell(value=value, protocol=protocol, marks=marks))
    return TableRow(label=own.label, kind="ours", cells=tuple(cells))


def _remarks(data: Mapping[str, str], reference: Mapping[str, str], published: bool) -> tuple[str, ...]:
    remarks = ["Values in points. Brackets: 95 % bootstrap interval over scenes (our rows)."]
    stated = [f"{title_of(task)} '{name}'" for task, name in reference.items() if name != UNSTATED]
    if stated:
        remarks.append(f"Protocol of our rows: {', '.join(stated)}.")
    elsewhere = [task for task, name in data.items() if name != benchmark_named(task).data]
    if elsewhere:
        listed = ", ".join(f"{title_of(task)} on {data[task]}" for task in elsewhere)
        remarks.append(
            f"Measured on other data than the papers' scenes ({listed}): published numbers are not set beside "
            "these, and these must not be set beside published ones."
        )
    if published:
        remarks.append("Published values are as printed in the sources, which give no intervals.")
    return tuple(remarks)
