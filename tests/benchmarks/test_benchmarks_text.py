import contextlib
import dataclasses
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, score, summarise
from stereopsis.benchmarks.scan2cap.metric import score as score_captions
from stereopsis.benchmarks.scan2cap.metric import wrapped
from stereopsis.benchmarks.scoring.answers import clean_answer
from stereopsis.benchmarks.scoring.boxes import query_box
from stereopsis.benchmarks.scoring.text import bleu_of_counts, score_texts
from stereopsis.errors import StereopsisError

BOX = np.array([[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]])
FAR = BOX + np.array([5.0, 0, 0, 0, 0, 0])


def answered(task, text, answers, id="0", type="t", scene_id="s", **fields):
    annotation = Annotation(id=id, task=task, scene_id=scene_id, type=type, answers=tuple(answers))
    return Prediction(annotation=annotation, text=text, **fields)


def captioned(text, answers, box=BOX, id="0"):
    return answered("scan2cap", text, answers, id=id, boxes=box, targets=BOX)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Two  chairs. ", "two chairs"),
        ("2", "two"),
        ("20", "twenty"),
        ("21", "21"),
        ("23", "twenty-three"),
        ("None", "zero"),
        ("the left", "left"),
        ("The", "the"),
        ("a the chair", "chair"),
        ("an apple on a table", "apple on table"),
        ("rigth", "right"),
        ("let", "left"),
        ("outlet", "outlet"),
        ("TV", "TV"),
        ("tv stand", "TV stand"),
        ("3 oclock", "three o'clock"),
        ("3 o' clock", "three o'clock"),
        ("mat2", "mat"),
        ("backwards", "backward"),
        ("yes .", "yes "),
        ("brown & white", "brown  white"),
        ("black, white", "black, white"),
        ("3-4", "three-four"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "caf"),
        ("椅子", ""),
        ("", ""),
    ],
)
def test_sqa3d_cleaning_follows_the_published_rules(raw, clean):
    assert clean_answer(raw) == clean


@given(st.text(alphabet=st.sampled_from("abtheTV 0123.,'-:!é\t"), max_size=30))
def test_sqa3d_cleaning_ignores_case_and_leaves_no_capitals_but_tv(text):
    clean = clean_answer(text)
    assert clean == clean_answer(text.swapcase().lower())
    assert clean.replace("TV", "") == clean.replace("TV", "").lower()
    assert "." not in clean
    assert "!" not in clean


def test_sqa3d_matches_through_the_cleaning_and_not_beyond_it():
    # A line end is not cleaned away; the published evaluators get texts that are stripped when they are decoded.
    pairs = [
        ("Two.", "2", 1.0),
        (" the TV ", "tv", 1.0),
        ("TV\n", "tv", 0.0),
        ("", "yes", 0.0),
        ("left side", "left", 0.0),
    ]
    predictions = [answered("sqa3d", text, [gold], id=str(i)) for i, (text, gold, _) in enumerate(pairs)]
    assert [sample.scores["em"] for sample in score(predictions)] == [worth for _, _, worth in pairs]


def test_scanqa_em_wants_an_answer_to_the_letter():
    texts = ["brown", "brown ", "Brown", "brown.", "dark", "", "椅子"]
    predictions = [answered("scanqa", text, ["dark brown", "brown", "椅子"], id=str(i)) for i, text in enumerate(texts)]
    assert [s.scores["em"] for s in score(predictions)] == [1, 0, 0, 0, 0, 0, 1]


def test_cider_of_a_set_worked_by_hand():
    # Two samples, so every word that one of them uses has idf log 2. "chair" against "red chair": unigram
    # cosine 1/sqrt 2, length penalty exp(-1/72) (one bigram less); against "chair": 1. Mean over four orders
    # of n-grams and two references.
    values = score_texts(["chair", "red"], [["red chair", "chair"], ["blue table"]])
    assert values.cider == pytest.approx([10 * (math.exp(-1 / 72) / math.sqrt(2) + 1) / 4 / 2, 0.0])
    # The word that both samples use weighs nothing; 1-, 2- and 3-grams match, there is no 4-gram.
    values = score_texts(["the red chair", "the"], [["the red chair"], ["the blue table"]])
    assert values.cider == pytest.approx([7.5, 0.0])


