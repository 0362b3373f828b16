import shutil
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, score, summarise
from stereopsis.benchmarks.scoring import java_tools
from stereopsis.benchmarks.scoring.java_tools import (
    UnavailableError,
    meteor_counts,
    meteor_of_counts,
    ptb_tokenise,
    without_perfect_chunks,
)
from stereopsis.benchmarks.scoring.ngrams import longest_common_subsequence, ngram_scores, rouge_l
from stereopsis.benchmarks.scoring.text import score_texts

WORDS = ["the", "red", "chair", "on", "left", "of", "Table", "椅子", ".", ""]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=4)), min_size=1, max_size=6)
# What METEOR 1.5 printed for five pairs of texts, the values it computed from each, and from their sum.
COUNTS = np.array(
    [
        [3, 5, 1, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3],
        [2, 5, 0, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2],
        [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
        [8, 9, 4, 5, 2, 2, 1, 2, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 2, 1, 4, 6, 5],
    ],
    dtype=np.float64,
)
METEOR = [0.2890826312571535, 0.200836820083682, 0.0, 1.0, 0.3304634519431062]
METEOR_OF_ALL = 0.2923246423990493


def coco(pairs):
    """CIDEr, ROUGE-L and sentence BLEU by pycocoevalcap."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said = {i: [text] for i, (text, _) in enumerate(pairs)}
    accepted = {i: references for i, (_, references) in enumerate(pairs)}
    bleu = np.array(Bleu(4).compute_score(accepted, said, verbose=0)[1]).T
    return Cider().compute_score(accepted, said)[1], Rouge().compute_score(accepted, said)[1], bleu


@settings(deadline=None, max_examples=50)
@given(PAIRS.filter(lambda pairs: all(any(r.split() for r in references) for _, references in pairs)))
def test_values_are_those_of_coco_caption(pairs):
    values = score_texts([text for text, _ in pairs], [references for _, references in pairs])
    cider, rouge, bleu = coco(pairs)
    np.testing.assert_allclose(values.cider, cider, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(values.rouge_l, rouge, rtol=1e-12)
    np.testing.assert_allclose(values.bleu, bleu, rtol=1e-9, atol=1e-12)


def plain_table(first, second):
    """The longest common subsequence by the textbook's table."""
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_the_row_of_bits_finds_the_tables_length(first, second):
    assert longest_common_subsequence(first, second) == plain_table(first, second)
    assert longest_common_subsequence(second, first) == plain_table(first, second)


@settings(deadline=None, max_examples=30)
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_of_samples_and_of_references_does_not_matter(pairs, random):
    order = list(range(len(pairs)))
    random.shuffle(order)
    straight = ngram_scores([t for t, _ in pairs], [r for _, r in pairs])
    mixed = ngram_scores([pairs[i][0] for i in order], [pairs[i][1][::-1] for i in order])
    np.testing.assert_allclose(mixed.cider, straight.cider[order], atol=1e-12)
    np.testing.assert_array_equal(mixed.bleu_counts, straight.bleu_counts[order])


def test_an_empty_text_nearest_to_an_empty_answer_scores_nothing():
    values = score_texts(["", "red"], [["", "the"], ["", "red"]])
    assert values.bleu[0].tolist() == [0.0] * 4
    assert values.bleu[1, 0] == pytest.approx(1.0)
    assert np.isfinite(values.bleu).all()


def test_the_reference_itself_scores_the_maximum_and_strangers_nothing():
    texts = [f"the {a} chair number {i}" for i, a in enumerate(["red", "blue", "green", "old"])]
    exact, strange = ngram_scores(texts, [[t] for t in texts]), ngram_scores(["x y"] * 4, [[t] for t in texts])
    assert exact.cider == pytest.approx(10.0)
    assert strange.cider.tolist() == [0.0] * 4
    assert rouge_l(texts[0], [texts[0]]) == 1.0
    assert rouge_l("x", [texts[0]]) == 0.0


def test_ten_thousand_captions_take_seconds():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(2000)]
    drawn = np.minimum(rng.zipf(1.3, (50_000, 18)), 2000) - 1
    captions = [" ".join(words[i] for i in row) for row in drawn.tolist()]
    texts, references = captions[:10_000], [captions[10_000 + 4 * i : 10_004 + 4 * i] for i in range(10_000)]
    start = time.process_time()
    score_texts(texts, references)
    assert time.process_time() - start < 15


