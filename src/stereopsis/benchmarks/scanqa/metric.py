"""ScanQA: EM, CIDEr, ROUGE-L and BLEU-1..4 as this line of work computes them (no PTB tokenisation)."""

from collections.abc import Sequence

from stereopsis.benchmarks.records import (
    Metric,
    Prediction,
    SampleScore,
    references,
    require_unique,
    sample_score,
)
from stereopsis.benchmarks.text import BLEU_ORDERS, score_texts

METRICS = (
    Metric(name="cider"),
    Metric(name="em"),
    Metric(name="rouge_l"),
    *(Metric(name=f"bleu_{order}", bleu_order=order) for order in BLEU_ORDERS),
)


def score_sample(prediction: Prediction) -> dict[str, float]:
    """EM: 1.0 where the text is, character for character, one of the answers (outer whitespace apart).

    The other metrics need the whole evaluated set: see `score`.

    Raises:
        StereopsisError: the annotation has no answer.
    """
    return {"em": float(prediction.text.strip() in references(prediction.annotation))}


def score(predictions: Sequence[Prediction]) -> list[SampleScore]:
    """All metrics of every prediction, in order; trailing full stops are taken off for all but EM.

    CIDEr depends on the set (see `stereopsis.benchmarks.text`): pass the whole split.

    Raises:
        MissingExtraError: pycocoevalcap is not installed.
        StereopsisError: an annotation has no answer, or was predicted twice.
    """
    require_unique(predictions)
    exact = [score_sample(prediction) for prediction in predictions]
    texts = [prediction.text.strip().rstrip(".") for prediction in predictions]
    values = score_texts(texts, [prediction.annotation.answers for prediction in predictions])
    return [
        sample_score(
            prediction,
            {
                **exact[index],
                "cider": float(values.cider[index]),
                "rouge_l": float(values.rouge_l[index]),
                **{f"bleu_{order}": float(values.bleu[index, order - 1]) for order in BLEU_ORDERS},
            },
            values.bleu_counts[index],
        )
        for index, prediction in enumerate(predictions)
    ]