def test_cider_needs_a_set_since_one_sample_has_no_rare_words():
    assert score_texts(["red chair"], [["red chair"]]).cider == pytest.approx([0.0])


def test_rouge_l_worked_by_hand():
    values = score_texts(["the red chair", "a b", "", "x"], [["the chair"], ["b a", "a c b"], ["x"], ["x"]])
    precision, recall = 2 / 3, 1.0
    first = 2.44 * precision * recall / (recall + 1.44 * precision)
    precision, recall = 1.0, 2 / 3  # each the best over the references
    second = 2.44 * precision * recall / (recall + 1.44 * precision)
    assert values.rouge_l == pytest.approx([first, second, 0.0, 1.0])


def test_bleu_worked_by_hand():
    # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1 quadruples; as long as the reference
    values = score_texts(["the red chair here", "no"], [["the red chair there"], ["yes"]])
    assert values.bleu[0] == pytest.approx([3 / 4, (3 / 4 * 2 / 3) ** 0.5, (1 / 4) ** (1 / 3), 0.0], abs=1e-3)
    short = score_texts(["the red", "no"], [["the red chair there"], ["yes"]])
    assert short.bleu[0, :2] == pytest.approx([math.exp(1 - 4 / 2)] * 2, rel=1e-6)


SENTENCES = st.lists(st.sampled_from(["the", "red", "chair", "on", "left", "椅子"]), max_size=7).map(" ".join)


@given(st.lists(st.tuples(SENTENCES, st.lists(SENTENCES.filter(bool), min_size=1, max_size=3)), min_size=1, max_size=5))
def test_bleu_from_counts_is_the_official_scorers_bleu(pairs):
    from pycocoevalcap.bleu.bleu import Bleu

    texts, accepted = [text for text, _ in pairs], [references for _, references in pairs]
    values = score_texts(texts, accepted)
    official, sentences = Bleu(4).compute_score(
        dict(enumerate(accepted)), {i: [text] for i, text in enumerate(texts)}, verbose=0
    )
    assert bleu_of_counts(values.bleu_counts.sum(axis=0)) == pytest.approx(official, rel=1e-9, abs=1e-12)
    assert pytest.approx(np.array(sentences), rel=1e-9, abs=1e-12) == values.bleu.T


@settings(deadline=None)
@given(st.permutations(range(5)))
def test_scores_do_not_depend_on_the_order_of_the_samples(order):
    texts = ["red chair", "the sofa", "", "two", "left of the bed"]
    accepted = [["red chair", "chair"], ["a sofa"], ["black"], ["two", "2"], ["left", "by the bed"]]
    straight = score_texts(texts, accepted)
    shuffled = score_texts([texts[i] for i in order], [accepted[i] for i in order])
    assert shuffled.cider == pytest.approx(straight.cider[list(order)])
    assert shuffled.rouge_l == pytest.approx(straight.rouge_l[list(order)])


def test_scoring_prints_nothing():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        score([answered("scanqa", "a chair", ["chair"])])
    assert out.getvalue() == ""


def test_scanqa_takes_full_stops_off_for_the_text_metrics_only():
    predictions = [answered("scanqa", text, ["red"], id=text) for text in ("red", "red.", "red..")]
    samples = score([*predictions, answered("scanqa", "x", ["blue"], id="other")])
    assert samples[0].scores["cider"] == samples[1].scores["cider"] == samples[2].scores["cider"] > 0
    assert [sample.scores["em"] for sample in samples] == [1, 0, 0, 0]


def test_captions_are_wrapped_as_the_released_code_does():
    assert wrapped("A Chair, brown. It is old.") == "sos a chair ,  brown .  it is old .  eos"
    assert wrapped("") == "sos  eos"


def test_a_caption_of_the_wrong_place_counts_as_empty_unless_the_released_protocol_is_asked_for():
    other = captioned("a table", ["a table"], id="1")
    right, missed = (
        captioned("a red chair", ["a red chair"]),
        captioned("a red chair", ["a red chair"], box=FAR),
    )
    never_asked = captioned("a red chair", ["a red chair"], box=np.zeros((0, 6)))
    empty = captioned("", ["a red chair"])
    first = [score_captions([case, other])[0].scores for case in (right, missed, never_asked, empty)]
    assert first[0]["cider@0.5"] > 5
    assert first[1] == first[2] == first[3]
    assert first[1]["cider@0.5"] == 0
    assert 0 < first[1]["rouge_l@0.5"] < 0.7
    assert score_captions([missed, other], protocol="released")[0].scores == first[0]


