"""The page as a whole: self-contained, escaped, atomic, and complete."""

import html.parser
import json
import re
import shutil
import sys

import pytest

from stereopsis.errors import MissingExtraError, RunFolderError, SceneError
from stereopsis.report import write_report
from stereopsis.report.page import bounds, duration, number, signed
from stereopsis.report.read import read_subject
from stereopsis.report.tables import main_table
from stereopsis.scenes.stored import write_scene

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "link", "img", "br", "line", "circle", "path"}


class Page(html.parser.HTMLParser):
    """Collects what a browser would see; complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def written(comparison, tmp_path_factory):
    return write_report(comparison, tmp_path_factory.mktemp("page") / "deep" / "report.html")


@pytest.fixture(scope="module")
def source(written):
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source):
    return parsed(source)


def copied(comparison, tmp_path):
    return shutil.copytree(comparison, tmp_path / "copy")


def test_every_section_is_there(page):
    sections = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert sections == [
        "short", "arms", "results", "types", "losses", "above", "hidden", "questions", "grounding", "reading",
    ]  # fmt: skip
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in sections]


def test_nothing_is_loaded_from_outside(page, source):
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]}>"
    styles = "".join(re.findall(r"<style>(.*?)</style>", source, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def test_size_and_one_copy_of_plotly(written, source):
    assert written.stat().st_size < 8_000_000
    assert source.count("plotly.js v") == 1


def test_the_table_shows_the_values(comparison, page):
    table = main_table(read_subject(comparison))
    for row in table.rows:
        assert row.label in page.text
        for cell in row.cells:
            if cell.value is not None:
                assert number(cell.value.mean) in page.text


def test_header(page):
    for words in ("29 November 2026, 14:03 UTC", "2 CPU threads, no GPU", "14 min 04 s", "torch 2.13.0"):
        assert words in page.text
    assert "stereopsis demo --output runs/demo" in page.text
    assert "One training seed for each arm (0)" in page.text


def test_colours_follow_the_system(source):
    assert "@media (prefers-color-scheme: dark)" in source
    assert "color-scheme: light dark" in source


def test_pictures_have_words_for_those_who_do_not_see_them(page):
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) > 30
    assert all(attributes.get("alt") for attributes in pictures)


def test_the_same_folder_gives_the_same_bytes(comparison, written, tmp_path):
    again = write_report(comparison, tmp_path / "again.html")
    assert again.read_bytes() == written.read_bytes()


def test_data_is_escaped_everywhere(comparison, tmp_path):
    folder = copied(comparison, tmp_path)
    content = json.loads((folder / "comparison.json").read_text())
    content["title"] = f"title {EVIL}"
    for arm in content["arms"]:
        arm["label"], arm["note"] = f"label {arm['name']} {EVIL}", f"note {EVIL}"
    (folder / "comparison.json").write_text(json.dumps(content))
    for arm in ("blind", "base", "full"):
        file = folder / "arms" / arm / "evaluation" / "records.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in records:
            record.update(prediction=f"said {EVIL}", text=f"asked {EVIL}", answers=[f"true {EVIL}"])
            record["situation"] = f"stood {EVIL}"
        file.write_text("\n".join(json.dumps(record) for record in records))
        environment = json.loads((folder / "arms" / arm / "environment.json").read_text())
        environment.update(command=f"run {EVIL}", machine=f"machine {EVIL}")
        (folder / "arms" / arm / "environment.json").write_text(json.dumps(environment))
        with (folder / "arms" / arm / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": 1, f"loss/{EVIL}": 1.0}) + "\n")
    source = write_report(folder).read_text(encoding="utf-8")
    assert EVIL not in source
    page = parsed(source)
    # Two for plotly and the figures, and the figures' data: nothing that came out of the folder.
    scripts = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert scripts.count("application/json") == 3
    assert len(scripts) == 5
    for words in ("title", "label base", "note", "said", "asked", "true", "stood", "run", "machine"):
        assert f"{words} {EVIL}" in page.text


def test_vision_only_run(run):
    (run / "evaluation").rename(run.parent / "gone")
    source = write_report(run).read_text(encoding="utf-8")
    page = parsed(source)
    sections = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert sections == ["short", "arms", "losses", "above", "hidden", "reading"]
    assert "fell by" in page.text
    assert "20.0 dB against 14.0 dB of the best trivial guess, the nearest view" in page.text
    assert "plotly" not in source
    assert len(source) < 1_000_000


def test_bare_run(run):
    for name in ("evaluation", "pictures", "environment.json", "metrics.jsonl"):
        (run / name).rename(run.parent / f"gone-{name}")
    page = parsed(write_report(run).read_text(encoding="utf-8"))
    assert [a.get("id") for tag, a in page.tags if tag == "section"] == ["arms", "reading"]
    assert "not recorded" in page.text


def test_a_run_takes_scenes_by_hand(run, comparison):
    without = write_report(run, run / "a.html").read_text(encoding="utf-8")
    with_scenes = write_report(run, run / "b.html", scenes=comparison / "scenes").read_text(encoding="utf-8")
    assert 'id="grounding"' not in without
    assert 'id="questions"' in without
    assert 'id="grounding"' in with_scenes


def test_scenes_of_another_evaluation_are_refused(run, rooms, tmp_path):
    write_scene(rooms[1], tmp_path / "others" / rooms[1].id)
    with pytest.raises(RunFolderError, match=r"none of the 1 evaluated scenes \(such as 'room-00000000'\)"):
        write_report(run, scenes=tmp_path / "others")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="no prepared scenes"):
        write_report(run, scenes=tmp_path / "empty")


def test_default_place_and_replacement(run):
    (run / "evaluation").rename(run.parent / "gone")
    (run / "report.html").write_text("old")
    assert write_report(run) == run / "report.html"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert not list(run.glob(".*partial"))


def test_a_failure_leaves_the_old_report(run, monkeypatch):
    (run / "report.html").write_text("old")
    (run / "evaluation").rename(run.parent / "gone")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(RunFolderError, match="disk full"):
        write_report(run)
    assert (run / "report.html").read_text() == "old"
    assert not list(run.glob(".*partial"))


@pytest.mark.parametrize("kind", ["view-003.png", "view-003.depth.png"])
def test_damaged_scene_is_an_error(comparison, tmp_path, kind):
    folder = copied(comparison, tmp_path)
    frame = folder / "scenes" / "room-00000000" / "frames" / kind
    frame.write_bytes(frame.read_bytes()[:100])
    with pytest.raises(SceneError, match=re.escape(frame.name)):
        write_report(folder)


@pytest.mark.parametrize(("package", "needed"), [("jinja2", True), ("plotly.offline", True)])
def test_missing_extras_are_named(comparison, tmp_path, monkeypatch, package, needed):
    monkeypatch.setitem(sys.modules, package, None)
    name = package.partition(".")[0]
    with pytest.raises(MissingExtraError, match=rf"'{name}'.*pip install 'stereopsis\[report\]'"):
        write_report(comparison, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_without_3d_figures_plotly_is_not_needed(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert write_report(run).is_file()


def test_numbers_for_people():
    from stereopsis.benchmarks.scoring.statistics import Interval

    assert [number(v) for v in (1.25, -3.0, -0.01, float("nan"), float("inf"), None)] == [
        "1.2", "−3.0", "0.0", "–", "∞", "–",
    ]  # fmt: skip
    assert [signed(v) for v in (1.0, 0.0, -1.0)] == ["+1.0", "0.0", "−1.0"]
    assert [duration(s) for s in (3.4, 60.0, 844.2, 7325.0)] == ["3 s", "1 min 00 s", "14 min 04 s", "2 h 02 min"]
    assert bounds(Interval(mean=1.0, low=float("nan"), high=float("nan"))) == ""
    assert bounds(Interval(mean=1.0, low=0.5, high=2.0)).replace("\u2060", "").split() == ["0.5", "–", "2.0"]


def test_a_report_made_again_loses_nothing(run, rooms, tmp_path):
    """What `evaluate` knew of the scenes, `report` knows; where they are gone, it says so and keeps the page."""
    scenes = tmp_path / "scenes"
    for room in rooms[:1]:
        room.save(scenes / room.id)
    first = write_report(run, scenes=scenes).read_text()
    (run / "evaluation" / "scenes.json").write_text(json.dumps({"folder": str(scenes)}))
    assert write_report(run).read_text() == first
    moved = scenes.rename(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="which is gone"):
        write_report(run)
    assert (run / "report.html").read_text() == first
    assert len(write_report(run, tmp_path / "bare.html").read_text()) < len(first)
    assert write_report(run, scenes=moved).read_text() == first
    (run / "report.html").unlink()
    assert write_report(run).is_file()  # there is none to lose
