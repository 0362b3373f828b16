"""Runs evaluated, described and compared: the same answers every time, and equal conditions for every arm."""

import json
import shutil
from pathlib import Path

import pytest

from stereopsis.errors import RecipeError, RunFolderError
from stereopsis.evaluation.records import read_results
from stereopsis.experiment import Arm, baselines, compare, evaluate_run, train_and_draw
from stereopsis.training.sources import open_folder
from stereopsis.training.train_run import open_run


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiment") / "run"
    shutil.copytree(finished_run.folder, folder)
    return folder


def test_every_annotation_has_one_record_and_repetition_changes_none(run, tiny_rooms):
    scenes = evaluate_run(run, [])
    assert scenes == tiny_rooms
    first, summary = (run / "evaluation" / "records.jsonl").read_bytes(), read_results(run / "evaluation")[1]
    evaluate_run(run, [])
    assert (run / "evaluation" / "records.jsonl").read_bytes() == first
    evaluate_run(run, [], overwrite=True)
    assert (run / "evaluation" / "records.jsonl").read_bytes() == first
    again = read_results(run / "evaluation")[1]
    assert again["tasks"] == summary["tasks"]
    records = [json.loads(line) for line in first.decode().splitlines()]
    rooms = open_folder(tiny_rooms)
    assert sorted(record["id"] for record in records) == sorted(
        a.id for room in rooms for a in room.annotations if a.task in summary["tasks"]
    )
    assert len({record["id"] for record in records}) == len(records)
    assert summary["settings"]["scenes"] == 4
    assert summary["settings"]["proposals"] == "detector"
    for task, values in summary["tasks"].items():
        assert values["count"] == sum(record["task"] == task for record in records)
        assert values["scene_count"] == 4
    for text in (first.decode().splitlines()[0], (run / "evaluation" / "summary.json").read_text()):
        json.loads(text, parse_constant=pytest.fail)


def test_overrides_choose_what_is_evaluated(finished_run, tiny_rooms, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    scene = tiny_rooms / "room-00000001"
    evaluate_run(run, [f"evaluation.sources=[{{path: {scene}}}]", "evaluation.tasks=[scanrefer]"])
    records, summary = read_results(run / "evaluation")
    assert {record["task"] for record in records} == {"scanrefer"}
    assert {record["scene_id"] for record in records} == {"room-00000001"}
    assert list(summary["tasks"]) == ["scanrefer"]
    with pytest.raises(RecipeError, match=r"evaluation\.task"):
        evaluate_run(run, ["evaluation.task=[scanrefer]"])


@pytest.mark.parametrize("missing", ["recipe.yaml", "model/config.json"])
def test_an_unfinished_run_is_refused_by_what_it_lacks(finished_run, tmp_path, missing):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    (folder / missing).unlink()
    with pytest.raises(
        RunFolderError, match=rf"holds no finished run \(no {missing}\); make one with 'stereopsis train'"
    ):
        open_run(folder)
    with pytest.raises(RunFolderError, match="holds no finished run"):
        evaluate_run(folder, [])
    with pytest.raises(RunFolderError, match="holds no finished run"):
        evaluate_run(tmp_path / "nowhere", [])


def test_baselines_are_written_like_summaries(make_recipe, tiny_rooms):
    rooms = open_folder(tiny_rooms)
    found = baselines(rooms[:2], rooms[2:], make_recipe())
    assert found["majority"].keys() == {"sqa3d", "scanqa", "scan2cap"}
    assert found["chance"].keys() == {"scanrefer", "multi3drefer"}
    assert {"em", "macro", "by_type"} <= found["majority"]["sqa3d"].keys()
    assert 0 < found["chance"]["scanrefer"]["acc@0.25"] < 50
    # the majority's own answers, on the rooms that it counted: at least one answer of each type is right
    known = baselines(rooms[:1], rooms[:1], make_recipe())
    assert all(kind["em"]["mean"] > 0 for kind in known["majority"]["sqa3d"]["by_type"].values())


def test_pictures_of_a_long_capture_are_spread_over_it(make_recipe, tiny_rooms, tmp_path):
    scene = tiny_rooms / "room-00000000"
    data = {"sources": [{"path": str(scene), "text": False}], "views": 2, "selection": "random", "subsets": 2}
    recipe = make_recipe(objectives={"cross_view": {"every": 1, "ratio": 0.5}}, data=data, training__steps=1)
    train_and_draw(recipe, tmp_path / "run", pictures=2)
    records = json.loads((tmp_path / "run" / "pictures" / "pictures.json").read_text())
    # uniform pairs of four views, begun at the first and at the second: (0, 3), and (1, 4 -> 0)
    shown = [{f"view-{i:03d}" for i in pair} for pair in ((0, 3), (0, 1))]
    assert [record["view"] in views for record, views in zip(records, shown, strict=True)] == [True, True]


def test_without_reconstruction_no_pictures_are_drawn(make_recipe, tmp_path):
    train_and_draw(make_recipe("text", training__steps=1), tmp_path / "run")
    assert not (tmp_path / "run" / "pictures").exists()


def test_arms_are_compared_on_the_same_scenes(make_recipe, tiny_base, tmp_path, tiny_rooms, capsys):
    blind = {"base": str(tiny_base), "blind": True}
    arms = [
        Arm(name="blind", label="blind", recipe=make_recipe("text", "grounding", model=blind, training__steps=1)),
        Arm(name="full", label="all of it", recipe=make_recipe(training__steps=1), note="everything"),
    ]
    file = compare(arms, tmp_path / "runs", title="Two arms", pictures=1)
    record = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert record["title"] == "Two arms"
    assert [arm["name"] for arm in record["arms"]] == ["blind", "full"]
    assert record["arms"][1] == {"name": "full", "label": "all of it", "folder": "full", "note": "everything"}
    assert (file.parent / record["scenes"]).resolve() == tiny_rooms
    ids = []
    for arm in arms:
        records, summary = read_results(tmp_path / "runs" / arm.name / "evaluation")
        ids.append([each["id"] for each in records])
        assert summary["settings"]["blind"] == (arm.name == "blind")
    assert ids[0] == ids[1]
    assert (tmp_path / "runs" / "full" / "pictures" / "pictures.json").is_file()
    first, second = ((tmp_path / "runs" / arm.name / "metrics.jsonl").read_text() for arm in arms)
    assert "loss/cross_view" not in first
    assert "loss/cross_view" in second


@pytest.mark.parametrize(
    ("changes", "section"),
    [({"data": {"sources": [{"rooms": 1}]}}, "'data:'"), ({"model__positions": "none"}, "'model:'")],
)
def test_arms_that_would_need_other_packs_are_refused(make_recipe, tmp_path, changes, section):
    arms = [
        Arm(name="one", label="one", recipe=make_recipe("text")),
        Arm(name="two", label="two", recipe=make_recipe("text", **changes)),
    ]
    with pytest.raises(RecipeError, match=f"'one' and 'two' differ under {section}"):
        compare(arms, tmp_path, title="Unequal arms")
