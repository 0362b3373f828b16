"""Which visual tokens look at the same spot of the room, and how well tokens of one spot agree (3DRS's probe).

A spot is a voxel: tokens of different views whose cells' mean 3D point falls into one voxel are pairs.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS, POINTS_VALID


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SceneTokens:
    """The usable visual tokens of one scene.

    Attributes:
        token: [tokens] index into the batch's flattened [views rows cols] tokens.
        voxel: [tokens] number of the voxel that each looks at, 0 .. voxels - 1.
        view: [tokens] number of its view, 0 .. views - 1 within the scene.
        points: [tokens 3] metres, aligned frame.
        voxels: how many voxels there are.
        views: how many views there are.
    """

    token: Int64[Tensor, "tokens"]
    voxel: Int64[Tensor, "tokens"]
    view: Int64[Tensor, "tokens"]
    points: Float[Tensor, "tokens 3"]
    voxels: int
    views: int

    def pairs(self) -> Int64[Tensor, "voxels"]:
        """Number of cross-view pairs in each voxel."""
        seen = torch.bincount(self.voxel * self.views + self.view, minlength=self.voxels * self.views)
        seen = seen.view(self.voxels, self.views)
        return (seen.sum(1).square() - seen.square().sum(1)) // 2


def scene_tokens(
    points: Float[Tensor, "views rows cols 3"], usable: Bool[Tensor, "views rows cols"], voxel: float, first: int = 0
) -> SceneTokens:
    """Group one scene's tokens by voxel: floor(point / voxel), also below zero.

    Args:
        points: mean point of each cell, metres.
        usable: which cells take part.
        voxel: edge length, metres.
        first: index of the scene's first view in the batch.
    """
    index = usable.flatten().nonzero().flatten()
    cells = usable[0].numel()
    kept = points.flatten(0, 2)[index]
    corner = torch.floor(kept.double() / voxel).long()
    unique, number = torch.unique(corner, dim=0, return_inverse=True)
    return SceneTokens(
        token=index + first * cells,
        voxel=number,
        view=index // cells,
        points=kept,
        voxels=len(unique),
        views=len(points),
    )


def batch_tokens(batch: Batch, hidden: Bool[Tensor, "views"] | None, voxel: float) -> list[SceneTokens]:
    """Per scene of a batch, the tokens with a known point in views that are not hidden."""
    points, usable = batch.targets[POINTS], batch.targets[POINTS_VALID]
    if hidden is not None:
        usable = usable & ~hidden[:, None, None]
    groups, first = [], 0
    for views in torch.bincount(batch.layout.scene, minlength=len(batch.scene_ids)).tolist():
        chosen = slice(first, first + views)
        groups.append(scene_tokens(points[chosen], usable[chosen], voxel, first))
        first += views
    return groups


def scenes_with_pairs(batch: Batch, voxel: float) -> float:
    """How many scenes of a batch show some spot in two views, when nothing is hidden."""
    return float(sum(bool(tokens.pairs().any()) for tokens in batch_tokens(batch, None, voxel)))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Mean cosine over the cross-view pairs of every voxel that has some.

    Attributes:
        cosine: [voxels with pairs].
        pairs: [voxels with pairs] how many.
    """

    cosine: Float[Tensor, "some"]
    pairs: Int64[Tensor, "some"]


def agreement(unit: Float[Tensor, "tokens dim"], tokens: SceneTokens) -> Agreement:
    """Mean cosine of the cross-view pairs of each voxel, exact and without making pairs.

    With S the sum of a voxel's unit features and S_v the sum over those of view v, the cosines of all its cross-view
    pairs add up to (|S|^2 - sum_v |S_v|^2) / 2.

    Args:
        unit: features of length 1, one per token of ``tokens``.
        tokens: which voxel and view each belongs to.
    """
    slot, number = torch.unique(tokens.voxel * tokens.views + tokens.view, return_inverse=True)
    by_view = unit.new_zeros(len(slot), unit.shape[1]).index_add(0, number, unit)
    whole = unit.new_zeros(tokens.voxels, unit.shape[1]).index_add(0, tokens.voxel, unit)
    inside = unit.new_zeros(tokens.voxels).index_add(0, slot // tokens.views, by_view.square().sum(1))
    pairs = tokens.pairs()
    some = pairs > 0
    cosine = (whole.square().sum(1) - inside)[some] / (2 * pairs[some])
    return Agreement(cosine=cosine, pairs=pairs[some])


def effective_rank(features: Float[Tensor, "tokens dim"]) -> float:
    """Exponential of the entropy of the singular values' shares: between 1 (collapsed) and dim; centred features."""
    if len(features) < 2:
        return 0.0
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    shares = values / values.sum().clamp(min=1e-12)
    return float((-(shares * shares.clamp(min=1e-12).log()).sum()).exp())
