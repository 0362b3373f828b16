"""`score`, `compare` and `report --table` as people use them, on files as others write them."""

import csv
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stereopsis import benchmarks
from stereopsis.annotations import Annotation
from stereopsis.benchmarks.files.annotation_files import AnnotationRecord
from stereopsis.benchmarks.scoring.answers import clean_answer
from stereopsis.cli import commands, score
from stereopsis.errors import StereopsisError

Run = Callable[..., str]
A, B = [0.0, 0, 0, 1, 1, 1], [5.0, 0, 0, 1, 1, 1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line; gives what it printed, or raises the error that people would read."""
    for module in (commands, score):
        monkeypatch.setattr(module.console, "_width", 200, raising=False)
    runner = CliRunner()

    def call(*arguments: object, code: int = 0) -> str:
        done = runner.invoke(commands.app, [str(each) for each in arguments])
        if isinstance(done.exception, StereopsisError):
            raise done.exception
        assert done.exit_code == code, done.output
        return " ".join(done.output.split())

    return call


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[AnnotationRecord]], None]:
    """Lets any annotation file stand for the given records."""

    def give(found: list[AnnotationRecord]) -> None:
        monkeypatch.setattr(benchmarks, "read_annotation_records", lambda task, path: tuple(found))

    return give


def question(name: str, scene: str, answer: str = "yes", kind: str = "what", task: str = "sqa3d") -> AnnotationRecord:
    asked = Annotation(id=name, task=task, scene_id=scene, type=kind, text=f"what is {name}?", answers=(answer,))
    return AnnotationRecord(annotation=asked)


QUESTIONS = [
    question(f"q{n}", scene, kind=kind)
    for n, (scene, kind) in enumerate(
        zip(["scene0011_00", "scene0011_00", "scene0015_00"] * 2, ["what", "how"] * 3, strict=True)
    )
]


def answers(folder: Path, right: int, name: str = "p.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({f"q{n}": "yes" if n < right else "no" for n in range(6)}))
    return path


def test_score_shows_and_writes_the_figures(run, records, tmp_path):
    """Right: q0 (what), q1 (how), q2 (what); wrong q3..q5: 50 points, what 2 of 3, how 1 of 3."""
    records(QUESTIONS)
    said = run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "any.json", "--json", tmp_path / "new" / "out.json")
    figures = json.loads((tmp_path / "new" / "out.json").read_text())
    assert figures["em"] == pytest.approx(50.0)
    assert figures["em/what"] == pytest.approx(200 / 3)
    assert figures["em/how"] == pytest.approx(100 / 3)
    assert all(isinstance(value, float) for value in figures.values())
    assert "p.json: sqa3d, 6 samples in 2 scenes" in said
    assert "50.00" in said
    assert "66.67" in said


def test_score_refuses_what_does_not_fit(run, records, tmp_path):
    records(QUESTIONS)
    path = tmp_path / "p.json"
    path.write_text('{"q0": "yes", "z": "no"}')
    with pytest.raises(
        StereopsisError, match=r"5 of 6 annotations have no prediction .* 1 that belong to no annotation \(z\)"
    ):
        run("score", path, "-b", "sqa3d", "-a", "x", "--json", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    said = run("score", path, "-b", "sqa3d", "-a", "x", "--missing-as-wrong")
    assert "note: 5 annotations have no prediction and score 0" in said
    assert "16.67" in said
    with pytest.raises(StereopsisError, match=r"no benchmark 'sqa' \(did you mean 'sqa3d'\?\)"):
        run("score", path, "-b", "sqa", "-a", "x")


def test_score_takes_the_protocol_and_keeps_it(run, records, tmp_path):
    """Empty answers match everything by EM-R as released, and nothing by the default."""
    records(QUESTIONS)
    path = tmp_path / "p.json"
    path.write_text(json.dumps({f"q{n}": "" for n in range(6)}))
    figures = {}
    for protocol in ("strict", "released"):
        folder = tmp_path / protocol
        said = run(
            "score", path, "-b", "sqa3d", "-a", "x", "--protocol", protocol, "-o", folder, "--json", folder / "o"
        )
        figures[protocol] = json.loads((folder / "o").read_text())["em_r"]
        assert f"protocol {protocol}" in said
        assert "note: 6 predictions are empty." in said
        settings = json.loads((folder / "summary.json").read_text())["settings"]
        assert (settings["protocols"], settings["name"]) == ({"sqa3d": protocol}, "p")
    assert figures == {"strict": 0.0, "released": 100.0}
    with pytest.raises(StereopsisError, match=r"protocol 'relaesed'.*did you mean 'released'"):
        run("score", path, "-b", "sqa3d", "-a", "x", "--protocol", "relaesed")


def test_score_scanrefer_with_boxes_from_a_file(run, records, tmp_path):
    asked = [
        dataclasses.replace(
            question(f"q{n}", f"scene000{n}_00", task="scanrefer"),
            targets=((0.0, 0.0, 0.0, 1.0, 1.0, 1.0),),
            names=(str(n),),
        )
        for n in range(2)
    ]
    records(asked)
    path, boxes = tmp_path / "p.jsonl", tmp_path / "boxes.json"
    lines = [{"sample_id": n, "scores": [0.1, 0.9 * n, 0.5], "gt_response": A} for n in range(2)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    boxes.write_text(json.dumps({f"scannet/scene000{n}_00": [B, A] for n in range(2)}))
    with pytest.raises(StereopsisError, match="--boxes"):
        run("score", path, "-b", "scanrefer", "-a", "x")
    run("score", path, "-b", "scanrefer", "-a", "x", "--boxes", boxes, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["acc@0.5"] == pytest.approx(50.0)


def test_score_then_compare_then_table(run, records, tmp_path):
    """Wins at q3 alone: +1 of 6 is 16.67 points; its scene (scene0011_00) is the only one that differs."""
    records(QUESTIONS)
    for right, name in ((4, "mine"), (3, "theirs")):
        run("score", answers(tmp_path, right), "-b", "sqa3d", "-a", "x", "-o", tmp_path / name, "--name", name)
    said = run("compare", tmp_path / "mine", tmp_path / "theirs", "--by-type", "--json", tmp_path / "diff.json")
    assert "+16.67" in said
    found = json.loads((tmp_path / "diff.json").read_text())["tasks"]["sqa3d"]
    overall = found["overall"]["em"]
    assert (overall["first"], overall["second"]) == (pytest.approx(400 / 6), pytest.approx(50.0))
    assert (overall["wins"], overall["losses"], overall["ties"]) == (1, 0, 5)
    assert overall["p_value"] == 1.0
    assert found["by_type"]["what"]["em"]["wins"] == 0
    assert found["by_type"]["how"]["em"]["wins"] == 1

    table, tex = tmp_path / "table.csv", tmp_path / "table.tex"
    said = run("report", tmp_path / "mine", tmp_path / "theirs", "--table", table, "--table", tex)
    rows = {
        row["label"]: row
        for row in csv.DictReader(table.read_text().splitlines())
        if row["kind"] == "ours" and row["metric"] == "em"
    }
    assert float(rows["mine"]["value"]) == pytest.approx(400 / 6, abs=1e-4)
    assert "6 samples; the split that papers report has 3519" in said
    assert tex.read_text().count(r"\toprule") == 1


def test_compare_refuses_other_questions_and_protocols(run, records, tmp_path):
    records(QUESTIONS)
    run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "x", "-o", tmp_path / "a")
    records(QUESTIONS[:5])
    run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "x", "-o", tmp_path / "b")
    with pytest.raises(StereopsisError, match=r"1 samples only in the first \(q5\)"):
        run("compare", tmp_path / "a", tmp_path / "b")

    run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "x", "-o", tmp_path / "d", "--protocol", "released")
    with pytest.raises(StereopsisError, match="under protocol 'released', the second under 'strict'"):
        run("compare", tmp_path / "d", tmp_path / "b")

    records([question(f"q{n}", "scene0011_00", task="scanqa") for n in range(6)])
    run("score", answers(tmp_path, 3), "-b", "scanqa", "-a", "x", "-o", tmp_path / "c")
    with pytest.raises(StereopsisError, match=r"hold different benchmarks \(scanqa, sqa3d only in one\)"):
        run("compare", tmp_path / "a", tmp_path / "c")
    with pytest.raises(StereopsisError, match="holds no scanqa; it holds sqa3d"):
        run("compare", tmp_path / "a", tmp_path / "c", "-b", "scanqa")


def test_compare_refuses_other_words_under_the_same_ids(run, records, tmp_path):
    records(QUESTIONS)
    run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "x", "-o", tmp_path / "a")
    asked = dataclasses.replace(QUESTIONS[0].annotation, text="something else?")
    records([AnnotationRecord(annotation=asked), *QUESTIONS[1:]])
    run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "x", "-o", tmp_path / "b")
    with pytest.raises(StereopsisError, match=r"1 samples ask something else in the two results \(q0\)"):
        run("compare", tmp_path / "a", tmp_path / "b")


def test_several_reports_need_a_table(run, tmp_path):
    with pytest.raises(StereopsisError, match="into one table with --table"):
        run("report", tmp_path, tmp_path)
    with pytest.raises(StereopsisError, match="the suffix says how a table is written"):
        run("report", tmp_path, "--table", tmp_path / "t.docx")


@pytest.mark.parametrize("command", ["score", "compare"])
def test_help_has_examples(run, command):
    said = run(command, "--help")
    assert f"stereopsis {command}" in said.split("Example")[1]


# the real test split of SQA3D


@pytest.fixture
def sqa3d(shared_data: Path) -> tuple[AnnotationRecord, ...]:
    """All 3 519 questions."""
    folder = shared_data / "sqa3d"
    if not folder.is_dir():
        pytest.skip("no SQA3D here")
    return benchmarks.read_annotation_records("sqa3d", folder / "v1_balanced_questions_test_scannetv2.json")


def test_real_sqa3d_oracle_scores_all_and_shuffled_answers_the_floor(run, sqa3d, shared_data, tmp_path):
    """The floor: two answers drawn from all answers agree as often as sum of squared shares, within 4 sigma."""
    truth = [record.annotation.answers[0] for record in sqa3d]
    shuffled = truth.copy()
    random.Random(0).shuffle(shuffled)
    where = shared_data / "sqa3d" / "v1_balanced_questions_test_scannetv2.json"
    figures = {}
    for name, said in (("oracle", truth), ("shuffled", shuffled)):
        path = tmp_path / f"{name}.jsonl"
        lines = (
            {
                "dataset": "sqa3d",
                "sample_id": int(record.annotation.id),
                "pred_response": text,
                "gt_response": record.annotation.answers[0],
                "question_type": record.annotation.type,
            }
            for record, text in zip(sqa3d, said, strict=True)
        )
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run("score", path, "-b", "sqa3d", "-a", where, "--json", tmp_path / "out.json", "-o", tmp_path / name)
        figures[name] = json.loads((tmp_path / "out.json").read_text())
    assert figures["oracle"]["em"] == 100.0
    assert {figures["oracle"][f"em/{kind}"] for kind in ("what", "is", "how", "can", "which", "others")} == {100.0}
    _, counts = np.unique([clean_answer(text) for text in truth], return_counts=True)
    floor = float(np.sum((counts / len(truth)) ** 2))
    assert figures["shuffled"]["em"] == pytest.approx(100 * floor, abs=400 * np.sqrt(floor * (1 - floor) / len(truth)))

    run("compare", tmp_path / "oracle", tmp_path / "shuffled", "--draws", 500, "--json", tmp_path / "diff.json")
    gap = json.loads((tmp_path / "diff.json").read_text())["tasks"]["sqa3d"]["overall"]["em"]
    assert gap["difference"] == pytest.approx(100 - figures["shuffled"]["em"])
    assert (gap["losses"], gap["p_value"]) == (0, pytest.approx(1 / 501))


def test_score_writes_what_the_benchmarks_server_takes(run, tmp_path):
    """ScanQA's test files have no answers: they are sent, not scored. Ten answers each, the last one repeated."""
    asked = [
        {"scene_id": "scene0707_00", "question_id": f"test-{n}", "question": "Where?", "object_ids": [3]}
        for n in (0, 1)
    ]
    file, path, out = tmp_path / "ScanQA_v1.0_test_w_obj.json", tmp_path / "p.json", tmp_path / "new" / "sent.json"
    file.write_text(json.dumps(asked))
    path.write_text(
        json.dumps([{"question_id": "test-1", "answer_top10": ["left", "right"]}, {"id": "test-0", "answer": "up"}])
    )
    said = run("score", path, "-b", "scanqa", "-a", file, "--submission", out)
    assert "nothing was scored" in said
    assert json.loads(out.read_text()) == [
        {"scene_id": "scene0707_00", "question_id": "test-0", "answer_top10": ["up"] * 10, "bbox": []},
        {"scene_id": "scene0707_00", "question_id": "test-1", "answer_top10": ["left"] + ["right"] * 9, "bbox": []},
    ]
    with pytest.raises(StereopsisError, match="no answer to compare with"):
        run("score", path, "-b", "scanqa", "-a", file)
    file.write_text(json.dumps([{**each, "answers": ["left"]} for each in asked]))
    said = run("score", path, "-b", "scanqa", "-a", file, "--submission", out, "--no-meteor", "--json", tmp_path / "f")
    figures = json.loads((tmp_path / "f").read_text())
    assert (figures["em"], figures["em_10"], figures["em_r"]) == (50.0, 50.0, 50.0)
    again = run("score", out, "-b", "scanqa", "-a", file, "--no-meteor")  # its own file is read back
    assert "50.00" in again


def test_a_submission_is_written_for_benchmarks_with_a_server_alone(run, records, tmp_path):
    records(QUESTIONS)
    with pytest.raises(StereopsisError, match=r"sqa3d has no server .* can be written for scanqa"):
        run("score", answers(tmp_path, 3), "-b", "sqa3d", "-a", "x", "--submission", tmp_path / "s.json")
