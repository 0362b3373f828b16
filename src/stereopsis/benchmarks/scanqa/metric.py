"""ScanQA: EM, CIDEr, METEOR, ROUGE-L and BLEU-1..4, by default as this line of work computes them."""

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
from stereopsis.benchmarks.scoring.java_tools import UnavailableError, ptb_tokenise
from stereopsis.benchmarks.scoring.text import score_texts, text_metrics

_TEXT_METRICS = text_metrics()
METRICS = (_TEXT_METRICS[0], Metric(name="em"), *_TEXT_METRICS[1:])
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
    """EM: 1.0 where the text is, character for character, one of the answers.

    The other metrics need the whole evaluated set: see `score`.

    Raises:
        StereopsisError: the annotation has no answer.
    """
    return {"em": float(prediction.text in references(prediction.annotation))}


def score(predictions: Sequence[Prediction], protocol: str | None = None, *, meteor: bool = False) -> list[SampleScore]:
    """All metrics of every prediction, in order.

    CIDEr depends on the set (see `stereopsis.benchmarks.scoring.text`): pass the whole split. Where the protocol
    ``official`` cannot tokenise (no Java), EM is still there and the others are marked as unavailable.

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
