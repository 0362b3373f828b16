"""VSI-Bench, to the digit: relative accuracy at its borders, and what each implementation reads as an answer."""

import dataclasses
import json

import numpy as np
import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, prompt_of, read_annotations, score, summarise, target_of
from stereopsis.benchmarks.vsibench.extraction import last_number, letter_in
from stereopsis.benchmarks.vsibench.metric import bare_number, first_number, first_word, mean_relative_accuracy
from stereopsis.errors import StereopsisError

# Computed by hand from the definition in double precision; the last column is what "less than" would give.
BORDERS = [
    ((4, 5), 0.6, 0.6),
    ((3, 5), 0.3, 0.2),
    ((7.5, 5), 0.1, 0.0),
    ((9, 10), 0.9, 0.9),
    ((1.05, 1), 1.0, 0.9),
    ((0.95, 1), 1.0, 0.9),
    ((19, 20), 1.0, 1.0),
    ((2, 4), 0.1, 0.0),
    ((1, 2), 0.1, 0.0),
    ((6, 5), 0.6, 0.6),
    ((11, 10), 0.9, 0.9),
    ((8, 10), 0.6, 0.6),
    ((0, 5), 0.0, 0.0),
    ((5, 5), 1.0, 1.0),
]


@pytest.mark.parametrize(("pair", "at_most", "less"), BORDERS)
def test_relative_accuracy_at_its_borders(pair, at_most, less):
    said, truth = map(float, pair)
    assert mean_relative_accuracy(said, truth) == pytest.approx(at_most, abs=1e-12)
    strict = (abs(said - truth) / truth < 1 - np.linspace(0.5, 0.95, 10)).mean()
    assert strict == pytest.approx(less, abs=1e-12)


@pytest.mark.parametrize("said", [float("nan"), float("inf"), -float("inf")])
def test_no_number_is_worth_nothing(said):
    assert mean_relative_accuracy(said, 3.0) == 0.0


def choice(letter: str = "A") -> Annotation:
    options = ("A. chair", "B. table", "C. lamp", "D. bed")
    return Annotation(
        id="1",
        task="vsibench",
        scene_id="s",
        type="object_rel_distance",
        text="Which is closest to the sofa?",
        options=options,
        answers=(letter,),
    )


def number(answer: str = "3") -> Annotation:
    return Annotation(
        id="2", task="vsibench", scene_id="s", type="object_counting", text="How many chairs?", answers=(answer,)
    )


def worth(annotation: Annotation, text: str, protocol: str = "original") -> float:
    [sample] = score([Prediction(annotation=annotation, text=text)], protocols={"vsibench": protocol})
    assert sample.protocol == protocol
    return sample.scores["score"]


@pytest.mark.parametrize("protocol", ["original", "lmms_eval"])
@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("A", 1),
        ("a", 1),
        ("A.", 1),
        ("A...", 1),
        ("A. chair", 1),
        ("A\n", 1),
        (" A", 0),
        ("A\nchair", 0),
        ("(A)", 0),
        ("A)", 0),
        ("B", 0),
        ("", 0),
        ("The answer is A", 0),
    ],
)
def test_choices_are_read_by_their_first_word(protocol, text, right):
    assert worth(choice(), text, protocol) == right


@pytest.mark.parametrize(
    ("text", "original", "lmms_eval"),
    [
        ("3", 3, 3),
        ("3.", 3, 3),
        ("3.0", 3, 3),
        ("3 chairs", 3, 3),
        (" 3", None, 3),
        ("About 3", None, 3),
        ("three", None, 3),
        ("Three boxes.", None, 3),
        ("three hundred and twenty-one", None, 321),
        ("twenty-one", None, 21),
        ("two thousand and five", None, 2005),
        ("hundred", None, 100),
        ("one apple, room 2", None, 1),
        ("room 2, one apple", None, 2),
        ("two and three", None, 5),
        ("two or three", None, 2),
        ("-2.5", -2.5, -2.5),
        ("-2.5m", None, -2.5),
        ("1,234", None, 1),
        ("1e1", 10, 1),
        (".5", 0.5, 5),
        ("", None, None),
        ("no idea", None, None),
        ("nineteen", None, 19),
        ("ninety", None, 90),
    ],
)
def test_numbers_are_read_as_each_implementation_does(text, original, lmms_eval):
    assert bare_number(text) == original
    assert first_number(text) == lmms_eval


