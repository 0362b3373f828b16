"""Caption metrics: CIDEr, ROUGE-L, BLEU-1..4 and METEOR, equal to coco-caption's, tokens split at spaces.

CIDEr weighs n-grams by how rare they are among the references of the whole evaluated set. A sample's CIDEr
therefore depends on the set it was scored with: always score a whole split at once (a set of one sample
scores 0), and compare per-sample values only between systems scored on the same samples. The corpus value is
the mean of the per-sample values, so those can be bootstrapped; the rarity weights are held fixed while doing
so.

BLEU and METEOR of a corpus are no means of sentence values. Each sample keeps its counts instead, and any set of
samples gets its value from their sums. METEOR needs Java (see `stereopsis.benchmarks.scoring.java_tools`).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.records import Metric
from stereopsis.benchmarks.scoring.java_tools import UnavailableError, meteor_counts, meteor_of_counts
from stereopsis.benchmarks.scoring.ngrams import ngram_scores, rouge_l
from stereopsis.errors import StereopsisError

BLEU_ORDERS = (1, 2, 3, 4)
BLEU_COUNTS = 2 * len(BLEU_ORDERS) + 2
NOT_ASKED_FOR = "not asked for (it starts a Java program, which takes seconds)"
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
        meteor: [samples] sentence METEOR; None where it is not available.
        meteor_counts: [samples, 23] see `stereopsis.benchmarks.scoring.java_tools.meteor_of_counts`; None likewise.
        no_meteor: why METEOR is not available; empty where it is.
    """

    cider: Float[np.ndarray, " samples"]
    rouge_l: Float[np.ndarray, " samples"]
    bleu: Float[np.ndarray, "samples 4"]
    bleu_counts: Float[np.ndarray, "samples 10"]
    meteor: Float[np.ndarray, " samples"] | None = None
    meteor_counts: Float[np.ndarray, "samples 23"] | None = None
    no_meteor: str = ""

    def scores(self, index: int, suffix: str = "") -> dict[str, float]:
        """One sample's values by metric name, each name with this ending."""
        found = {f"cider{suffix}": float(self.cider[index]), f"rouge_l{suffix}": float(self.rouge_l[index])}
        found |= {f"bleu_{order}{suffix}": float(self.bleu[index, order - 1]) for order in BLEU_ORDERS}
        if self.meteor is not None:
            found[f"meteor{suffix}"] = float(self.meteor[index])
        return found

    def counts_of_meteor(self, index: int) -> tuple[float, ...]:
        """One sample's counts; none where METEOR is not available."""
        return () if self.meteor_counts is None else tuple(self.meteor_counts[index].tolist())

    def unavailable(self, suffix: str = "") -> Mapping[str, str]:
        """Metric name -> reason, for the metric that is missing."""
        return {f"meteor{suffix}": self.no_meteor} if self.no_meteor else {}


def text_metrics(suffix: str = "") -> tuple[Metric, ...]:
    """CIDEr first, then METEOR, ROUGE-L and BLEU-1..4, each name with this ending."""
    return (
        Metric(name=f"cider{suffix}", heading=f"CIDEr{suffix}", over_set=True),
        Metric(name=f"meteor{suffix}", meteor=True),
        Metric(name=f"rouge_l{suffix}"),
        *(Metric(name=f"bleu_{order}{suffix}", bleu_order=order, shown=False) for order in BLEU_ORDERS),
    )


def score_texts(texts: Sequence[str], references: Sequence[Sequence[str]], *, meteor: bool = False) -> TextScores:
    """Score each text against its references; one call per evaluated set.

    Args:
        texts: one per sample, taken to the letter.
        references: at least one per sample.
        meteor: whether METEOR is computed too, if Java and pycocoevalcap are there.

    Raises:
        StereopsisError: the numbers differ, or a text has no reference.
    """
    if len(texts) != len(references):
        raise StereopsisError(f"{len(texts)} texts but {len(references)} lists of references; give one list per text")
    for index, accepted in enumerate(references):
        if not any(reference.split() for reference in accepted):
            raise StereopsisError(f"text {index} has no reference with a word in it")
    found, reason = None, "" if meteor else NOT_ASKED_FOR
    if meteor:
        try:
            found = meteor_counts(texts, references)
        except UnavailableError as error:
            reason = str(error)
    if not texts:
        return TextScores(
            cider=np.zeros(0),
            rouge_l=np.zeros(0),
            bleu=np.zeros((0, 4)),
            bleu_counts=np.zeros((0, BLEU_COUNTS)),
            no_meteor=reason,
        )
    values = ngram_scores(texts, references)
    return TextScores(
        cider=values.cider,
        rouge_l=np.array([rouge_l(text, accepted) for text, accepted in zip(texts, references, strict=True)]),
        # An empty text that is nearest to an empty reference: 0, as in coco-caption.
        bleu=np.nan_to_num(bleu_of_counts(values.bleu_counts), nan=0.0),
        bleu_counts=values.bleu_counts,
        meteor=None if found is None else meteor_of_counts(found),
        meteor_counts=found,
        no_meteor=reason,
    )


def bleu_of_counts(counts: Float[np.ndarray, "*sets 10"]) -> Float[np.ndarray, "*sets 4"]:
    """BLEU-1..4 from (sums of) the counts of `TextScores.bleu_counts`; NaN for a set of nothing but empty texts."""
    hits, totals = counts[..., :4], counts[..., 4:8]
    length, reference_length = counts[..., 8:9], counts[..., 9:10]
    precision = np.cumprod((hits + _TINY) / (totals + _SMALL), axis=-1) ** (1.0 / np.array(BLEU_ORDERS))
    longer = (length + _TINY) / (reference_length + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / longer))
    return np.where(length + reference_length > 0, precision * brevity, np.nan)
