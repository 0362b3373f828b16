import xml.etree.ElementTree as ElementTree

import pytest

from stereopsis.report.line_chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    ChartPanel,
    Series,
    decades,
    panels_svg,
)

SVG = "{http://www.w3.org/2000/svg}"


def panel(*series: Series, title: str = "cost") -> ChartPanel:
    return ChartPanel(title=title, across="views", up="seconds", series=series)


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(c.get("cx")), float(c.get("cy"))) for c in ElementTree.fromstring(svg).iter(f"{SVG}circle")]


def test_doubling_is_the_same_step_everywhere():
    """1 to 100 fills the height: a tenfold value is half of it; so is a fourfold x of sixteen."""
    points = circles(panels_svg([panel(Series(name="a", points=((1.0, 1.0), (4.0, 10.0), (16.0, 100.0))))]))
    bottom, middle = HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2
    expected = [(LEFT, bottom), ((LEFT + WIDTH - RIGHT) / 2, middle), (WIDTH - RIGHT, TOP)]
    assert points == [pytest.approx(point, abs=0.06) for point in expected]


def test_panels_stand_side_by_side_and_names_are_escaped():
    line = Series(name="K < 2 & more", points=((8.0, 0.5),), dashed=True)
    svg = panels_svg([panel(line), panel(line, title='one "room"')])
    root = ElementTree.fromstring(svg)
    assert float(root.get("width")) == 2 * WIDTH
    assert root.get("aria-label") == 'cost; one "room"'
    assert [g.get("transform") for g in root.iter(f"{SVG}g")] == ["translate(0 0)", f"translate({WIDTH:g} 0)"]
    assert sum(t.text == "K < 2 & more" for t in root.iter(f"{SVG}text")) == 2
    assert sum(p.get("stroke-dasharray") is not None for p in root.iter(f"{SVG}path")) == 2


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (1.0, 100.0, [1, 2, 5, 10, 20, 50, 100]),
        (0.03, 0.3, [0.02, 0.05, 0.1, 0.2, 0.5]),
        (7.0, 7.0, [5, 10]),
        (1.0, 1.0, [1, 2]),
    ],
)
def test_marks(low, high, marks):
    assert decades(low, high) == marks


@pytest.mark.parametrize("points", [(), ((1.0, 0.0),), ((-1.0, 2.0),)])
def test_what_has_no_logarithm_is_refused(points):
    with pytest.raises(ValueError, match="chart 'cost': logarithmic axes need points with positive"):
        panels_svg([panel(Series(name="a", points=points))])