def test_an_iou_of_exactly_one_half_misses_as_in_the_published_evaluators():
    half = np.array([[0.0, 0.0, 0.25, 1.0, 1.0, 0.5]])
    more = np.array([[0.0, 0.0, 0.25, 1.0, 1.0, 0.501]])
    values = [
        score_captions([captioned("a b", ["a b"], box=box), captioned("c", ["c"], id="1")]) for box in (half, more)
    ]
    assert values[0][0].scores["rouge_l@0.5"] < 1.0
    assert values[1][0].scores["rouge_l@0.5"] == 1.0


def test_query_box_is_the_best_overlap():
    slightly_off = BOX + np.array([0.1, 0, 0, 0, 0, 0])
    chosen = query_box(np.concatenate([FAR, slightly_off, BOX + 0.3]), BOX[0])
    assert chosen is not None
    assert chosen.box.tolist() == slightly_off[0].tolist()
    assert chosen.iou == pytest.approx(0.9 / 1.1)
    assert query_box(np.zeros((0, 6)), BOX[0]) is None


def test_bad_text_input_is_refused_by_name():
    with pytest.raises(StereopsisError, match="scanqa '5' has no answer to compare"):
        score([answered("scanqa", "x", [], id="5")])
    with pytest.raises(StereopsisError, match="sqa3d '0' was predicted twice"):
        score([answered("sqa3d", "x", ["x"])] * 2)
    with pytest.raises(StereopsisError, match=r"scan2cap '0'.*exactly one target box"):
        score([answered("scan2cap", "x", ["x"])])
    with pytest.raises(StereopsisError, match="text 1 has no reference"):
        score_texts(["a", "b"], [["a"], [" "]])
    with pytest.raises(StereopsisError, match="1 texts but 2"):
        score_texts(["a"], [["a"], ["b"]])
    assert score([]) == []
    assert score_texts([], []).cider.shape == (0,)


def test_scanqa_em_at_10_and_em_r_by_hand():
    """Ranked: right at place 2, right at place 11 only, wrong. EM-R after cleaning; an empty answer matches nothing."""
    deep = tuple("abcdefghij")
    samples = score(
        [
            answered("scanqa", "dark brown", ["Brown."], id="0", ranked=("dark brown", "Brown.", "red")),
            answered("scanqa", "a", ["k"], id="1", ranked=(*deep, "k")),
            answered("scanqa", "", ["two chairs"], id="2"),
            answered("scanqa", "2 chairs", ["two chairs", "chairs"], id="3"),
        ]
    )
    assert [s.scores["em"] for s in samples] == [0, 0, 0, 0]
    assert [s.scores["em_10"] for s in samples] == [1, 0, 0, 0]
    assert [s.scores["em_r"] for s in samples] == [1, 0, 0, 1]


def test_em_at_10_is_there_only_where_some_system_gave_several_answers():
    once = score([answered("scanqa", "red", ["red"])])
    assert "em_10" not in once[0].scores
    assert "em_10" not in summarise(once)["scanqa"].overall
    mixed = score(
        [answered("scanqa", "red", ["red"]), answered("scanqa", "a", ["b"], id="1", scene_id="t", ranked=("a", "b"))]
    )
    assert summarise(mixed)["scanqa"].overall["em_10"].mean == 100.0


def test_records_of_earlier_versions_are_summarised_without_the_newer_metrics():
    both = score([answered("scanqa", "red", ["red"]), answered("scanqa", "blue", ["red"], id="1", scene_id="t")])
    old = [dataclasses.replace(s, scores={k: v for k, v in s.scores.items() if k != "em_r"}) for s in both]
    summary = summarise(old)["scanqa"]
    assert "em_r" not in summary.overall
    assert summary.overall["em"].mean == 50.0
    assert summary.unavailable.keys() == {"meteor"}
    with pytest.raises(StereopsisError, match="has no score 'em_r'"):
        summarise([old[0], both[1]])
