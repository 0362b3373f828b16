"""What is asked: canonical order, limits, and everything that would only be noticed hours later."""

import dataclasses
import json

import pytest

from stereopsis.benchmarks import benchmark_names
from stereopsis.errors import SceneError, StereopsisError
from stereopsis.evaluation.predictors import DummyPredictor
from stereopsis.evaluation.questions import attach, counts, parse_benchmarks, questions
from stereopsis.evaluation.records import read_results
from stereopsis.evaluation.resumable import run_evaluation
from stereopsis.evaluation.sharding import Processes, join, share


def _question(text: str = "?", **more) -> dict:
    return {"task": "sqa3d", "text": text, "answers": ("yes",), **more}


@pytest.fixture
def scenes(hand_scene):
    pointed = {"task": "scanrefer", "text": "the cube", "object_ids": (1,)}
    return [
        hand_scene("a", [_question(), pointed, _question()]),
        hand_scene("b", [pointed]),
        hand_scene("c", [_question(), _question()]),
    ]


def test_a_limit_takes_the_first_of_each_benchmark(scenes):
    everything = questions(scenes, benchmark_names())
    assert [[a.id for a in each.annotations] for each in everything] == [["a-0", "a-1", "a-2"], ["b-0"], ["c-0", "c-1"]]
    assert counts(everything) == {"sqa3d": 4, "scanrefer": 2}
    two = questions(scenes, benchmark_names(), 2)
    assert [[a.id for a in each.annotations] for each in two] == [["a-0", "a-1", "a-2"], ["b-0"]]
    three = questions(scenes, ("sqa3d",), 3)
    assert [[a.id for a in each.annotations] for each in three] == [["a-0", "a-2"], ["c-0"]]
    assert questions(scenes, ("scanqa",)) == []


def test_ids_that_occur_twice_are_refused(scenes):
    with pytest.raises(SceneError, match="scenes occur more than once: a"):
        questions([*scenes, scenes[0]], benchmark_names())
    same = scenes[2].replace(
        annotations=tuple(dataclasses.replace(a, id="a-0") for a in scenes[2].annotations[:1]),
    )
    with pytest.raises(StereopsisError, match="1 question ids occur more than once: sqa3d 'a-0'"):
        questions([scenes[0], same], benchmark_names())
    other_task = same.replace(annotations=tuple(dataclasses.replace(a, task="scanqa") for a in same.annotations))
    assert len(questions([scenes[0], other_task], benchmark_names())) == 2


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (_question(object_ids=(9,)), "sqa3d 's-0' speaks of object 9, which scene 's' lacks"),
        (_question(answers=()), "sqa3d 's-0' has no answer"),
        (_question(answers=("  ",)), "has no answer"),
        ({"task": "scanrefer", "text": "x", "object_ids": (1, 2)}, "needs exactly one object, it has 2"),
        ({"task": "scan2cap", "answers": ("a cube",)}, "needs exactly one object, it has 0"),
        ({"task": "multi3drefer", "text": "x", "object_ids": (1, 4)}, "speaks of object 4"),
    ],
)
def test_questions_that_cannot_be_scored_are_told_before_the_work(hand_scene, record, words):
    with pytest.raises(StereopsisError, match="1 questions cannot be evaluated") as told:
        questions([hand_scene("s", [record, _question()])], benchmark_names())
    assert words in str(told.value)


def test_annotations_from_elsewhere_find_their_scenes_or_name_the_missing(scenes):
    records = [dataclasses.replace(a, id=f"new-{a.id}") for scene in scenes[1:] for a in scene.annotations]
    attached = attach(scenes, records)
    assert [(s.id, [a.id for a in s.annotations]) for s in attached] == [
        ("b", ["new-b-0"]),
        ("c", ["new-c-0", "new-c-1"]),
    ]
    with pytest.raises(SceneError, match="1 scenes that 2 annotations speak of are missing: c; prepare them"):
        attach(scenes[:2], records)


def test_benchmarks_are_named_by_people():
    assert parse_benchmarks("ScanRefer, sqa3d,sqa3d") == ("sqa3d", "scanrefer")
    with pytest.raises(StereopsisError, match=r"unknown benchmark 'scanref' \(did you mean 'scanrefer'\?\)"):
        parse_benchmarks("sqa3d,scanref")
    with pytest.raises(StereopsisError, match="no benchmark is named"):
        parse_benchmarks(" ,")


def test_work_is_shared_evenly_and_nothing_twice():
    weights = [67, 3, 40, 12, 12, 90, 1, 55]
    for count in (1, 2, 3, 20):
        shares = share(weights, count)
        assert sorted(i for items in shares for i in items) == list(range(len(weights)))
        assert all(items == sorted(items) for items in shares)
        loads = [sum(weights[i] for i in items) for items in shares]
        # the classical bound of "largest first": 4/3 of the best, which is at least the mean and the largest
        assert max(loads) <= 4 / 3 * max(sum(weights) / count, max(weights))
    assert share([], 2) == [[], []]


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() == Processes()
    assert join().main
    join().wait()


def test_questions_whose_answers_the_authors_keep_are_asked_and_sent(hand_scene, tmp_path):
    """Beside scored ones of another benchmark: records without scores, and the file that the server takes."""
    scene = hand_scene(
        "s",
        [
            {"task": "scanqa", "text": "How many cubes?", "id": "test-0"},
            {"task": "scanqa", "text": "Is there a cube?", "id": "test-1"},
            {"task": "sqa3d", "text": "Is there a cube?", "situation": "I stand.", "answers": ("yes",)},
        ],
    )
    tasks = run_evaluation(DummyPredictor(), questions([scene], ("scanqa", "sqa3d")), tmp_path / "both")
    assert list(tasks) == ["sqa3d"]
    sent = json.loads((tmp_path / "both" / "submission_scanqa.json").read_text())
    assert [(each["question_id"], each["answer_top10"][0]) for each in sent] == [("test-0", "two"), ("test-1", "yes")]
    records, _ = read_results(tmp_path / "both")
    assert [bool(record["scores"]) for record in records] == [False, False, True]
    alone = run_evaluation(DummyPredictor(), questions([scene], ("scanqa",)), tmp_path / "alone")
    assert alone == {}
    mixed = hand_scene("s", [{"task": "scanqa", "text": "t", "id": "x"}, {"task": "scanqa", "answers": ("a",)}])
    with pytest.raises(StereopsisError, match="1 questions cannot be evaluated: scanqa 'x' has no answer"):
        questions([mixed], ("scanqa",))
