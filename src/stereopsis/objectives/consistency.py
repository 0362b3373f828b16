"""Multi-view consistency (3DRS): tokens of one spot say the same in every view, without all saying the same."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objective_sections import ConsistencySection
from stereopsis.objectives.base import ObjectiveLoss, Randomness, SpatialOutputs
from stereopsis.objectives.correspondence import (
    agreement,
    batch_tokens,
    effective_rank,
    scenes_with_pairs,
)
from stereopsis.objectives.projected import ProjectedObjective

DEFAULT = ConsistencySection()


def collapse_guard(unit: Float[Tensor, "tokens width"]) -> Float[Tensor, ""]:
    """What it costs that features of length 1 do not spread over their space; 0 where they do.

    Variance and covariance terms in the manner of VICReg, for unit vectors: every channel should have the standard
    deviation 1 / sqrt(width), that of uniformly spread directions, and channels should not go together.
    """
    width = unit.shape[1]
    scaled = (unit - unit.mean(0)) * width**0.5
    deviation = (scaled.square().mean(0) + 1e-4).sqrt()
    covariance = scaled.T @ scaled / len(unit)
    off = covariance - torch.diag(covariance.diagonal())
    return functional.relu(1 - deviation).mean() + off.square().sum() / width**2


class Consistency(ProjectedObjective):
    """1 - mean cosine over the cross-view pairs of every voxel, plus a guard against collapse.

    A scene's loss is the mean over its voxels with pairs; scenes weigh alike. No pair is ever made: sums per voxel
    and view suffice (see `stereopsis.objectives.correspondence.agreement`).

    Args:
        dim: width of the visual tokens.
        voxel: edge length, metres (3DRS: 0.1; coarse tokens want larger ones).
        guard: factor of `collapse_guard`, over all usable tokens of the scene; 0 switches it off.
        width: of the space in which tokens are compared.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    name = "consistency"
    needs = (POINTS, POINTS_VALID)

    def __init__(
        self,
        dim: int,
        *,
        voxel: float = DEFAULT.voxel,
        guard: float = DEFAULT.guard,
        width: int = DEFAULT.width,
        weight: float = DEFAULT.weight,
        every: int = DEFAULT.every,
    ) -> None:
        super().__init__(dim, width, weight=weight, every=every)
        if voxel <= 0 or guard < 0:
            raise ValueError(
                f"objective 'consistency': voxel must be positive and guard at least 0, got {voxel} and {guard}"
            )
        self.voxel, self.guard = voxel, guard

    def count(self, batch: Batch) -> float:
        """Scenes that show some spot in two views."""
        return scenes_with_pairs(batch, self.voxel)

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Sum over scenes; metrics: mean cosine of the pairs, spread (1 = uniform) and rank of the features."""
        features = self.directions(outputs)
        losses, figures = [], []
        for tokens in batch_tokens(batch, outputs.hidden, self.voxel):
            if not bool(tokens.pairs().any()):
                continue
            unit = features[tokens.token]
            cosine = agreement(unit, tokens).cosine.mean()
            losses.append(1 - cosine + (self.guard * collapse_guard(unit) if self.guard else 0.0))
            still = unit.detach()
            spread = float(still.std(dim=0).mean()) * unit.shape[1] ** 0.5
            figures.append({"cosine": float(cosine.detach()), "spread": spread, "rank": effective_rank(still)})
        count = self.count(batch)
        if not losses:
            return ObjectiveLoss(sum=self.connected_zero(outputs), count=count)
        metrics = {key: sum(f[key] for f in figures) / len(figures) for key in figures[0]}
        return ObjectiveLoss(sum=torch.stack(losses).sum(), count=count, metrics=metrics)