def test_an_answer_of_ten_megabytes_is_scored():
    huge = "chair " * 1_700_000
    annotations = [
        Annotation(id=str(i), task=task, scene_id="s", type="t", answers=("chair", "red chair"))
        for i, task in enumerate(["scanqa", "sqa3d"])
    ]
    spaces = Annotation(id="2", task="sqa3d", scene_id="s", type="t", answers=("a b",))
    samples = score(
        [
            *(Prediction(annotation=a, text=huge) for a in annotations),
            Prediction(annotation=spaces, text="a" + " " * 10**7 + "b"),
        ]
    )
    assert samples[0].scores["em"] == samples[1].scores["em"] == 0.0
    assert 0 < samples[0].scores["rouge_l"] < 1e-5
    assert samples[1].scores["em_r"] == 1.0
    assert samples[2].scores["em"] == 1.0


def test_meteor_from_counts_is_what_the_program_computes():
    counts = without_perfect_chunks(COUNTS)
    assert meteor_of_counts(counts) == pytest.approx(METEOR, abs=1e-12)
    assert float(meteor_of_counts(counts.sum(axis=0))) == pytest.approx(METEOR_OF_ALL, abs=1e-12)
    assert counts[:, 20].tolist() == [1, 2, 0, 0, 4]
    assert np.isnan(meteor_of_counts(np.zeros(23)))


def answered(text, answers, id):
    annotation = Annotation(id=id, task="scanqa", scene_id=f"s{id}", type="t", answers=answers)
    return Prediction(annotation=annotation, text=text)


PREDICTIONS = [answered("the red chair.", ("a red chair",), "0"), answered("two", ("two", "2"), "1")]


def test_without_java_everything_else_runs_and_the_metric_says_why(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (summary,) = summarise(score(PREDICTIONS, meteor=True), n=20).values()
    assert "meteor" not in summary.overall
    assert "no 'java' on the PATH" in summary.unavailable["meteor"]
    assert summary.overall["em"].mean == 50.0
    assert summary.overall["cider"].mean > 0
    (official,) = summarise(score(PREDICTIONS, protocols={"scanqa": "official"}), n=20).values()
    assert list(official.overall) == ["em", "em_r"]
    assert set(official.unavailable) == {"cider", "meteor", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4"}
    assert official.protocol == "official"
    with pytest.raises(UnavailableError, match="needs Java"):
        ptb_tokenise(["a"])


def test_a_program_that_fails_or_a_text_too_long_makes_the_metric_unavailable(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    pytest.importorskip("pycocoevalcap.meteor")
    with pytest.raises(UnavailableError, match=r"METEOR failed \(exit status 1\)"):
        meteor_counts(["a"], [["a"]])
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    with pytest.raises(UnavailableError, match="METEOR: 1 texts gave counts of shape"):
        meteor_counts(["a"], [["a"]])
    with pytest.raises(UnavailableError, match=r"cannot align text 1, which has 10000 characters"):
        meteor_counts(["a", "a " * 5000], [["a"], ["a"]])
    monkeypatch.setattr(java_tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'stereopsis\[metrics\]'"):
        meteor_counts(["a"], [["a"]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
def test_meteor_and_ptb_agree_with_pycocoevalcap():
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rng = np.random.default_rng(0)
    words = ["The", "red", "chairs", "sofa", "couch", "is", "left", "(small)", "don't", ",", "of", "window", "near"]
    texts = ["", "the chair.", *(" ".join(rng.choice(words, 7)) for _ in range(40))]
    references = [["a chair", "the big chair"], ["The chair"], *([" ".join(rng.choice(words, 9))] for _ in range(40))]
    said, accepted = {i: [t] for i, t in enumerate(texts)}, dict(enumerate(references))
    corpus, single = Meteor().compute_score(accepted, said)
    counts = meteor_counts(texts, references)
    assert meteor_of_counts(counts) == pytest.approx(single, abs=1e-9)
    assert float(meteor_of_counts(counts.sum(axis=0))) == pytest.approx(corpus, abs=1e-9)
    captions = {i: [{"caption": t}] for i, t in enumerate(texts[1:])}
    assert ptb_tokenise(texts[1:]) == [each[0] for each in PTBTokenizer().tokenize(captions).values()]
    assert ptb_tokenise(["", "A  Chair,\nhere", ""]) == ["", "a chair here", ""]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
def test_summaries_hold_corpus_meteor_under_both_protocols():
    for protocol in ("plain", "official"):
        samples = score(PREDICTIONS, protocols={"scanqa": protocol}, meteor=True)
        (summary,) = summarise(samples, n=20).values()
        counts = np.array([sample.meteor_counts for sample in samples]).sum(axis=0)
        assert summary.overall["meteor"].mean == pytest.approx(100 * float(meteor_of_counts(counts)))
        assert not summary.unavailable
