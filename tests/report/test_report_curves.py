"""Loss curves: how far losses fell, and whether what is drawn is what was logged."""

import itertools
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.report.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    fall_of,
    loss_charts,
    loss_falls,
    loss_series,
    moving_mean,
    nice_ticks,
)
from stereopsis.report.read import read_subject


def write_losses(run, name, values):
    lines = [{"step": step, f"loss/{name}": value} for step, value in values]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_fall_by_hand():
    # 20 values: the last tenth are the last two, (0.2 + 0.4) / 2.
    fall = fall_of([1.2, *[0.7] * 17, 0.2, 0.4])
    assert fall.start == 1.2
    assert fall.end == pytest.approx(0.3)
    assert fall.factor == pytest.approx(4.0)
    assert fall.bad == 0


def test_fall_of_few_values_and_none():
    assert fall_of([2.0, 0.5]).factor == 4.0
    assert fall_of([math.nan, 2.0, math.inf, 1.0]).bad == 2
    assert fall_of([math.nan, 2.0, math.inf, 1.0]).factor == 2.0
    assert fall_of([math.nan]) is None
    assert math.isnan(fall_of([-1.0, -2.0]).factor)


def test_only_losses_are_read_in_log_order():
    metrics = [
        {"step": 1, "loss": 3.0, "loss/text": 2.0, "learning_rate": 0.1},
        {"step": 2, "loss/text": 1.0, "loss/grounding": 5.0, "grounding/accuracy": 0.5},
        {"step": 2, "train_loss": 1.0},
        {"loss/text": 9.0},
    ]
    assert loss_series(metrics) == {"text": [(1.0, 2.0), (2.0, 1.0)], "grounding": [(2.0, 5.0)]}


def test_objectives_are_listed_in_a_fixed_order_and_unknown_ones_last(run):
    line = {"step": 1, "loss/zebra": 1.0, "loss/alignment": 1.0, "loss/text": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert list(loss_falls(read_subject(run))) == ["text", "alignment", "zebra"]


def numbers(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)]


def test_what_is_drawn_is_what_was_logged(run):
    write_losses(run, "text", [(0, 4.0), (50, 2.0), (100, 1.0)])
    (chart,) = loss_charts(read_subject(run))
    xy = numbers(chart.lines[0].path)
    assert [x for x, _ in xy] == pytest.approx([LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT], abs=0.1)
    # Heights above the axis (which starts at 0) are proportional to the losses.
    heights = [HEIGHT - BOTTOM - y for _, y in xy]
    assert heights[0] / heights[1] == pytest.approx(2.0, abs=0.01)
    assert heights[1] / heights[2] == pytest.approx(2.0, abs=0.01)
    assert chart.lines[0].smooth == ""
    assert chart.lines[0].end == pytest.approx(xy[-1], abs=0.1)
    zero = next(tick for tick in chart.y_ticks if tick.label == "0")
    assert zero.at == pytest.approx(HEIGHT - BOTTOM)


finite = st.floats(-1e4, 1e4).filter(lambda v: v == 0 or abs(v) > 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=40))
def test_curves_stay_inside_their_axes(tmp_path_factory, values):
    from stereopsis.report.read import Baseline, ReportedArm, ReportSubject, Run

    metrics = tuple({"step": step, "loss/text": value} for step, value in enumerate(values))
    empty = {"recipe": {}, "environment": {}, "evaluation": None, "pictures": ()}
    base = tmp_path_factory.getbasetemp()
    arm = ReportedArm(name="a", label="a", note="", run=Run(folder=base, metrics=metrics, **empty))
    subject = ReportSubject(
        folder=base,
        title="t",
        arms=(arm,),
        majority=Baseline(),
        chance=Baseline(),
        scenes=None,
        seconds=math.nan,
        environment={},
        comparison=False,
    )
    (chart,) = loss_charts(subject)
    for x, y in numbers(chart.lines[0].path):
        assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


def test_values_that_are_not_finite_are_counted_not_drawn(run):
    write_losses(run, "text", [(1, 4.0), (2, math.nan), (3, 2.0)])
    (chart,) = loss_charts(read_subject(run))
    assert len(numbers(chart.lines[0].path)) == 2
    assert chart.lines[0].fall.bad == 1


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 8))
def test_ticks_are_round_few_and_inside(low, span, count):
    ticks = nice_ticks(low, low + span, count)
    assert 1 <= len(ticks) <= count + 2
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks) or len(ticks) == 1
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    for step in steps:
        assert step == pytest.approx(steps[0])
        assert f"{step:.0e}"[0] in "125"


def test_ticks_by_hand():
    assert nice_ticks(0.0, 400.0, 4) == [0, 100, 200, 300, 400]
    assert nice_ticks(0.0, 1.0, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_moving_mean():
    assert moving_mean([1.0] * 50) == [1.0] * 50
    line = [float(v) for v in range(50)]
    assert moving_mean(line) == pytest.approx(line)  # symmetric windows keep straight lines
    assert moving_mean([0.0, 3.0, 0.0, 0.0]) == pytest.approx([0.0, 1.0, 1.0, 0.0])
