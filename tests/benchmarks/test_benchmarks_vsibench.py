"""VSI-Bench, to the digit: relative accuracy at its borders, and what each implementation reads as an answer."""

import numpy as np
import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, prompt_of, score, target_of
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
