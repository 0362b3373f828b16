"""The page of a probe: figures by layer, quartiles, correlations, and views to click."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stereopsis.errors import RunFolderError
from stereopsis.files import write_atomic
from stereopsis.report.similarity import ClickableScene
from stereopsis.report.style import arm_hex
from stereopsis.report.tables import title_of
from stereopsis.report.templates import escaped, template_environment

PAGE_FILE = "probe.html"
WIDTH, HEIGHT, EDGE, LEGEND = 560.0, 240.0, 40.0, 120.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of the layer chart: SVG points and its label."""

    label: str
    colour: str
    points: str
    marks: tuple[tuple[float, float, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScatterPoint:
    """One model in the scatter: where it lies, what it and its group are called, and its two figures."""

    x: float
    y: float
    name: str
    group: str
    score: float
    value: float
    colour: str


def layer_curves(layers: Mapping[str, Any]) -> list[Curve]:
    """Score and baseline of every layer, bottom to top of the network."""
    names = [name for name in layers if layers[name]["score"] is not None]
    if len(names) < 2:
        return []
    step = (WIDTH - 2 * EDGE) / (len(names) - 1)
    series = {"score": "same spot", "random": "other spots (baseline)"}
    curves = []
    for number, (key, label) in enumerate(series.items()):
        values = [layers[name][key] for name in names]
        marks = tuple(
            (EDGE + i * step, _height(value["mean"]), f"{names[i]}: {value['mean']:.3f}")
            for i, value in enumerate(values)
            if value is not None
        )
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in marks)
        curves.append(Curve(label=label, colour=arm_hex(number), points=points, marks=marks))
    return curves


def scatter_points(models: Sequence[Mapping[str, Any]], task: str) -> list[ScatterPoint]:
    """Correspondence against a benchmark's metric, one point per model that has both.

    Args:
        models: each with ``name``, ``score`` and ``metrics`` (task -> percent); those of one ``group`` share a colour.
        task: which benchmark.
    """
    known = [m for m in models if m["score"] is not None and m["metrics"].get(task) is not None]
    if len(known) < 2:
        return []
    groups = list(dict.fromkeys(m.get("group", m["name"]) for m in known))
    xs, ys = [m["score"] for m in known], [m["metrics"][task] for m in known]

    def scaled(value: float, values: Sequence[float], size: float) -> float:
        low, high = min(values), max(values)
        return EDGE + (value - low) / max(high - low, 1e-9) * (size - 2 * EDGE)

    return [
        ScatterPoint(
            x=scaled(x, xs, WIDTH),
            y=HEIGHT - scaled(y, ys, HEIGHT),
            name=m["name"],
            group=m.get("group", m["name"]),
            score=x,
            value=y,
            colour=arm_hex(groups.index(m.get("group", m["name"]))),
        )
        for m, x, y in zip(known, xs, ys, strict=True)
    ]


def scatter_svg(
    points: Sequence[ScatterPoint], title: str, *, across: str = "correspondence score", named: bool = True
) -> str:
    """The scatter as one SVG element that can stand alone in a file.

    Args:
        points: of `scatter_points`.
        title: of the vertical axis.
        across: of the horizontal axis.
        named: write each model's name beside its point; otherwise a legend tells the groups' colours.
    """
    whole = WIDTH if named else WIDTH + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:g} {HEIGHT:g}" width="{whole:g}" role="img" '
        f'aria-label="correspondence against {escaped(title)}" font-family="system-ui, sans-serif" font-size="11">',
        f'<rect x="{EDGE / 2:g}" y="{EDGE / 2:g}" width="{WIDTH - EDGE:g}" height="{HEIGHT - EDGE:g}" fill="none" '
        'stroke="#8b98a7"/>',
    ]
    for point in points:
        told = f"{escaped(point.name)}: {point.score:.3f}, {point.value:.1f}"
        parts.append(
            f'<circle cx="{point.x:.1f}" cy="{point.y:.1f}" r="5" fill="{point.colour}"><title>{told}</title></circle>'
        )
        if named:
            left = point.x > WIDTH * 0.75
            parts.append(
                f'<text x="{point.x + (-8 if left else 8):.1f}" y="{point.y + 4:.1f}" fill="#5b6877" '
                f'text-anchor="{"end" if left else "start"}">{escaped(point.name)}</text>'
            )
    if not named:
        for number, (group, colour) in enumerate({p.group: p.colour for p in points}.items()):
            top = EDGE / 2 + 16 + 15 * number
            parts.append(
                f'<circle cx="{WIDTH + 12:g}" cy="{top - 4:g}" r="5" fill="{colour}"/>'
                f'<text x="{WIDTH + 22:g}" y="{top:g}" fill="#5b6877">{escaped(group)}</text>'
            )
    scores, values = [p.score for p in points], [p.value for p in points]
    for value, x in ((min(scores), EDGE), (max(scores), WIDTH - EDGE)):
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8:g}" fill="#5b6877" text-anchor="middle">{value:.3f}</text>')
    for value, y in ((min(values), HEIGHT - EDGE), (max(values), EDGE)):
        parts.append(f'<text x="{EDGE / 2 + 4:g}" y="{y + 4:.1f}" fill="#5b6877">{value:.1f}</text>')
    parts.append(
        f'<text x="{WIDTH / 2:g}" y="{HEIGHT - 8:g}" fill="#5b6877" text-anchor="middle">{escaped(across)}</text>'
        f'<text x="{EDGE / 2 + 4:g}" y="14" fill="#5b6877">{escaped(title)}</text></svg>'
    )
    return "\n".join(parts)


def _height(value: float) -> float:
    """Cosines from -0.2 to 1 on the chart's vertical axis."""
    return HEIGHT - EDGE / 2 - (value + 0.2) / 1.2 * (HEIGHT - EDGE)


def write_probe_page(
    folder: Path,
    result: Mapping[str, Any],
    scenes: Sequence[ClickableScene] = (),
    *,
    sheets: Sequence[str] = (),
) -> Path:
    """Write ``probe.html``: one file, nothing from the network.

    Args:
        folder: where it goes.
        result: of `stereopsis.probing.probe_scenes`, with ``downstream`` and ``models`` where they are known.
        scenes: to click.
        sheets: file names of similarity sheets beside the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    environment = template_environment()
    import markupsafe

    models = result.get("models", [])
    tasks = dict.fromkeys(task for model in models for task in model["metrics"])
    page = environment.get_template("probe.html.jinja").render(
        result=result,
        curves=layer_curves(result["layers"]),
        zero=_height(0.0),
        one=_height(1.0),
        width=WIDTH,
        height=HEIGHT,
        edge=EDGE,
        downstream=result.get("downstream", {}),
        scatters=[
            markupsafe.Markup(scatter_svg(points, title_of(task)))
            for task in tasks
            if (points := scatter_points(models, task))
        ],
        title_of=title_of,
        sheets=sheets,
        scenes=scenes,
        data=[dataclasses.asdict(scene) | {"images": len(scene.images)} for scene in scenes],
    )
    write_atomic(folder / PAGE_FILE, page, error=RunFolderError)
    return folder / PAGE_FILE
