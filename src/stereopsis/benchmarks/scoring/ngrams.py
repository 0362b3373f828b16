"""CIDEr-D, BLEU's counts and ROUGE-L of many texts at once, equal to coco-caption's values.

coco-caption (pycocoevalcap) computes the same numbers with Python dictionaries, a logarithm for every word of every
reference and a full table for every common subsequence: minutes for ten thousand captions. Here n-grams are integers,
so that counting, rarity weights and matching are sorts and sums over whole arrays, and the subsequence's table is a
row of bits. The tests hold these functions against pycocoevalcap.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

ORDERS = (1, 2, 3, 4)
_SIGMA = 6.0
_BETA = 1.2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Counts:
    """How often each n-gram of one order occurs in each text: parallel arrays, ordered by text and n-gram."""

    text: Int[np.ndarray, " pairs"]
    ngram: Int[np.ndarray, " pairs"]
    times: Float[np.ndarray, " pairs"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NgramScores:
    """Per-sample values, in order.

    Attributes:
        cider: [samples] 0 to 10, under the rarity weights of the whole set.
        bleu_counts: [samples, 10] hits of 1..4-grams, totals of 1..4-grams, length, closest reference's length.
    """

    cider: Float[np.ndarray, " samples"]
    bleu_counts: Float[np.ndarray, "samples 10"]


def ngram_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> NgramScores:
    """CIDEr-D (sigma 6, four orders, mean over references, times 10) and BLEU's counts; tokens split at whitespace.

    Args:
        texts: one per sample, at least one sample.
        references: at least one per sample.
    """
    samples = len(texts)
    of_reference = np.repeat(np.arange(samples), [len(accepted) for accepted in references])
    tokens = [text.split() for text in texts] + [text.split() for accepted in references for text in accepted]
    lengths = np.array([len(words) for words in tokens], dtype=np.int64)
    hypothesis_length, reference_length = lengths[:samples], lengths[samples:]
    # Of references equally near in length, the shorter one counts (as in coco-caption's "closest").
    distance = np.abs(reference_length - hypothesis_length[of_reference])
    nearest = np.lexsort((reference_length, distance, of_reference))
    first = np.searchsorted(of_reference, np.arange(samples))
    closest = reference_length[nearest][first]

    delta = np.maximum(hypothesis_length - 1, 0)[of_reference] - np.maximum(reference_length - 1, 0)
    penalty = np.exp(-(delta.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    similarity = np.zeros(len(of_reference))
    hits = np.zeros((samples, len(ORDERS)))
    for order, counts in zip(ORDERS, _counts(tokens, lengths), strict=True):
        split = int(np.searchsorted(counts.text, samples))
        said = _Counts(text=counts.text[:split], ngram=counts.ngram[:split], times=counts.times[:split])
        accepted = _Counts(text=counts.text[split:] - samples, ngram=counts.ngram[split:], times=counts.times[split:])
        similarity += _similarity(said, accepted, of_reference, samples)
        hits[:, order - 1] = _hits(said, accepted, of_reference, samples)
    per_sample = np.bincount(of_reference, weights=similarity * penalty, minlength=samples)
    cider = 10.0 * per_sample / len(ORDERS) / np.bincount(of_reference, minlength=samples)
    totals = np.maximum(hypothesis_length[:, None] - np.array(ORDERS) + 1, 0)
    return NgramScores(
        cider=cider,
        bleu_counts=np.column_stack([hits, totals, hypothesis_length, closest]).astype(np.float64),
    )


def _counts(tokens: list[list[str]], lengths: Int[np.ndarray, " texts"]) -> list[_Counts]:
    """The n-grams of every text, order by order."""
    vocabulary: dict[str, int] = {}
    words = np.array([vocabulary.setdefault(word, len(vocabulary)) for text in tokens for word in text], dtype=np.int64)
    text_of_word = np.repeat(np.arange(len(tokens)), lengths)
    end_of_text = np.cumsum(lengths)[text_of_word]
    ngrams = words
    found = []
    for order in ORDERS:
        # The n-gram that starts at a word, where the text has words enough.
        whole = np.arange(len(words)) + order <= end_of_text
        if order > 1:
            following = np.roll(words, 1 - order)
            pairs = ngrams * max(1, len(vocabulary)) + following
            ngrams = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        kinds = int(ngrams.max(initial=0)) + 1
        keys, times = np.unique(text_of_word[whole] * kinds + ngrams[whole], return_counts=True)
        found.append(_Counts(text=keys // kinds, ngram=keys % kinds, times=times.astype(np.float64)))
    return found


def _similarity(
    said: _Counts, accepted: _Counts, of_reference: Int[np.ndarray, " references"], samples: int
) -> Float[np.ndarray, " references"]:
    """Clipped cosine similarity of each reference with its sample's text under the rarity weights."""
    kinds = 1 + int(max(said.ngram.max(initial=0), accepted.ngram.max(initial=0)))
    sample = of_reference[accepted.text]
    spoken_of = np.unique(sample * kinds + accepted.ngram) % kinds
    document_frequency = np.bincount(spoken_of, minlength=kinds)
    rarity = np.log(float(samples)) - np.log(np.maximum(1.0, document_frequency))
    mine, theirs = said.times * rarity[said.ngram], accepted.times * rarity[accepted.ngram]
    my_norm = np.sqrt(np.bincount(said.text, weights=mine**2, minlength=samples))[of_reference]
    their_norm = np.sqrt(np.bincount(accepted.text, weights=theirs**2, minlength=len(of_reference)))
    place, shared = _find(said.text * kinds + said.ngram, sample * kinds + accepted.ngram)
    products = np.minimum(mine[place], theirs[shared]) * theirs[shared]
    dot = np.bincount(accepted.text[shared], weights=products, minlength=len(of_reference))
    norm = my_norm * their_norm
    return np.divide(dot, norm, out=np.zeros(len(dot)), where=norm > 0)


