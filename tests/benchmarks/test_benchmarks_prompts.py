import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import benchmark_named, benchmark_names, prompt_of, target_of
from stereopsis.errors import StereopsisError


def annotation(task, **fields):
    return Annotation(**{"id": "7", "task": task, "scene_id": "s", "type": "t", **fields})


def test_every_prompt_is_worded_as_the_published_systems_word_it():
    asked = annotation("sqa3d", situation="I face the door.", text="What is behind me?", answers=("a sofa", "couch"))
    assert prompt_of(asked) == (
        "I face the door. What is behind me? Answer the question using a single word or phrase."
    )
    assert target_of(asked) == "a sofa"
    assert prompt_of(annotation("scanqa", text="How many chairs?")) == "How many chairs? Answer the question simply."
    assert prompt_of(annotation("scan2cap", object_ids=(3,))) == (
        "Given an object located at <coord> , describe the object in detail."
    )
    assert prompt_of(annotation("scanrefer", text="the red chair")) == (
        "Identify the object according to the following description.\nthe red chair"
    )
    assert prompt_of(annotation("multi3drefer", text="all chairs")) == (
        "Identify the object according to the following description.\nall chairs\n"
        "There may be no corresponding object, or there may be one or more objects."
    )
    assert target_of(annotation("scanrefer", text="x")) == target_of(annotation("multi3drefer", text="x")) == "<ground>"


def test_a_question_without_a_situation_starts_with_the_question():
    assert prompt_of(annotation("sqa3d", text="Is it dark?")).startswith("Is it dark? Answer")


def test_every_task_has_prompt_target_and_metrics():
    for task in benchmark_names():
        record = annotation(task, text="words", answers=("réponse 椅子",))
        assert prompt_of(record)
        assert target_of(record) in ("réponse 椅子", "<ground>")
        assert benchmark_named(task).metrics


@pytest.mark.parametrize("task", ["sqa3d", "scanqa", "scanrefer", "multi3drefer"])
def test_a_missing_question_or_description_is_named(task):
    with pytest.raises(StereopsisError, match=f"{task} '7' has no (question|description)"):
        prompt_of(annotation(task, text="  "))


@pytest.mark.parametrize("answers", [(), ("",), ("  ", "late")])
@pytest.mark.parametrize("task", ["sqa3d", "scanqa", "scan2cap"])
def test_a_missing_answer_is_named(task, answers):
    with pytest.raises(StereopsisError, match=f"{task} '7' has no answer to train on"):
        target_of(annotation(task, text="words", answers=answers))
