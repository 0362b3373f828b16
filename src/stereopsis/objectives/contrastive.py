"""Cross-view contrastive learning (3DRS): tokens of one spot attract each other, tokens of other spots repel."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objective_sections import ContrastiveSection
from stereopsis.objectives.base import ObjectiveLoss, Randomness, SpatialOutputs, of_scene
from stereopsis.objectives.correspondence import (
    SceneTokens,
    batch_tokens,
    effective_rank,
    scenes_with_pairs,
)
from stereopsis.objectives.projected import ProjectedObjective

DEFAULT = ContrastiveSection()


class Contrastive(ProjectedObjective):
    """InfoNCE over same-voxel tokens of different views against tokens of other voxels of the scene.

    Per scene, up to ``samples`` anchors are drawn among the tokens that have a partner; each gets one partner of its
    voxel from another view, and all anchors' partners that look at other voxels are its negatives. The scene's
    loss is the mean over its anchors; scenes weigh alike.

    Args:
        dim: width of the visual tokens.
        voxel: edge length, metres (3DRS: 0.1; coarse tokens want larger ones).
        samples: most anchors per scene.
        temperature: divisor of the cosines.
        hard_negatives: so many further negatives per anchor, drawn among tokens of other voxels within ``radius``.
        radius: metres.
        width: of the space in which tokens are compared.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    name = "contrastive"
    needs = (POINTS, POINTS_VALID)

    def __init__(
        self,
        dim: int,
        *,
        voxel: float = DEFAULT.voxel,
        samples: int = DEFAULT.samples,
        temperature: float = DEFAULT.temperature,
        hard_negatives: int = DEFAULT.hard_negatives,
        radius: float = DEFAULT.radius,
        width: int = DEFAULT.width,
        weight: float = DEFAULT.weight,
        every: int = DEFAULT.every,
    ) -> None:
        super().__init__(dim, width, weight=weight, every=every)
        if min(voxel, temperature, radius) <= 0 or samples < 2 or hard_negatives < 0:
            raise ValueError(
                "objective 'contrastive': voxel, temperature and radius must be positive, samples at least 2, "
                f"hard_negatives at least 0; got {voxel}, {temperature}, {radius}, {samples}, {hard_negatives}"
            )
        self.voxel, self.samples, self.temperature = voxel, samples, temperature
        self.hard_negatives, self.radius = hard_negatives, radius

    def count(self, batch: Batch) -> float:
        """Scenes that show some spot in two views."""
        return scenes_with_pairs(batch, self.voxel)

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Sum of the scenes' mean InfoNCE; metrics: how often the partner is nearest, rank of the projected tokens."""
        features = self.directions(outputs)
        losses, hits, ranks = [], [], []
        for scene, tokens in enumerate(batch_tokens(batch, outputs.hidden, self.voxel)):
            draws = of_scene(generator, scene)
            anchor, partner = draw_pairs(tokens, self.samples, draws)
            if not len(anchor):
                continue
            logits = self._logits(features, tokens, anchor, partner, draws)
            losses.append(functional.cross_entropy(logits, torch.zeros_like(anchor)))
            hits.append(float((logits.detach().argmax(1) == 0).float().mean()))
            ranks.append(effective_rank(features.detach()[tokens.token[anchor]]))
        count = self.count(batch)
        if not losses:
            return ObjectiveLoss(sum=self.connected_zero(outputs), count=count)
        metrics = {"recall": sum(hits) / len(hits), "rank": sum(ranks) / len(ranks)}
        return ObjectiveLoss(sum=torch.stack(losses).sum(), count=count, metrics=metrics)

    def _logits(
        self,
        features: Float[Tensor, "all width"],
        tokens: SceneTokens,
        anchor: Int64[Tensor, "anchors"],
        partner: Int64[Tensor, "anchors"],
        generator: torch.Generator,
    ) -> Float[Tensor, "anchors options"]:
        """The partner's similarity first, then the negatives'; what is no negative is -inf."""
        unit = features[tokens.token]
        query, key = unit[anchor], unit[partner]
        same = tokens.voxel[anchor][:, None] == tokens.voxel[partner][None]
        others = (query @ key.T).masked_fill(same, float("-inf"))
        parts = [(query * key).sum(1, keepdim=True), others]
        if self.hard_negatives:
            near, there = self._nearby(tokens, anchor, generator)
            close = torch.einsum("ad,ahd->ah", query, unit[near])
            parts.append(close.masked_fill(~there, float("-inf")))
        return torch.cat(parts, dim=1) / self.temperature

    def _nearby(
        self, tokens: SceneTokens, anchor: Int64[Tensor, "anchors"], generator: torch.Generator
    ) -> tuple[Int64[Tensor, "anchors hard"], Bool[Tensor, "anchors hard"]]:
        """Random tokens of other voxels within the radius, and which of them exist."""
        close = torch.cdist(tokens.points[anchor].float(), tokens.points.float()) < self.radius
        close &= tokens.voxel[anchor][:, None] != tokens.voxel[None]
        order = torch.rand(close.shape, generator=generator).to(close.device).masked_fill(~close, -1.0)
        score, index = order.topk(min(self.hard_negatives, order.shape[1]), dim=1)
        return index, score >= 0


def draw_pairs(
    tokens: SceneTokens, samples: int, generator: torch.Generator
) -> tuple[Int64[Tensor, "anchors"], Int64[Tensor, "anchors"]]:
    """Anchors and, for each, a token of its voxel in another view; all drawn from a CPU generator.

    Returns:
        Indices into ``tokens``; both empty where no voxel is seen by two views.
    """
    with_partner = (tokens.pairs() > 0)[tokens.voxel].nonzero().flatten()
    order = torch.randperm(len(with_partner), generator=generator)[:samples].to(with_partner.device)
    anchor = with_partner[order]
    if not len(anchor):
        return anchor, anchor
    fits = tokens.voxel[anchor][:, None] == tokens.voxel[None]
    fits &= tokens.view[anchor][:, None] != tokens.view[None]
    chance = torch.rand(fits.shape, generator=generator).to(fits.device)
    return anchor, chance.masked_fill(~fits, -1.0).argmax(dim=1)
