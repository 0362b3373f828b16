"""Loss curves as SVG geometry: one small chart for each objective, all arms in it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stereopsis.report.read import ReportSubject

PREFIX = "loss/"
OBJECTIVES: Mapping[str, tuple[str, str]] = {
    "text": ("Answers", "next-word cross-entropy"),
    "grounding": ("Grounding", "InfoNCE over candidate boxes"),
    "vanilla": ("Reconstruction", "denoising error, views from their own tokens"),
    "cross_view": ("Hidden views", "denoising error, views from the other views"),
    "birds_eye": ("Room from above", "denoising error, bird's-eye view"),
    "alignment": ("Alignment", "distance to the 3D teacher's features"),
    "depth": ("Depth", "difference of the logarithms of predicted and true depth"),
    "point_map": ("Point map", "metres between predicted and true points"),
    "rays": ("Rays", "difference of directions, plus metres between origins"),
    "camera_pose": ("Camera pose", "difference of rotations, plus metres between places"),
    "contrastive": ("Contrast", "InfoNCE of one spot's tokens across views"),
    "consistency": ("Consistency", "1 - cosine of one spot's tokens across views, with guard"),
    "relational": ("Relations", "difference of token-token cosines to the 3D teacher's"),
}
WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 10.0, 12.0, 26.0
SMOOTH_FROM = 30
END_SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fall:
    """How far a loss fell.

    Attributes:
        start: the first logged value.
        end: mean of the last tenth of the logged values (single values are noisy).
        bad: logged values that are NaN or inf, which nothing above counts.
    """

    start: float
    end: float
    bad: int

    @property
    def factor(self) -> float:
        """Start / end; NaN where that says nothing (a loss that is not positive)."""
        return self.start / self.end if self.start > 0 and self.end > 0 else math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tick:
    """A place on an axis, SVG units, and its label."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One arm's curve: SVG paths of the logged values and of their moving mean ("" where too few)."""

    arm: int
    path: str
    smooth: str
    end: tuple[float, float]
    fall: Fall


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """One objective's chart."""

    name: str
    title: str
    unit: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def loss_series(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Objective -> (step, loss) in log order; values that are no numbers are passed over, NaN and inf are kept."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in metrics:
        step = line.get("step")
        if not isinstance(step, (int, float)):
            continue
        for key, value in line.items():
            if key.startswith(PREFIX) and isinstance(value, (int, float)):
                series.setdefault(key.removeprefix(PREFIX), []).append((float(step), float(value)))
    return series


def fall_of(values: Sequence[float]) -> Fall | None:
    """First value, mean of the last tenth, and how many were not finite; None where none was finite."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    tail = finite[-max(1, round(END_SHARE * len(finite))) :]
    return Fall(start=finite[0], end=sum(tail) / len(tail), bad=len(values) - len(finite))


def loss_falls(subject: ReportSubject) -> dict[str, dict[int, Fall]]:
    """Objective -> arm's index -> how far its loss fell; objectives in the order of `OBJECTIVES`, then by name."""
    falls: dict[str, dict[int, Fall]] = {}
    for index, arm in enumerate(subject.arms):
        for name, points in loss_series(arm.run.metrics if arm.run is not None else ()).items():
            fall = fall_of([loss for _, loss in points])
            if fall is not None:
                falls.setdefault(name, {})[index] = fall
    known = list(OBJECTIVES)
    order = sorted(falls, key=lambda name: (known.index(name) if name in OBJECTIVES else len(known), name))
    return {name: falls[name] for name in order}


def loss_charts(subject: ReportSubject) -> tuple[Chart, ...]:
    """One chart for each objective that any arm trained on."""
    series = [loss_series(arm.run.metrics) if arm.run is not None else {} for arm in subject.arms]
    charts = []
    for name, falls in loss_falls(subject).items():
        title, unit = OBJECTIVES.get(name, (name.replace("_", " "), ""))
        points = {index: [p for p in series[index][name] if math.isfinite(p[1])] for index in falls}
        steps = [step for line in points.values() for step, _ in line]
        losses = [loss for line in points.values() for _, loss in line]
        x_ticks = nice_ticks(0.0, max(max(steps), 1.0), 4)
        y_ticks = nice_ticks(_floor(losses), max(losses), 5)
        x_span = 0.0, max(max(steps), 1.0)
        y_span = min(y_ticks[0], _floor(losses)), max(y_ticks[-1], max(losses) + 0.02 * (max(losses) - y_ticks[0]))

        def place_of(point: tuple[float, float], x: tuple[float, float] = x_span, y: tuple[float, float] = y_span):
            across = LEFT + (point[0] - x[0]) / (x[1] - x[0]) * (WIDTH - LEFT - RIGHT)
            return across, HEIGHT - BOTTOM - (point[1] - y[0]) / (y[1] - y[0]) * (HEIGHT - TOP - BOTTOM)

        lines = []
        for arm, values in points.items():
            smooth = moving_mean([loss for _, loss in values])
            mean = [(step, loss) for (step, _), loss in zip(values, smooth, strict=True)]
            enough = len(values) >= SMOOTH_FROM
            lines.append(
                Line(
                    arm=arm,
                    path=_path([place_of(point) for point in values]),
                    smooth=_path([place_of(point) for point in mean]) if enough else "",
                    end=place_of(mean[-1] if enough else values[-1]),
                    fall=falls[arm],
                )
            )
        charts.append(
            Chart(
                name=name,
                title=title,
                unit=unit,
                x_ticks=tuple(Tick(at=place_of((v, y_span[0]))[0], label=f"{v:g}") for v in x_ticks),
                y_ticks=tuple(Tick(at=place_of((0.0, v))[1], label=f"{v:g}") for v in y_ticks),
                lines=tuple(lines),
            )
        )
    return tuple(charts)


def _floor(values: Sequence[float]) -> float:
    """Where the loss axis starts: at 0, so that heights compare, unless the curves are almost flat up there."""
    low, high = min(values), max(values)
    return 0.0 if 0.0 <= low < 0.8 * high or low == high >= 0 else low


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2, 5 times a power of ten) that cover low to high."""
    if high <= low:
        high = low + 1.0
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)] or [low]


def moving_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a tenth of the curve, cut short (on both sides alike) at its ends."""
    half = max(1, len(values) // 20)
    means = []
    for index in range(len(values)):
        reach = min(half, index, len(values) - 1 - index)
        window = values[index - reach : index + reach + 1]
        means.append(sum(window) / len(window))
    return means


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
