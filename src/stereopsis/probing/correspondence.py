"""The multi-view correspondence score of 3DRS (section 3), its baselines, and retrieval across views."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from stereopsis.objectives.correspondence import SceneTokens, agreement, scene_tokens

CHUNK = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correspondence:
    """How alike tokens are that look at one spot from different views, and how alike any others.

    Attributes:
        score: mean cosine over the cross-view pairs of a voxel, averaged over voxels; None where no spot is seen twice.
        random: mean cosine over all cross-view pairs of different voxels: what the score would be if spots did not
            matter. Features that all point one way have a high score and an equally high baseline.
        pairs: number of same-voxel cross-view pairs.
        voxels: number of voxels with such pairs.
    """

    score: float | None
    random: float | None
    pairs: int
    voxels: int

    @property
    def gap(self) -> float | None:
        """Score minus baseline: what knowing the spot is worth."""
        return None if self.score is None or self.random is None else self.score - self.random


def correspondence(
    features: Float[Tensor, "views rows cols dim"],
    points: Float[Tensor, "views rows cols 3"],
    valid: Bool[Tensor, "views rows cols"],
    *,
    voxel: float = 0.1,
) -> Correspondence:
    """The score of one scene, exact and in memory linear in its tokens.

    Args:
        features: of every cell.
        points: mean 3D point of every cell, metres.
        valid: cells with a point.
        voxel: edge length, metres.
    """
    tokens = scene_tokens(points, valid, voxel)
    unit = _unit(features, tokens)
    agreed = agreement(unit, tokens)
    pairs = int(agreed.pairs.sum())
    score = float(agreed.cosine.mean()) if pairs else None
    same = float((agreed.cosine * agreed.pairs).sum())
    return Correspondence(
        score=score, random=_baseline(unit, tokens, same, pairs), pairs=pairs, voxels=len(agreed.pairs)
    )


def _baseline(unit: Float[Tensor, "tokens dim"], tokens: SceneTokens, same: float, pairs: int) -> float | None:
    """Mean cosine of cross-view pairs in different voxels: all cross-view pairs, less those of one voxel."""
    by_view = unit.new_zeros(tokens.views, unit.shape[1]).index_add(0, tokens.view, unit)
    number = torch.bincount(tokens.view, minlength=tokens.views)
    every = int((number.sum() ** 2 - number.square().sum()) // 2)
    if every <= pairs:
        return None
    total = float((by_view.sum(0).square().sum() - by_view.square().sum()) / 2)
    return (total - same) / (every - pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Finding a token's spot among all tokens of other views by similarity.

    Attributes:
        recall: {k: share of queries with a token of their voxel among the k most similar ones}.
        chance: {k: what a random order would reach on average}.
        queries: tokens whose spot another view sees.
    """

    recall: Mapping[int, float]
    chance: Mapping[int, float]
    queries: int


def retrieval(
    features: Float[Tensor, "views rows cols dim"],
    points: Float[Tensor, "views rows cols 3"],
    valid: Bool[Tensor, "views rows cols"],
    *,
    voxel: float = 0.1,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = CHUNK,
) -> Retrieval | None:
    """Recall@k over one scene; None where no spot is seen by two views.

    Args:
        features: of every cell.
        points: mean 3D point of every cell, metres.
        valid: cells with a point.
        voxel: edge length, metres.
        ks: how many of the most similar tokens count.
        chunk: queries at a time: no matrix is larger than chunk x tokens.
    """
    tokens = scene_tokens(points, valid, voxel)
    unit = _unit(features, tokens)
    queries = (tokens.pairs() > 0)[tokens.voxel].nonzero().flatten()
    hits, chance, asked = dict.fromkeys(ks, 0.0), dict.fromkeys(ks, 0.0), 0
    for start in range(0, len(queries), chunk):
        query = queries[start : start + chunk]
        other = tokens.view[query][:, None] != tokens.view[None]
        right = other & (tokens.voxel[query][:, None] == tokens.voxel[None])
        query, other, right = (x[right.any(1)] for x in (query, other, right))
        similarity = (unit[query] @ unit.T).masked_fill(~other, -torch.inf)
        order = similarity.topk(min(max(ks), len(unit)), dim=1).indices
        found = right.gather(1, order)
        asked += len(query)
        for k in ks:
            hits[k] += float(found[:, :k].any(1).sum())
            chance[k] += float(_chance(right.sum(1), other.sum(1), k).sum())
    if not asked:
        return None
    return Retrieval(recall={k: hits[k] / asked for k in ks}, chance={k: chance[k] / asked for k in ks}, queries=asked)


def _chance(right: Tensor, options: Tensor, k: int) -> Tensor:
    """Probability that k of the options, drawn without replacement, hold one of the right ones."""
    miss = torch.ones(len(right), dtype=torch.float64)
    for drawn in range(k):
        miss *= ((options - right - drawn).clamp(min=0) / (options - drawn).clamp(min=1)).double()
    return 1 - miss


def _unit(features: Float[Tensor, "views rows cols dim"], tokens: SceneTokens) -> Float[Tensor, "tokens dim"]:
    chosen = features.flatten(0, 2)[tokens.token]
    return functional.normalize(chosen.to(torch.promote_types(chosen.dtype, torch.float32)), dim=-1, eps=1e-12)
