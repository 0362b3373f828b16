"""Line charts with logarithmic axes as SVG: what something costs while something else doubles."""

import dataclasses
import math
from collections.abc import Sequence

from stereopsis.report.style import arm_hex
from stereopsis.report.templates import escaped

WIDTH, HEIGHT = 400.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 46.0, 40.0
LETTER = 6.0
"""Width that a letter of a legend is given."""
GREY, FAINT = "#5b6877", "#d5dbe2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One line.

    Attributes:
        name: for the legend.
        points: (x, y), both positive.
        dashed: a comparison rather than a measurement of its own.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChartPanel:
    """One chart.

    Attributes:
        title: above it.
        across: what the horizontal axis shows; its ticks are the points' own x.
        up: what the vertical axis shows.
        series: the lines, told apart by colour.
    """

    title: str
    across: str
    up: str
    series: tuple[Series, ...]


def panels_svg(panels: Sequence[ChartPanel]) -> str:
    """Charts side by side as one SVG element that can stand alone in a file.

    Raises:
        ValueError: a chart has no point, or one that a logarithmic axis cannot show.
    """
    whole = WIDTH * len(panels)
    told = escaped("; ".join(panel.title for panel in panels))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:g} {HEIGHT:g}" width="{whole:g}" role="img" '
        f'aria-label="{told}" font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{whole:g}" height="{HEIGHT:g}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH:g} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"])


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last one not above ``low`` to the first one not below ``high``."""
    around = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = [m * 10.0**power for power in around for m in (1, 2, 5)]
    first = max(i for i, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
    last = min(i for i, mark in enumerate(marks) if mark >= high * (1 - 1e-9))
    return [float(f"{mark:.6g}") for mark in marks[first : max(last, first + 1) + 1]]


def _panel(panel: ChartPanel) -> list[str]:
    points = [point for line in panel.series for point in line.points]
    if not points or any(value <= 0 for point in points for value in point):
        raise ValueError(f"chart '{panel.title}': logarithmic axes need points with positive coordinates, got {points}")
    across = sorted({x for x, _ in points})
    up = decades(min(y for _, y in points), max(y for _, y in points))

    def x_of(x: float) -> float:
        return LEFT + _share(x, across[0], across[-1]) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        return HEIGHT - BOTTOM - _share(y, up[0], up[-1]) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT:g}" y="16" fill="#1f2933" font-weight="600">{escaped(panel.title)}</text>']
    for y in up:
        parts.append(f'<path d="M{LEFT:g} {y_of(y):.1f}H{WIDTH - RIGHT:g}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{LEFT - 6:g}" y="{y_of(y) + 4:.1f}" fill="{GREY}" text-anchor="end">{y:g}</text>')
    for x in across:
        anchor = f'x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 16:g}"'
        parts.append(f'<text {anchor} fill="{GREY}" text-anchor="middle">{x:g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 6:g}" fill="{GREY}" text-anchor="middle">'
        f'{escaped(panel.across)}</text><text transform="translate(13 {middle:g}) rotate(-90)" fill="{GREY}" '
        f'text-anchor="middle">{escaped(panel.up)}</text>'
    )
    legend = 0.0
    for number, line in enumerate(panel.series):
        path = "M" + "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in line.points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<path d="{path}" fill="none" stroke="{arm_hex(number)}" stroke-width="2"{dash}/>')
        for x, y in line.points:
            parts.append(
                f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.5" fill="{arm_hex(number)}">'
                f"<title>{escaped(line.name)}: {x:g}, {y:.3g}</title></circle>"
            )
        parts.append(f'<text x="{LEFT + legend:g}" y="34" fill="{arm_hex(number)}">{escaped(line.name)}</text>')
        legend += LETTER * len(line.name) + 18
    return parts


def _share(value: float, low: float, high: float) -> float:
    """How far along a logarithmic axis a value lies; the middle where the axis is a point."""
    return 0.5 if high <= low else math.log(value / low) / math.log(high / low)
