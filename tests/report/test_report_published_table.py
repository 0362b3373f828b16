"""Our rows beside published ones: what may stand together, what is marked, and that files say the same as the table."""

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, Published, benchmark_named, score, summarise
from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError
from stereopsis.evaluation.records import record_of, summary_dict, write_results
from stereopsis.report import published_table
from stereopsis.report.published_table import read_own_results, results_table
from stereopsis.report.table_files import read_csv, write_table


def number(task, method, metric, value, protocol: str | None = "p", source="A paper, Table 1") -> Published:
    return Published(
        task=task, split="test", method=method, metric=metric, value=value, source=source, protocol=protocol
    )


def evaluation(folder: Path, scenes: list[str], answers: list[str], task="sqa3d", **settings: object) -> Path:
    """Questions whose answer is yes, the first of each scene a "what", the others a "how"."""
    predictions = []
    for n, (scene, said) in enumerate(zip(scenes, answers, strict=True)):
        kind = "what" if scene not in scenes[:n] else "how"
        asked = Annotation(id=f"q{n}", task=task, scene_id=scene, type=kind, text="?", answers=("yes",))
        predictions.append(Prediction(annotation=asked, text=said))
    samples = score(predictions)
    records = [record_of(p, s) for p, s in zip(predictions, samples, strict=True)]
    write_results(folder, records, summary_dict(summarise(samples)), settings)
    return folder


SCANNET = ["scene0011_00", "scene0011_00", "scene0015_00", "scene0015_00"]
ANSWERS = ["yes", "yes", "no", "yes"]
ODD = r"A_b & 50% {x} #1 $y ~ ^ \ <i> | * [z] 'q' \"r\""


@pytest.fixture
def ours(tmp_path):
    return evaluation(tmp_path / "ours", SCANNET, ANSWERS, name="ours", protocols={"sqa3d": "p"})


NUMBERS = [
    number("sqa3d", "LEO", "em", 50.0, protocol="q"),
    number("sqa3d", "3DRS", "em", 60.6),
    number("sqa3d", "3DRS", "em/what", 54.4),
    number("sqa3d", "V3D", "em", 58.6, protocol=None, source=""),
    number("scanqa", "3DRS", "cider", 104.8),
    number("sqa3d", "3DRS", "never_measured", 1.0),
]


def cells(table, label):
    """Column key -> cell."""
    row = next(row for row in table.rows if row.label == label)
    return {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}


def test_rows_columns_and_marks(ours):
    table = results_table(read_own_results([ours]), NUMBERS)
    assert [column.key for column in table.columns] == ["em", "em_r", "em/what"]
    assert {column.task for column in table.columns} == {"sqa3d"}
    assert [(row.label, row.kind) for row in table.rows] == [
        ("LEO", "published"),
        ("3DRS", "published"),
        ("V3D", "published"),
        ("ours", "ours"),
    ]
    assert cells(table, "3DRS")["em"].value.mean == 60.6
    assert cells(table, "3DRS")["em/what"].value.mean == 54.4
    assert cells(table, "3DRS")["em"].marks == ()
    assert cells(table, "LEO")["em/what"] is None
    assert table.footnotes[cells(table, "LEO")["em"].marks[0]] == "SQA3D: measured under protocol 'q', not 'p'."
    assert "not stated" in table.footnotes[cells(table, "V3D")["em"].marks[0]]
    assert {mark[0] for row in table.rows[:3] for cell in row.cells if cell for mark in cell.marks} == {"†"}


def test_our_cells_have_intervals_and_say_that_they_are_a_part(ours):
    """Scene means 1 and 1/2: 75 points, every draw of two scenes lies between 50 and 100."""
    table = results_table(read_own_results([ours]), NUMBERS)
    value = cells(table, "ours")["em"].value
    assert (value.mean, value.low, value.high) == (75.0, 50.0, 100.0)
    assert cells(table, "ours")["em/what"].value.mean == 50.0
    (mark,) = cells(table, "ours")["em"].marks
    assert mark.startswith("‡")
    assert table.footnotes[mark] == "SQA3D: 4 samples; the split that papers report has 3519."