def test_numbers_are_worth_their_relative_accuracy():
    assert worth(number("5"), "4") == pytest.approx(0.6)
    assert worth(number("5"), "About 4") == 0.0
    assert worth(number("5"), "About 4", "lmms_eval") == pytest.approx(0.6)
    assert worth(number("5"), "nan") == 0.0
    assert first_word("3. ") == "3"


@pytest.mark.parametrize("answer", ["0", "A"])
def test_an_answer_that_is_no_number_is_an_error_of_the_data(answer):
    with pytest.raises(StereopsisError, match="expected a number other than 0"):
        worth(number(answer), "3")


def test_words():
    assert prompt_of(choice()) == (
        "These are frames of a video.\nWhich is closest to the sofa?\nOptions:\nA. chair\nB. table\nC. lamp\nD. bed\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert prompt_of(number()) == (
        "These are frames of a video.\nHow many chairs?\nPlease answer the question using a single word or phrase."
    )
    assert (target_of(choice("B")), target_of(number("7"))) == ("B", "7")


def vlmevalkit(annotation: Annotation, text: str) -> float:
    return worth(annotation, text, "vlmevalkit")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        (" A", "A"),
        ("(A)", "A"),
        ("a", "A"),
        ("**B**", "B"),
        ("B. the table", "B"),
        ("b) the table", "B"),
        ("The answer is C", "C"),
        ("the answer is c", "C"),
        ("I think it is (C).", "C"),
        ("A or B", None),
        ("A or B\nB", "B"),
        ("C\nA or B", "C"),
        ("<answer>D. bed</answer>", "D"),
        ("<answer>bed</answer>", "B"),
        ("<think>A or B</think> C", "B"),
        ("<think>so C</think>", "C"),
        ("Option A: chair\nOption B: table\nD", "D"),
        ("Option A: chair", None),
        ("a cat", None),
        ("A cat", "A"),
        ("选 B。", "B"),
        ("chair", None),
        ("", None),
    ],
)
def test_letters_as_vlmevalkit_finds_them(text, letter):
    assert letter_in(text) == letter


@pytest.mark.parametrize(
    ("text", "number_found"),
    [
        ("3", 3),
        ("About 3 of 4", 4),
        ("three", 3),
        ("twenty-one", -1),
        ("thirty", None),
        ("1,234", 234),
        ("1e1", 10),
        (".5 m", 0.5),
        ("<answer>7 m</answer> or 8", 7),
        ("<think>5 or 6</think> 7", 7),
        ("<think>5 or 6</think> none", 6),
        ("['2', 9]", 2),
        ("[two]", None),
        ("no idea", None),
    ],
)
def test_numbers_as_vlmevalkit_finds_them(text, number_found):
    assert last_number(text) == number_found


def test_vlmevalkit_asks_in_its_own_words():
    assert prompt_of(choice(), "vlmevalkit") == (
        "These are frames of a video.\nWhich is closest to the sofa?\nA. chair\nB. table\nC. lamp\nD. bed\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert prompt_of(number(), "vlmevalkit").endswith(
        "How many chairs?\nAnswer briefly and directly in one float number."
    )
    assert vlmevalkit(choice("B"), "It is B") == 1.0
    assert vlmevalkit(choice("B"), "chair") == 0.0
    assert vlmevalkit(number("5"), "I count four") == pytest.approx(0.6)


