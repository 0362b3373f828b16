"""Names and texts from files stay words: in pages, in SVGs, in tables, in spreadsheets."""

import ast
import csv
import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import stereopsis
from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.report import write_report
from stereopsis.report.line_chart import ChartPanel, Series, panels_svg
from stereopsis.report.probe_page import scatter_points, scatter_svg, write_probe_page
from stereopsis.report.published_table import ResultsTable, TableCell, TableColumn, TableRow
from stereopsis.report.similarity import ClickableScene
from stereopsis.report.table_files import read_csv, write_table

EVIL = "</script></title></style><script>bad()</script><img src=x onerror='bad()'>\"'&{{7*7}}"
SOURCE = Path(stereopsis.__file__).parent


class Tags(html.parser.HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        assert not [name for name, _ in attributes if name.startswith("on")], (tag, attributes)
        assert dict(attributes).get("src") != "x", (tag, attributes)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def probe_result() -> dict[str, Any]:
    layer = {
        "score": interval(0.5),
        "random": interval(0.1),
        "gap": interval(0.4),
        "recall": {"1": interval(0.2)},
        "chance": {"1": interval(0.1)},
        "readouts": {},
    }
    means = [interval(10.0 * n) for n in range(4)]
    found = {
        "metric": EVIL,
        "quartiles": {"means": means},
        "correlation": dict.fromkeys(("pearson", "spearman"), means[0]),
    }
    models = [
        {"name": f"{EVIL}{n}", "group": f"{EVIL}{n}", "score": 0.1 * n, "metrics": {EVIL: 5.0 * n}} for n in (1, 2)
    ]
    return {
        "subject": {"name": EVIL, "positions": EVIL},
        "settings": {"voxel": EVIL, "ks": [1]},
        "layers": {f"{EVIL}{n}": layer for n in (1, 2)},
        "downstream": {EVIL: found},
        "models": models,
    }


def test_a_probes_page_takes_no_script_from_names(tmp_path):
    scene = ClickableScene(
        scene_id=EVIL, score=0.5, images=("data:image/png;base64,",), rows=1, cols=1, dims=1, tokens="AA==", first=0
    )
    page = Tags(write_probe_page(tmp_path, probe_result(), [scene], sheets=[EVIL]).read_text())
    assert len(page.scripts) == 2
    assert json.loads(page.scripts[0])[0]["scene_id"] == EVIL
    words = "".join(page.words)
    assert "bad()" not in page.scripts[1]
    assert (
        words.count("bad()") >= 12
    )  # twice a name: title, heading, positions, voxel, layers, metric, models, scene, sheet
    assert "{{7*7}}" in words


def test_pictures_that_stand_alone_take_none_either():
    points = scatter_points(probe_result()["models"], EVIL)
    panel = ChartPanel(title=EVIL, across=EVIL, up=EVIL, series=(Series(name=EVIL, points=((1.0, 1.0), (2.0, 2.0))),))
    for picture in (
        *(scatter_svg(points, EVIL, across=EVIL, named=named) for named in (True, False)),
        panels_svg([panel]),
    ):
        assert Tags(picture).scripts == []


def test_a_report_takes_none_from_any_file_of_a_run(comparison, tmp_path):
    """Markup goes into every text of every file that a report reads."""
    folder = tmp_path / "demo"
    shutil.copytree(comparison, folder)
    kept = {
        "kind",
        "name",
        "folder",
        "task",
        "format",
        "sha256",
        "target",
        "reconstruction",
        "baseline",
        "scenes",
        "type",
    }
    kept |= {"context", "id", "scene_id", "date"}  # names that hold the files together; dates that are parsed

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poisoned(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [poisoned(each, key) for each in value]
        return f"{value}{EVIL}" if isinstance(value, str) and key not in kept else value

    files = [
        folder / "comparison.json",
        *folder.glob("arms/*/environment.json"),
        *folder.glob("scenes/*/annotations.json"),
        *folder.glob("arms/*/pictures/pictures.json"),
    ]
    for file in files:
        file.write_text(json.dumps(poisoned(json.loads(file.read_text()))))
    for file in folder.glob("arms/*/evaluation/records.jsonl"):
        lines = [poisoned(json.loads(line)) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = Tags(write_report(folder).read_text())
    assert not [script for script in page.scripts if re.match(r"\s*bad\(\)", script)]
    assert "".join(page.words).count("bad()") > 20


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "link.png"])
def test_pictures_are_embedded_from_their_folder_only(run, tmp_path, name):
    (run / "secret.png").write_bytes(b"secret")
    file = run / "pictures" / "pictures.json"
    (run / "pictures" / "link.png").symlink_to(run / "secret.png")
    entries = json.loads(file.read_text())
    entries[0]["context"] = [name]
    file.write_text(json.dumps(entries))
    with pytest.raises(RunFolderError, match=rf"{re.escape(repr(name))} is not in .*pictures lie beside"):
        write_report(run)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "'=1", "''", "-", "harmless", "'tis", ""]


@pytest.mark.parametrize("label", FORMULAS)
def test_no_cell_of_a_spreadsheet_begins_a_formula(label, tmp_path, table_of):
    file = write_table(table_of(label), tmp_path / "t.csv")
    with file.open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    assert rows
    for row in rows:
        for cell in row:
            is_number = re.fullmatch(r"-?[0-9.]+", cell) is not None
            assert is_number or cell.lstrip()[:1] not in {"=", "+", "-", "@"}, cell
    assert {key[0] for key in read_csv(file)} == {label}


@pytest.fixture
def table_of():
    """A function that makes a table of one row, whose label and source are given."""

    def make(label: str) -> ResultsTable:
        cell = TableCell(value=Interval(mean=-1.0, low=-2.0, high=0.5), source=label, protocol=label)
        row = TableRow(label=label, kind="ours", cells=(cell,))
        return ResultsTable(
            columns=(TableColumn(task="sqa3d", metric="em"),), rows=(row,), footnotes={}, remarks=(label,)
        )

    return make


def test_nothing_is_marked_as_safe_but_our_own_files_and_pictures():
    trusted = {("page.py", "Markup"): 3, ("probe_page.py", "Markup"): 1}
    found: dict[tuple[str, str], int] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Markup":
                found[path.name, "Markup"] = found.get((path.name, "Markup"), 0) + 1
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None), *(each.name for each in node.names)]
                assert not {"html.escape", "xml.sax.saxutils"} & {str(name) for name in names}, path
                assert not (getattr(node, "module", "") == "html" and "escape" in names), path
    assert found == trusted
    for template in SOURCE.rglob("*.jinja"):
        assert not re.search(r"\|\s*safe\b|autoescape\s+false", template.read_text()), template