def test_a_whole_split_carries_no_mark(ours, monkeypatch):
    small = dataclasses.replace(benchmark_named("sqa3d"), splits={"test": 4})
    monkeypatch.setattr(published_table, "benchmark_named", lambda task: small)
    assert cells(results_table(read_own_results([ours]), NUMBERS), "ours")["em"].marks == ()


def test_rooms_never_stand_beside_published_numbers(tmp_path):
    rooms = evaluation(tmp_path / "rooms", ["room-00000001", "room-00000002"], ["yes", "no"])
    table = results_table(read_own_results([rooms]), NUMBERS)
    assert [row.kind for row in table.rows] == ["ours"]
    assert not any(source for row in table.rows for source in row.sources)
    assert any("SQA3D on procedural rooms" in remark and "not set beside" in remark for remark in table.remarks)
    other = evaluation(tmp_path / "mine", ["kitchen"], ["yes"])
    assert any("on other scenes" in remark for remark in results_table(read_own_results([other]), NUMBERS).remarks)


def test_rooms_and_scannet_do_not_mix(tmp_path, ours):
    mixed = evaluation(tmp_path / "mixed", ["room-00000001", "scene0011_00"], ["yes", "no"])
    rooms = evaluation(tmp_path / "rooms", ["room-00000001"], ["yes"])
    with pytest.raises(RunFolderError, match="ScanNet: ours; procedural rooms: rooms"):
        results_table(read_own_results([ours, rooms]), NUMBERS)
    assert [row.kind for row in results_table(read_own_results([mixed]), NUMBERS).rows] == ["ours"]


def test_our_own_rows_under_another_protocol_are_marked(tmp_path, ours):
    second = evaluation(tmp_path / "second", SCANNET, ANSWERS, protocols={"sqa3d": "q"})
    silent = evaluation(tmp_path / "silent", SCANNET, ANSWERS)
    table = results_table(read_own_results([ours, second, silent]), NUMBERS, default_protocols={"sqa3d": "p"})
    assert [mark[0] for mark in cells(table, "second")["em"].marks] == ["†", "‡"]
    assert [mark[0] for mark in cells(table, "silent")["em"].marks] == ["‡"]
    assert cells(table, "second")["em"].marks[0] == cells(table, "LEO")["em"].marks[0]


def test_unstated_against_unstated_is_marked(tmp_path):
    silent = evaluation(tmp_path / "silent", SCANNET, ANSWERS)
    table = results_table(read_own_results([silent]), [number("sqa3d", "V3D", "em", 58.6, protocol=None)])
    assert cells(table, "V3D")["em"].marks == ("†1",)


def test_a_method_under_two_protocols_gets_two_rows_and_no_number_twice(ours):
    numbers = [number("sqa3d", "X", "em", 1.0), number("sqa3d", "X", "em", 2.0, protocol="q")]
    table = results_table(read_own_results([ours]), numbers)
    assert [row.label for row in table.rows] == ["X", "X (q)", "ours"]
    with pytest.raises(RunFolderError, match=r"X \(q\) is listed twice"):
        results_table(read_own_results([ours]), [*numbers, numbers[1]])


def test_results_of_one_name_are_told_apart(tmp_path, ours):
    shutil.copytree(ours, tmp_path / "copy")
    assert [each.label for each in read_own_results([ours, tmp_path / "copy"])] == ["ours (1)", "ours (2)"]


def test_runs_and_comparisons_can_be_named(tmp_path, ours):
    run = tmp_path / "run"
    shutil.copytree(ours, run / "evaluation")
    (run / "recipe.yaml").write_text("name: mine\n")
    assert [each.label for each in read_own_results([run])] == ["mine"]
    (tmp_path / "comparison.json").write_text(json.dumps({"arms": [{"name": "a", "label": "arm", "folder": "run"}]}))
    assert [each.label for each in read_own_results([tmp_path])] == ["arm"]


def test_folders_without_an_evaluation_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match="holds no finished evaluation"):
        read_own_results([tmp_path])


# files


@pytest.fixture
def odd_table(ours):
    numbers = [
        number("sqa3d", ODD, "em", 50.05, protocol=ODD, source=f"{ODD} 1"),
        number("sqa3d", "*[1]", "em/what", 1 / 3, source="Smith & Co, 2025"),
    ]
    return results_table(read_own_results([ours]), numbers)