def test_the_mean_is_over_eight_columns_and_directions_share_one():
    """By hand: directions 1, 0, 0 -> 1/3; counting 0.6 and 1.0 -> 0.8; distance 0: (1/3 + 0.8 + 0) / 3."""
    worths = [
        ("object_rel_direction_easy", "A", "A"),
        ("object_rel_direction_medium", "A", "B"),
        ("object_rel_direction_hard", "A", "B"),
        ("object_counting", "5", "4"),
        ("object_counting", "5", "5"),
        ("object_rel_distance", "A", "C"),
    ]
    predictions = []
    for n, (kind, truth, said) in enumerate(worths):
        base = number(truth) if kind == "object_counting" else choice(truth)
        annotation = dataclasses.replace(base, id=str(n), scene_id=f"s{n % 2}", type=kind)
        predictions.append(Prediction(annotation=annotation, text=said))
    [summary] = summarise(score(predictions), n=50).values()
    assert summary.overall["score"].mean == pytest.approx(100 * (1 / 3 + 0.8 + 0) / 3)
    assert summary.macro["score"].mean == summary.overall["score"].mean
    assert summary.by_type["object_rel_direction"]["score"].mean == pytest.approx(100 / 3)
    assert summary.by_type["object_rel_direction_easy"]["score"].mean == pytest.approx(100)
    assert summary.type_counts["object_rel_direction"] == 3
    assert summary.overall["score"].low <= summary.overall["score"].mean <= summary.overall["score"].high


ROWS = [
    {
        "id": 0,
        "dataset": "arkitscenes",
        "scene_name": "41069025",
        "question_type": "object_counting",
        "question": "How many tables are in this room?",
        "ground_truth": "4",
        "options": None,
        "pruned": False,
    },
    {
        "id": 1,
        "dataset": "scannet",
        "scene_name": "scene0011_00",
        "question_type": "object_rel_distance",
        "question": "Which of these is the closest to the door?",
        "ground_truth": "B",
        "options": ["A. table", "B. sofa"],
        "pruned": True,
    },
]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_published_rows_are_read(tmp_path, form):
    file = tmp_path / f"test.{form}"
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    first, second = read_annotations("vsibench", file)
    assert (first.id, first.scene_id, first.type, first.answers, first.options) == (
        "0",
        "41069025",
        "object_counting",
        ("4",),
        (),
    )
    assert (second.scene_id, second.answers, second.options) == ("scene0011_00", ("B",), ("A. table", "B. sofa"))
    assert [a.id for a in read_annotations("vsibench", file, split="debiased")] == ["0"]


def test_the_debiased_rows_of_a_folder(tmp_path):
    """The published JSON lines say nothing of pruning; a list of ids beside them does."""
    bare = [{key: value for key, value in row.items() if key != "pruned"} for row in ROWS]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    assert len(read_annotations("vsibench", tmp_path)) == 2
    with pytest.raises(StereopsisError, match="nothing tells which questions are pruned"):
        read_annotations("vsibench", tmp_path, split="debiased")
    (tmp_path / "pruned_ids.txt").write_text("1\n")
    assert [a.id for a in read_annotations("vsibench", tmp_path, split="debiased")] == ["0"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question_type": "riddle"}, "'question_type' must be one of"),
        ({"options": None, "question_type": "route_planning"}, "'options' must be"),
        ({"question": " "}, "'question' must be"),
        ({"id": 1}, "is there twice"),
    ],
)
def test_wrong_rows_are_named(tmp_path, change, said):
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (ROWS[0] | change, ROWS[1])))
    with pytest.raises(StereopsisError, match=said):
        read_annotations("vsibench", file)


def test_a_damaged_file_is_named(tmp_path):
    for name in ("test.jsonl", "test.parquet"):
        (tmp_path / name).write_text("{")
        with pytest.raises(StereopsisError, match="is damaged or of another form"):
            read_annotations("vsibench", tmp_path / name)
