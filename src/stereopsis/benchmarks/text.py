"""Caption metrics: CIDEr, ROUGE-L, BLEU-1..4, by pycocoevalcap (extra 'metrics'), tokens split at spaces.

CIDEr weighs n-grams by how rare they are among the references of the whole evaluated set. A sample's CIDEr
therefore depends on the set it was scored with: always score a whole split at once (a set of one sample
scores 0), and compare per-sample values only between systems scored on the same samples. The corpus value is
the mean of the per-sample values, so those can be bootstrapped; the rarity weights are held fixed while doing
so.

BLEU of a corpus is no mean of sentence BLEU. Each sample keeps its counts instead (hits and totals of 1- to
4-grams, its length and the closest reference's), and any set of samples gets its BLEU from their sums.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.errors import MissingExtraError, StereopsisError

BLEU_ORDERS = (1, 2, 3, 4)
BLEU_COUNTS = 2 * len(BLEU_ORDERS) + 2
# pycocoevalcap's guards against 0/0; kept so that values agree with it to the last digit.
_TINY, _SMALL = 1e-15, 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TextScores:
    """Per-sample values of a set of texts, in order, as fractions (CIDEr up to 10).

    Attributes:
        cider: [samples] under the rarity weights of this whole set.
        rouge_l: [samples] F-measure of the longest common subsequence, beta 1.2.
        bleu: [samples, 4] sentence BLEU-1..4, for looking at single samples.
        bleu_counts: [samples, 10] hits of 1..4-grams, totals of 1..4-grams, length, closest reference's
            length.
    """

    cider: Float[np.ndarray, " samples"]
    rouge_l: Float[np.ndarray, " samples"]
    bleu: Float[np.ndarray, "samples 4"]
    bleu_counts: Float[np.ndarray, "samples 10"]


def score_texts(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """Score each text against its references; one call per evaluated set.

    Raises:
        MissingExtraError: pycocoevalcap is not installed.
        StereopsisError: the numbers differ, or a text has no reference.
    """
    try:
        from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise MissingExtraError("pycocoevalcap", "metrics", "CIDEr, ROUGE-L and BLEU") from error

    if len(texts) != len(references):
        raise StereopsisError(f"{len(texts)} texts but {len(references)} lists of references; give one list per text")
    for index, accepted in enumerate(references):
        if not any(reference.split() for reference in accepted):
            raise StereopsisError(f"text {index} has no reference with a word in it")
    if not texts:
        return TextScores(
            cider=np.zeros(0),
            rouge_l=np.zeros(0),
            bleu=np.zeros((0, 4)),
            bleu_counts=np.zeros((0, BLEU_COUNTS)),
        )
    predicted = {index: [text] for index, text in enumerate(texts)}
    accepted_by_index = {index: list(accepted) for index, accepted in enumerate(references)}
    _, cider = Cider().compute_score(accepted_by_index, predicted)
    rouge = Rouge()
    counts = []
    for text, accepted in zip(texts, references, strict=True):
        found = cook_test(text, cook_refs(accepted))
        closest = min(found["reflen"], key=lambda length: (abs(length - found["testlen"]), length))
        counts.append([*found["correct"], *found["guess"], found["testlen"], closest])
    bleu_counts = np.array(counts, dtype=np.float64)
    return TextScores(
        cider=np.asarray(cider, dtype=np.float64),
        rouge_l=np.array([rouge.calc_score(predicted[i], accepted_by_index[i]) for i in predicted]),
        bleu=bleu_of_counts(bleu_counts),
        bleu_counts=bleu_counts,
    )


def bleu_of_counts(counts: Float[np.ndarray, "*sets 10"]) -> Float[np.ndarray, "*sets 4"]:
    """BLEU-1..4 from (sums of) the counts of `TextScores.bleu_counts`; NaN for a set without references."""
    hits, totals = counts[..., :4], counts[..., 4:8]
    length, reference_length = counts[..., 8:9], counts[..., 9:10]
    precision = np.cumprod((hits + _TINY) / (totals + _SMALL), axis=-1) ** (1.0 / np.array(BLEU_ORDERS))
    longer = (length + _TINY) / (reference_length + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / longer))
    return np.where(reference_length > 0, precision * brevity, np.nan)