def _hits(
    said: _Counts, accepted: _Counts, of_reference: Int[np.ndarray, " references"], samples: int
) -> Float[np.ndarray, " samples"]:
    """How many of a text's n-grams a reference has too, each as often as the reference that has it most."""
    kinds = 1 + int(max(said.ngram.max(initial=0), accepted.ngram.max(initial=0)))
    key = of_reference[accepted.text] * kinds + accepted.ngram
    kept, group = np.unique(key, return_inverse=True)
    most = np.zeros(len(kept))
    np.maximum.at(most, group.reshape(-1), accepted.times)
    place, shared = _find(kept, said.text * kinds + said.ngram)
    clipped = np.minimum(said.times[shared], most[place])
    # Of nothing, bincount makes integers.
    return np.bincount(said.text[shared], weights=clipped, minlength=samples).astype(np.float64)


def _find(
    keys: Int[np.ndarray, " keys"], wanted: Int[np.ndarray, " wanted"]
) -> tuple[Int[np.ndarray, " found"], Int[np.ndarray, " found"]]:
    """Places in `keys` (sorted, unique) and in `wanted` of the values that both have."""
    if len(keys) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = np.flatnonzero(keys[place] == wanted)
    return place[found], found


def rouge_l(text: str, references: Sequence[str]) -> float:
    """F-measure (beta 1.2) of the best precision and the best recall of the longest common subsequence.

    As in coco-caption, tokens are split at single spaces: two spaces in a row make an empty token, and so does an
    empty text.
    """
    words = text.split(" ")
    precision = recall = 0.0
    for reference in references:
        other = reference.split(" ")
        common = longest_common_subsequence(words, other)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(other))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, with one row of the table as the bits of an integer (Crochemore et al., IPL 2001)."""
    if len(first) < len(second):
        first, second = second, first
    places: dict[str, int] = {}
    for bit, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << bit
    full = (1 << len(second)) - 1
    row = full
    for word in first:
        if word in places:
            matches = row & places[word]
            row = ((row + matches) | (row - matches)) & full
    return len(second) - row.bit_count()
