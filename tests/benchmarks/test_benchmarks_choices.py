"""Benchmarks of options about pictures: what counts as a letter under each protocol, their files, and chance."""

import json

import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, benchmark_named, prompt_of, read_annotations, score, summarise
from stereopsis.benchmarks.mindcube.metric import letter_of as mindcube_letter
from stereopsis.benchmarks.mmsi.metric import letter_of as mmsi_letter
from stereopsis.benchmarks.scoring.choices import chances
from stereopsis.benchmarks.viewspatial.metric import letter_of as viewspatial_letter
from stereopsis.errors import StereopsisError

TASKS = ("mmsi", "viewspatial", "mindcube")


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("``B``", "B"),
        ("`B`", "B"),
        ("{C}", "C"),
        ("(b)", "B"),
        ("A chair", None),
        ("A chair, B", "B"),
        ("The answer is D.", "D"),
        ("none", None),
        ("", None),
        ("``the left: `C` ``", None),
        ("``{D} or A``", "D"),
        ("G", None),
        ("I think that A\nis right", None),
    ],
)
def test_mmsi_letters(said, letter):
    assert mmsi_letter(said) == letter


@pytest.mark.parametrize(
    ("said", "letter"),
    [("B. left", "B"), ("b", "B"), ("a, so B", "A"), ("left", None), ("E", None), ("(D)", "D")],
)
def test_viewspatial_letters(said, letter):
    assert viewspatial_letter(said) == letter


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B. left, not C. right", "C"),
        ("<Answer>The answer is D</Answer>", "D"),
        ("<Answer>My answer is A, the answer is B</Answer>", "A"),
        ("<Answer>B or C", "C"),
        ("Answer: A", "A"),
        ("B\nso it is", "B"),
        ('it is "D" here', "D"),
        ("so the answer is E", "E"),
        ("I choose\nC", "C"),
        ("A, or rather\nthe B one", "B"),
        ("b", None),
        ("", None),
        ("Answer: A. left\nB", "A"),
    ],
)
def test_mindcube_letters(said, letter):
    assert mindcube_letter(said) == letter


def test_viewspatial_looks_at_the_last_line_alone():
    asked = Annotation(id="0", task="viewspatial", scene_id="0", type="t", text="q", answers=("B. left",))
    for said, worth in (("A\nB", 1.0), ("B\nA", 0.0), ("B\n", 0.0)):
        assert score([Prediction(annotation=asked, text=said)])[0].scores["acc"] == worth


ROWS = {
    "mmsi": {
        "id": 3,
        "question_type": "Positional Relationship (Cam.-Obj.)",
        "question": "Where is it? Options: A: left, B: right, C: here, D: there ",
        "answer": "B",
    },
    "viewspatial": {
        "question_type": "Camera perspective - Relative Direction",
        "question": "Where is it?",
        "choices": "A. left\nB. right\nC. back",
        "answer": "B. right",
    },
    "mindcube": {
        "id": "aroundnew_q_1",
        "question": "What is left? A. Bed B. Door",
        "input_prompt": "<image>\nWhat is left? A. Bed B. Door",
        "gt_answer": "B",
    },
}
PROMPTS = {
    "mmsi": "Where is it? Options: A: left, B: right, C: here, D: there\n"
    "Answer with the option's letter from the given choices directly. Enclose the option's letter within ``.",
    "viewspatial": "Question: Where is it?\nChoices: A. left\nB. right\nC. back\n"
    "Reply only to the corresponding option.\nAnswer:",
    "mindcube": "<image>\nWhat is left? A. Bed B. Door",
}
TYPES = {
    "mmsi": "Positional Relationship (Cam.–Obj.)",
    "viewspatial": "Camera perspective - Relative Direction",
    "mindcube": "around",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_published_rows_in_every_form(tmp_path, task, form):
    path = tmp_path / f"test.{form}"
    row = ROWS[task]
    if form == "parquet":
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist([{**row, "images": [b"picture"]}]), path)
    else:
        path.write_text(json.dumps([row]) if form == "json" else json.dumps(row) + "\n")
    (asked,) = read_annotations(task, path)
    assert prompt_of(asked) == PROMPTS[task]
    assert asked.type == TYPES[task]
    assert len(asked.options) == {"mmsi": 4, "viewspatial": 3, "mindcube": 2}[task]
    samples = score([Prediction(annotation=asked, text="B.")])
    assert summarise(samples)[task].overall["acc"].mean == 100.0
    chance = benchmark_named(task).chance(Prediction(annotation=asked))
    assert chance == {"acc": pytest.approx({"mmsi": 1 / 4, "viewspatial": 1 / 3, "mindcube": 1 / 2}[task])}


@pytest.mark.parametrize("task", TASKS)
def test_rows_without_a_field_are_refused(tmp_path, task):
    path = tmp_path / "test.jsonl"
    row = {key: value for key, value in ROWS[task].items() if "answer" not in key}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(StereopsisError, match="answer"):
        read_annotations(task, path)
    path.write_text("{\n")
    with pytest.raises(StereopsisError, match="is damaged or of another form"):
        read_annotations(task, path)


def test_chance_by_type_is_the_mean_of_one_in_the_options():
    """By hand: (1/4 + 1/2) / 2 = 37.5; a type that also asks for numbers has none."""
    plain = {"task": "vsibench", "scene_id": "s", "text": "q", "answers": ("A",)}
    asked = [
        Annotation(id="0", type="a", options=("A", "B", "C", "D"), **plain),
        Annotation(id="1", type="a", options=("A", "B"), **plain),
        Annotation(id="2", type="b", options=("A", "B"), **plain),
        Annotation(id="3", type="b", **plain),
    ]
    chance = benchmark_named("vsibench").chance
    assert chances([Prediction(annotation=each) for each in asked], chance) == {"a": pytest.approx(37.5)}