def test_csv_loads_back_exactly(odd_table, tmp_path):
    found = read_csv(write_table(odd_table, tmp_path / "deep" / "t.csv"))
    expected = {
        (row.label, column.task, column.key): cell.value
        for row in odd_table.rows
        for column, cell in zip(odd_table.columns, row.cells, strict=True)
        if cell is not None
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        for part in ("mean", "low", "high"):
            one, other = getattr(found[key], part), getattr(value, part)
            assert one == other or (math.isnan(one) and math.isnan(other))
    lines = list(csv.DictReader(io.StringIO((tmp_path / "deep" / "t.csv").read_text())))
    assert {line["source"] for line in lines if line["kind"] == "published"} == {f"{ODD} 1", "Smith & Co, 2025"}
    assert ODD in next(line["notes"] for line in lines if line["label"] == ODD)


def test_another_csv_is_no_table(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunFolderError, match="is no results table"):
        read_csv(tmp_path / "t.csv")


def unescaped(text: str) -> str:
    """LaTeX as it will be read on paper."""
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
    names |= {"textbar": "|", "textquotedbl": '"', "textdagger": "†", "textdaggerdbl": "‡"}
    text = re.sub(r"\\(text\w+)\{\}", lambda found: f"\0{list(names).index(found[1])}\0", text)
    text = re.sub(r"\{([][*])\}", r"\1", text)
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    return re.sub("\0(\\d+)\0", lambda found: list(names.values())[int(found[1])], text)


def test_latex_rows_say_what_the_table_says(odd_table, tmp_path):
    text = write_table(odd_table, tmp_path / "t.tex").read_text()
    body = text.split(r"\midrule")
    rows = [line for part in body[1:] for line in part.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    first, second, mine = (re.split(r"(?<!\\)&", row.removesuffix(r"\\").strip()) for row in rows)
    assert unescaped(first[0].strip()) == ODD
    assert unescaped(second[0].strip()) == "*[1]"
    assert not re.match(r"[\[*]", second[0].strip()), "would be taken as an argument of the line's end"
    assert first[1].strip().startswith("50.0" if f"{50.05:.1f}" == "50.0" else "50.1")
    assert r"\textsuperscript{\textdagger{}1}" in first[1]
    assert (first[3].strip(), second[3].strip()) == ("--", "0.3")
    assert "75.0" in mine[1]
    assert "{[}50.0, 100.0{]}" in mine[1]
    assert unescaped(text.split(r"\end{tabular}")[1]).count(ODD) == 2  # a footnote, a source
    # braces balance once the escaped ones are gone
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(odd_table, tmp_path):
    table = write_table(odd_table, tmp_path / "t.tex").name
    (tmp_path / "doc.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,textcomp}\begin{document}\input{" + table + r"}\end{document}"
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "doc.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()[-2000:]


def test_markdown_has_one_line_per_row_and_as_many_cells(odd_table, tmp_path):
    lines = write_table(odd_table, tmp_path / "t.md").read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert [len(row) for row in rows] == [5] * 5
    assert re.sub(r"\\(.)", r"\1", rows[2][0].strip()) == ODD
    assert rows[4][0].strip() == "**ours**"
    assert "75.0‡1" in rows[4][1]
    assert "this work" in rows[4][4]
    assert any("†1" in line and line.startswith("- ") for line in lines)


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_html_is_whole_and_loads_nothing(odd_table, tmp_path):
    page = write_table(odd_table, tmp_path / "t.html").read_text()
    parsed = Cells()
    parsed.feed(page)
    assert parsed.rows[1][0] == ODD
    assert parsed.rows[3][1].startswith("75.0‡1")
    assert not {"script", "link", "img", "i"} & set(parsed.tags)
    assert "http" not in page


def test_a_form_that_is_not_there_is_named(odd_table, tmp_path):
    with pytest.raises(RunFolderError, match=r"t\.xlsx: the suffix .* \.md, \.tex, \.csv, \.html"):
        write_table(odd_table, tmp_path / "t.xlsx")
    assert not (tmp_path / "t.xlsx").exists()


def test_read_csv_keeps_missing_bounds(odd_table, tmp_path):
    value = read_csv(write_table(odd_table, tmp_path / "t.csv"))["*[1]", "sqa3d", "em/what"]
    assert isinstance(value, Interval)
    assert value.mean == 1 / 3
    assert math.isnan(value.low)
