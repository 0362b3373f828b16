"""Bold, at chance, baselines by type, and the order of rows."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.geometry.boxes import iou
from stereopsis.report import text_table
from stereopsis.report.read import read_subject
from stereopsis.report.tables import (
    absent_metrics,
    best_row,
    main_columns,
    main_table,
    type_baseline,
    type_table,
    verdict,
)


def between(low: float, mean: float, high: float) -> Interval:
    return Interval(mean=float(mean), low=float(low), high=float(high))


def point(mean: float) -> Interval:
    return between(math.nan, mean, math.nan)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([between(1, 2, 3), between(4, 5, 6)], 1),
        ([between(1, 2, 4.5), between(4, 5, 6)], None),
        ([between(0, 2, 4), between(4, 5, 6)], None),  # they touch
        ([between(1, 2, 3), None, between(4, 5, 6), point(3.9)], 2),
        ([between(4, 5, 6), point(4.1)], None),  # a bare number counts as a point
        ([between(1, 2, 3), point(9)], None),  # nothing is known of the winner's spread
        ([between(0, 3, 9), between(4, 5, 6)], None),  # the wide one reaches over the best
        ([between(4, 5, 6)], None),
        ([None, None], None),
    ],
)
def test_best_row(values, best):
    assert best_row(values) == best


intervals = st.tuples(*[st.floats(0, 100)] * 3).map(lambda v: between(*sorted(v)))


@given(st.lists(st.one_of(st.none(), intervals, st.floats(0, 100).map(point)), max_size=6))
def test_best_row_lies_above_every_other_interval(values):
    best = best_row(values)
    if best is not None:
        for place, other in enumerate(values):
            if place != best and other is not None:
                assert values[best].low > (other.mean if math.isnan(other.high) else other.high)


@pytest.mark.parametrize(
    ("value", "baseline", "expected"),
    [
        (between(40, 50, 60), 39.9, "above"),
        (between(40, 50, 60), 40, "chance"),
        (between(40, 50, 60), 60, "chance"),
        (between(40, 50, 60), 60.1, "below"),
        (point(50), 40, "unknown"),
        (between(40, 50, 60), math.nan, "unknown"),
        (None, 40, "unknown"),
    ],
)
def test_verdict(value, baseline, expected):
    assert verdict(value, float(baseline)) == expected


def test_rows_and_columns(comparison):
    table = main_table(read_subject(comparison))
    assert [row.label for row in table.rows] == [
        "majority answer",
        "chance",
        "blind",
        "text + grounding",
        "everything on",
    ]
    assert [row.arm for row in table.rows] == [-1, -1, 0, 1, 2]
    assert table.columns == tuple(
        column
        for column in main_columns()
        if "meteor" not in column.metric and column.task not in ("mmsi", "viewspatial", "mindcube")
    )  # not computed, and not asked in rooms
    summary = json.loads((comparison / "arms" / "full" / "evaluation" / "summary.json").read_text())["tasks"]
    for column, cell in zip(table.columns, table.rows[4].cells, strict=True):
        assert cell.value.mean == summary[column.task]["overall"][column.metric]["mean"]
    # Majority answers no grounding, chance answers nothing else.
    points = [column.task in ("scanrefer", "multi3drefer") for column in table.columns]
    assert [c.value is None for c in table.rows[0].cells] == points
    assert [c.value is None for c in table.rows[1].cells] == [not each for each in points]


def test_columns_of_tasks_that_nobody_ran_are_left_out(run):
    file = run / "evaluation" / "summary.json"
    summary = json.loads(file.read_text())
    summary["tasks"] = {"scanrefer": summary["tasks"]["scanrefer"]}
    file.write_text(json.dumps(summary))
    table = main_table(read_subject(run))
    assert [column.metric for column in table.columns] == ["acc@0.25", "acc@0.5"]


def test_without_evaluation_there_is_no_table(run):
    (run / "evaluation").rename(run.parent / "gone")
    assert main_table(read_subject(run)).rows == ()
    assert type_table(read_subject(run)) == ()


def test_every_type_is_listed_with_its_baseline(comparison):
    subject = read_subject(comparison)
    stated = json.loads((comparison / "comparison.json").read_text())["baselines"]["majority"]
    groups = {group.column.task: group for group in type_table(subject)}
    assert list(groups) == ["sqa3d", "scanqa", "scanrefer", "multi3drefer", "vsibench"]
    for task in ("sqa3d", "scanqa"):
        assert {row.name: row.baseline for row in groups[task].rows} == {
            name: values["em"]["mean"] for name, values in stated[task]["by_type"].items()
        }
        mean = np.mean([values["em"]["mean"] for values in stated[task]["by_type"].values()])
        assert groups[task].macro.baseline == pytest.approx(mean)
        assert groups[task].macro.cells[0].value == subject.arms[0].evaluation.tasks[task].macro["em"]


def test_chance_by_type_is_the_share_of_candidates_that_hit(comparison):
    subject = read_subject(comparison)
    column = next(c for c in main_columns() if c.metric == "acc@0.25")
    shares: dict[str, list[float]] = {}
    for record in subject.arms[1].evaluation.records:
        if record.task == "scanrefer":
            hits = [float(iou(box[None], record.targets)[0, 0] >= 0.25) for box in record.boxes]
            shares.setdefault(record.type, []).append(100 * sum(hits) / len(hits))
    expected = {name: float(np.mean(values)) for name, values in shares.items()}
    assert type_baseline(subject, column) == pytest.approx(expected)
    # ... and over all types it is what the comparison states.
    everything = [value for values in shares.values() for value in values]
    assert subject.chance.overall["scanrefer"]["acc@0.25"].mean == pytest.approx(np.mean(everything))


def shown(table) -> str:
    console = Console(width=220, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_text_table(comparison):
    text = shown(text_table(comparison))
    value = main_table(read_subject(comparison)).rows[4].cells[0].value
    assert "everything on" in text
    assert f"{value.mean:.1f}" in text
    assert f"{value.low:.1f}-{value.high:.1f}" in text
    assert "Scan2Cap" in text


def test_text_table_without_evaluation_tells_how_far_losses_fell(run):
    (run / "evaluation").rename(run.parent / "gone")
    lines = [{"step": step, "loss/cross_view": loss} for step, loss in ((1, 0.9), (10, 0.5), (20, 0.3))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = shown(text_table(run))
    assert "Hidden views" in text
    assert "0.9 -> 0.3 (3x)" in text


def test_markup_in_labels_is_shown_as_it_is(tmp_path, comparison):
    content = json.loads((comparison / "comparison.json").read_text())
    content["arms"] = [{**content["arms"][1], "label": "[red]x[/red]", "folder": str(comparison / "arms/base")}]
    content["scenes"] = None
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    assert "[red]x[/red]" in shown(text_table(tmp_path))


def test_meteor_stands_in_the_table_where_it_is_and_its_absence_is_told(comparison):
    """Without Java: one sentence for all arms, or with the names of those that lack it."""
    arms = read_subject(comparison).arms
    evaluated = [(arm.label, arm.evaluation) for arm in arms if arm.evaluation is not None]
    plain = evaluated[0][1]
    known = dataclasses.replace(
        plain.tasks["scanqa"], overall={**plain.tasks["scanqa"].overall, "meteor": between(1, 2, 3)}, unavailable={}
    )
    lacking = dataclasses.replace(plain.tasks["scanqa"], unavailable={"meteor": "no Java"})
    with_it = dataclasses.replace(plain, tasks={"scanqa": known})
    without = dataclasses.replace(plain, tasks={"scanqa": lacking})
    assert absent_metrics([("a", with_it)]) == ()
    assert absent_metrics([("a", without), ("b", without)]) == ("ScanQA has no METEOR: no Java.",)
    assert absent_metrics([("a", with_it), ("b", without)]) == ("ScanQA has no METEOR: no Java (b).",)
    subject = read_subject(comparison)
    arms = tuple(
        dataclasses.replace(arm, run=arm.run and dataclasses.replace(arm.run, evaluation=with_it))
        for arm in subject.arms
    )
    shown = dataclasses.replace(subject, arms=arms)
    table = main_table(shown)
    place = [column.metric for column in table.columns].index("meteor")
    assert table.rows[-1].cells[place].value == between(1, 2, 3)
