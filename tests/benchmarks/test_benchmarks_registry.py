"""A benchmark declares itself: here in a folder, elsewhere through an entry point; nobody else knows its name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stereopsis
from stereopsis.benchmarks import all_benchmarks, benchmark_named, benchmark_names, benchmarks_of
from stereopsis.benchmarks.registry import ENTRY_POINTS
from stereopsis.errors import StereopsisError

PACKAGE = Path(stereopsis.__file__).parent
TEXT_FILES = ("*.py", "*.jinja", "*.json", "*.yaml")

# Where a name may stand beside the benchmarks' own folders, and why.
MAY_NAME = ("scenes/rooms/language",)  # the rooms speak in the forms of these benchmarks

MODULE = """
from stereopsis.annotations import Annotation, AnnotationRecord
from stereopsis.benchmarks import Benchmark, Metric, Protocol
from stereopsis.benchmarks.files.annotation_files import entries
from stereopsis.benchmarks.records import sample_score


def read(file):
    return tuple(
        AnnotationRecord(annotation=Annotation(
            id=entry.name("id"), task="towers", scene_id=entry.text("scene"), type="height",
            text=entry.text("question"), answers=(entry.name("metres"),),
        ))
        for entry in entries(file.content, str(file.path))
    )


def score(predictions, protocol=None):
    return [
        sample_score(p, {"near": float(abs(float(p.text) - float(p.annotation.answers[0])) < 1)}, protocol="near")
        for p in predictions
    ]


BENCHMARK = Benchmark(
    name="towers",
    title="Towers",
    kind="number",
    read=read,
    prompt=lambda annotation: f"{annotation.text} In metres.",
    target=lambda annotation: annotation.answers[0],
    score=score,
    metrics=(Metric(name="near"),),
    headline="near",
    protocols=(Protocol(task="towers", name="near", differs="within a metre", default=True),),
    splits={"all": 2},
    evaluated="all",
    citation="nobody",
)
"""


@pytest.fixture
def outside(tmp_path):
    """A function that installs a package with one entry point beside this one and runs the command with it."""
    (tmp_path / "towers_package.py").write_text(MODULE)

    def run(*words: str, value: str = "towers_package:BENCHMARK") -> subprocess.CompletedProcess:
        info = tmp_path / "towers_package-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: towers-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntowers = {value}\n")
        path = (
            f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(PACKAGE.parent)!r}]; sys.argv[1:] = {list(words)!r}\n"
        )
        code = f"{path}from stereopsis.cli import main\nmain()"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    return run


def test_a_benchmark_of_another_package_is_scored_by_the_command(outside, tmp_path):
    asked = [{"id": n, "scene": f"scene{n}", "question": "How tall?", "metres": 10 * n + 5} for n in range(2)]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    (tmp_path / "said.json").write_text(json.dumps({"0": "5.4", "1": "9"}))
    figures, kept = tmp_path / "figures.json", tmp_path / "kept"
    files = [str(tmp_path / "said.json"), "-a", str(tmp_path / "asked.json"), "--json", str(figures), "-o", str(kept)]
    done = outside("score", *files, "-b", "towers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(figures.read_text())["near"] == 50.0
    record = json.loads((kept / "records.jsonl").read_text().splitlines()[0])
    assert record["prompt"] == "How tall? In metres."
    table = outside("report", str(kept), "--table", str(tmp_path / "table.csv"))
    assert table.returncode == 0, table.stdout + table.stderr
    assert "Towers" in (tmp_path / "table.csv").read_text()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("towers_package:ABSENT", "cannot be loaded (AttributeError"),
        ("no_such_package:BENCHMARK", "cannot be loaded (ModuleNotFoundError"),
        ("towers_package:score", "names a function; expected a"),
        ("stereopsis.benchmarks.sqa3d:BENCHMARK", "'sqa3d' is declared twice"),
    ],
)
def test_an_entry_point_that_is_no_benchmark_is_named(outside, tmp_path, value, message):
    (tmp_path / "x.json").write_text("{}")
    done = outside("score", str(tmp_path / "x.json"), "-a", str(tmp_path / "x.json"), "-b", "towers", value=value)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert message in said
    assert "Traceback" not in said


def test_every_folder_with_a_card_declares_a_benchmark():
    folders = {path.parent.name for path in (PACKAGE / "benchmarks").glob("*/card.md")}
    assert folders == set(benchmark_names())
    assert benchmark_names()[:5] == ("sqa3d", "scanqa", "scan2cap", "scanrefer", "multi3drefer")
    assert [each.name for each in benchmarks_of("pointing")] == ["scanrefer", "multi3drefer"]


def test_what_a_benchmark_declares_is_whole():
    for benchmark in all_benchmarks().values():
        assert benchmark.citation
        assert benchmark.splits[benchmark.evaluated] > 0
        assert benchmark.metric(benchmark.headline).heading
        assert benchmark.points == (benchmark.chance is not None) or not benchmark.points
    with pytest.raises(StereopsisError, match="has no metric 'emm'"):
        benchmark_named("sqa3d").metric("emm")


def test_no_benchmark_is_named_outside_its_folder():
    names = {each.name for each in all_benchmarks().values()} | {each.title for each in all_benchmarks().values()}
    pattern = re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)), re.IGNORECASE)
    folders = tuple(f"benchmarks/{name}/" for name in benchmark_names())
    found = []
    for path in (path for kind in TEXT_FILES for path in PACKAGE.rglob(kind)):
        where = path.relative_to(PACKAGE).as_posix()
        if not where.startswith((*folders, *MAY_NAME, "_recipes/")) and not where.startswith("assets/"):
            found += [
                f"{where}:{number}: {line.strip()}"
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
                if pattern.search(line)
            ]
    assert not found, "let the benchmark say it (docs/extending.md):\n" + "\n".join(found)
