"""What may be absent, what must not be damaged, and whether errors say where."""

import json
import math

import pytest

from stereopsis.errors import RunFolderError
from stereopsis.report.read import read_run, read_subject


def rewrite(file, change):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def test_comparison_as_written(comparison):
    subject = read_subject(comparison)
    assert [arm.name for arm in subject.arms] == ["blind", "base", "full", "large"]
    assert [arm.blind for arm in subject.arms] == [True, False, False, False]
    assert subject.arms[3].run is None
    assert subject.arms[3].note == "Needs a GPU."
    assert subject.seconds == 844.2
    assert subject.environment["cpu_threads"] == 2
    stated = json.loads((comparison / "comparison.json").read_text())["baselines"]
    assert subject.majority.overall["sqa3d"]["em"].mean == stated["majority"]["sqa3d"]["em"]["mean"]
    assert "by_type" not in subject.majority.overall["sqa3d"]
    some = next(iter(stated["majority"]["sqa3d"]["by_type"]))
    assert (
        subject.majority.by_type["sqa3d"][some]["em"].mean == stated["majority"]["sqa3d"]["by_type"][some]["em"]["mean"]
    )
    chance = subject.chance.overall["scanrefer"]["acc@0.25"]
    assert chance.mean == stated["chance"]["scanrefer"]["acc@0.25"]
    assert math.isnan(chance.low)


def test_run_folder_alone(run):
    subject = read_subject(run)
    assert not subject.comparison
    assert subject.title == "full"
    assert subject.seconds == 200.0
    assert len(subject.arms[0].run.metrics) == 42


@pytest.mark.parametrize("absent", ["environment.json", "metrics.jsonl", "evaluation", "pictures"])
def test_parts_that_may_be_absent(run, absent):
    (run / absent).rename(run.parent / "gone")
    found = read_run(run)
    empty = {
        "environment.json": not found.environment,
        "metrics.jsonl": found.metrics == (),
        "evaluation": found.evaluation is None,
        "pictures": found.pictures == (),
    }
    assert empty == {name: name == absent for name in empty}


def test_neither_run_nor_comparison(tmp_path):
    with pytest.raises(RunFolderError, match=r"neither a run \(recipe.yaml\) nor a comparison"):
        read_subject(tmp_path)


def test_last_log_line_cut_short_is_passed_over_but_an_inner_one_is_an_error(run):
    file = run / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"step": 401, "loss/te')
    assert len(read_run(run).metrics) == 42
    lines = whole.splitlines()
    lines[3] = lines[3][:10]
    file.write_text("\n".join(lines))
    with pytest.raises(RunFolderError, match=r"metrics.jsonl, line 4: not valid JSON"):
        read_run(run)


@pytest.mark.parametrize("gone", ["records.jsonl", "summary.json"])
def test_half_an_evaluation_is_an_error(run, gone):
    (run / "evaluation" / gone).unlink()
    with pytest.raises(RunFolderError, match=f"no {gone}"):
        read_run(run)


def test_damaged_records_name_the_line(run):
    file = run / "evaluation" / "records.jsonl"
    lines = file.read_text().splitlines()
    record = json.loads(lines[1])
    del record["task"]
    file.write_text("\n".join([lines[0], json.dumps(record), *lines[2:]]))
    with pytest.raises(RunFolderError, match=r"records.jsonl, line 2 needs the text 'task', found nothing"):
        read_run(run)


def test_boxes_and_cosines_must_agree(run):
    file = run / "evaluation" / "records.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    pointing = next(r for r in records if r["cosines"])
    pointing["cosines"].pop()
    file.write_text("\n".join(json.dumps(r) for r in records))
    with pytest.raises(RunFolderError, match=r"\d+ cosines for \d+ boxes"):
        read_run(run)


def test_absent_and_unknown_pictures(run):
    file = run / "pictures" / "pictures.json"
    entries = json.loads(file.read_text())
    (run / "pictures" / entries[0]["reconstruction"]).unlink()
    with pytest.raises(RunFolderError, match=r"pictures.json\[0\]: there is no picture .*-made.png"):
        read_run(run)
    entries[0]["kind"] = "sideways"
    file.write_text(json.dumps(entries))
    with pytest.raises(RunFolderError, match="unknown kind 'sideways', expected one of masked_view, birds_eye"):
        read_run(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(arms=[]), "one or more with different names"),
        (lambda c: c.update(arms=[{"name": "a", "folder": None}] * 2), "different names, found"),
        (lambda c: c.update(arms=[{"name": "a", "folder": "nowhere"}]), r"arms\[0\] \('a'\): there is no folder"),
        (lambda c: c.update(arms={}), "arms must be a list"),
        (lambda c: c.update(scenes="nowhere"), "there is no folder"),
        (lambda c: c.update(seconds="long"), "seconds must be a number, found 'long'"),
        (lambda c: c.update(baselines={"majority": {"sqa3d": {"em": {"mean": "x"}}}}), r"sqa3d.em.mean must be"),
        (lambda c: [c], "must be an object"),
    ],
)
def test_damaged_comparison(tmp_path, change, message):
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps({"title": "t", "arms": [{"name": "a", "folder": None}]}))
    rewrite(file, change)
    with pytest.raises(RunFolderError, match=message):
        read_subject(tmp_path)


def test_comparison_that_is_not_json(tmp_path):
    (tmp_path / "comparison.json").write_text('{"arms": [')
    with pytest.raises(RunFolderError, match=r"comparison.json is not valid JSON"):
        read_subject(tmp_path)


def test_baselines_in_the_form_of_a_summary_read_the_same(tmp_path, comparison):
    flat = json.loads((comparison / "comparison.json").read_text())
    nested = json.loads(json.dumps(flat))
    for task, record in nested["baselines"]["majority"].items():
        by_type = record.pop("by_type")
        nested["baselines"]["majority"][task] = {"overall": record, "by_type": by_type}
    for content in (flat, nested):
        content["arms"] = [{"name": "a", "folder": None}]
        content["scenes"] = None
    read = []
    for name, content in (("flat", flat), ("nested", nested)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_text(json.dumps(content))
        read.append(repr(read_subject(tmp_path / name).majority))
    assert read[0] == read[1]
