"""ScanQA: EM, EM@10, EM-R, CIDEr, METEOR, ROUGE-L and BLEU-1..4, by default as this line of work computes them."""

from collections.abc import Sequence

from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import (
    Metric,
    Prediction,
    SampleScore,
    references,
    require_unique,
    sample_score,
)
from stereopsis.benchmarks.scoring.answers import clean_answer, refined_match
from stereopsis.benchmarks.scoring.java_tools import UnavailableError, ptb_tokenise
from stereopsis.benchmarks.scoring.text import score_texts, text_metrics

_TEXT_METRICS = text_metrics()
METRICS = (
    _TEXT_METRICS[0],
    Metric(name="em"),
    Metric(name="em_10", heading="EM@10", shown=False, ranked=True),
    Metric(name="em_r", shown=False, optional=True),
    *_TEXT_METRICS[1:],
)
RANKS = 10
"""How many of a system's answers EM@10 looks at."""
PROTOCOLS = (
    Protocol(
        task="scanqa",
        name="plain",
        differs="tokens split at spaces, case kept, trailing full stops of the prediction off (not for EM)",
        used_by=("Video-3D-LLM", "3DRS", "Ross3D"),
        default=True,
    ),
    Protocol(
        task="scanqa",
        name="official",
        differs="PTB tokenisation of predictions and answers first (lower case, punctuation off); needs Java",
        used_by=("ScanQA's own script",),
    ),
)


def normalise(text: str) -> str:
    """An answer as the metrics of texts compare it, spaces around it off."""
    return text.strip().rstrip(".")


def score_sample(prediction: Prediction) -> dict[str, float]:
    """EM: 1.0 where the text is, character for character, one of the answers. EM@10: where one of the first ten is.

    EM-R, as LEO and LEO-VL print it: prediction and an answer, cleaned (`clean_answer`), are equal, or one contains the
    other; an empty prediction matches nothing. The other metrics need the whole evaluated set: see `score`.

    Raises:
        StereopsisError: the annotation has no answer.
    """
    accepted = references(prediction.annotation)
    ranked = prediction.ranked[:RANKS] or (prediction.text,)
    return {
        "em": float(prediction.text in accepted),
        "em_10": float(any(text in accepted for text in ranked)),
        "em_r": float(refined_match(clean_answer(prediction.text), [clean_answer(each) for each in accepted])),
    }


def score(predictions: Sequence[Prediction], protocol: str | None = None, *, meteor: bool = False) -> list[SampleScore]:
    """All metrics of every prediction, in order.

    CIDEr depends on the set (see `stereopsis.benchmarks.scoring.text`): pass the whole split. Where the protocol
    ``official`` cannot tokenise (no Java), EM is still there and the others are marked as unavailable. EM@10 is
    left out where no prediction holds several answers.

    Args:
        predictions: texts are taken to the letter, spaces included, as the published evaluators do.
        protocol: one of `PROTOCOLS`, by default ``plain``.
        meteor: whether METEOR is computed too, if Java is there.

    Raises:
        StereopsisError: an annotation has no answer, was predicted twice, or there is no such protocol.
    """
    require_unique(predictions)
    rules = protocol_of(PROTOCOLS, protocol).name
    exact = [score_sample(prediction) for prediction in predictions]
    if not any(prediction.ranked for prediction in predictions):
        for scores in exact:
            del scores["em_10"]
    texts = [prediction.text.rstrip(".") for prediction in predictions]
    accepted: list[Sequence[str]] = [prediction.annotation.answers for prediction in predictions]
    if rules == "official":
        try:
            texts, accepted = _tokenised(predictions)
        except UnavailableError as error:
            reasons = {metric.name: str(error) for metric in _TEXT_METRICS}
            return [
                sample_score(prediction, scores, protocol=rules, unavailable=reasons)
                for prediction, scores in zip(predictions, exact, strict=True)
            ]
    values = score_texts(texts, accepted, meteor=meteor)
    return [
        sample_score(
            prediction,
            {**exact[index], **values.scores(index)},
            protocol=rules,
            bleu_counts=values.bleu_counts[index],
            meteor_counts=values.counts_of_meteor(index),
            unavailable=values.unavailable(),
        )
        for index, prediction in enumerate(predictions)
    ]


def _tokenised(predictions: Sequence[Prediction]) -> tuple[list[str], list[Sequence[str]]]:
    """PTB tokens of the texts and of the answers, by one run of the program."""
    answers = [answer for prediction in predictions for answer in prediction.annotation.answers]
    tokens = ptb_tokenise([*(prediction.text for prediction in predictions), *answers])
    left = iter(tokens[len(predictions) :])
    return tokens[: len(predictions)], [[next(left) for _ in each.annotation.answers] for each in predictions]
