"""Relational distillation: tokens resemble each other as the teacher's features of the same cells do.

The released code of 3DRS holds such a term, L1 between the two matrices of cosines, and does not use it.
"""

import torch
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.objective_sections import RelationalSection
from stereopsis.objectives.base import ObjectiveLoss, Randomness, SpatialOutputs, of_scene
from stereopsis.objectives.projected import ProjectedObjective

DEFAULT = RelationalSection()


class Relational(ProjectedObjective):
    """Mean absolute difference of student's and teacher's cosines, over pairs of sampled cells of a scene.

    Per scene, up to ``samples`` cells with a teacher's feature are drawn from all views that are not hidden: no
    matrix is larger than samples x samples. Scenes weigh alike.

    Args:
        dim: width of the visual tokens.
        samples: most cells per scene.
        width: of the space in which tokens are compared.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    name = "relational"
    needs = ("view_features", "view_features_valid")

    def __init__(
        self,
        dim: int,
        *,
        samples: int = DEFAULT.samples,
        width: int = DEFAULT.width,
        weight: float = DEFAULT.weight,
        every: int = DEFAULT.every,
    ) -> None:
        super().__init__(dim, width, weight=weight, every=every)
        if samples < 2:
            raise ValueError(f"objective 'relational': samples must be at least 2, got {samples}")
        self.samples = samples

    def count(self, batch: Batch) -> float:
        """Scenes with at least two cells that the teacher speaks of."""
        valid = batch.targets["view_features_valid"].flatten(1).sum(1)
        cells = torch.zeros(len(batch.scene_ids), dtype=valid.dtype, device=valid.device)
        return float((cells.index_add(0, batch.layout.scene, valid) >= 2).sum())

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Sum over scenes of the mean absolute difference of the cosines; the metric is their correlation."""
        features = self.directions(outputs)
        teacher = batch.targets["view_features"].flatten(0, 2)
        usable = batch.targets["view_features_valid"] & ~outputs.hidden[:, None, None]
        scene = batch.layout.scene[:, None, None].expand_as(usable)
        losses, correlations = [], []
        for number in range(len(batch.scene_ids)):
            cells = (usable & (scene == number)).flatten().nonzero().flatten()
            order = torch.randperm(len(cells), generator=of_scene(generator, number))
            cells = cells[order[: self.samples].to(cells.device)]
            if len(cells) < 2:
                continue
            student = features[cells]
            wanted = functional.normalize(teacher[cells].to(student.dtype), dim=-1, eps=1e-6)
            pairs = torch.triu_indices(len(cells), len(cells), offset=1, device=cells.device)
            ours, theirs = ((x @ x.T)[pairs[0], pairs[1]] for x in (student, wanted))
            losses.append((ours - theirs).abs().mean())
            correlations.append(_correlation(ours.detach(), theirs))
        count = self.count(batch)
        if not losses:
            return ObjectiveLoss(sum=self.connected_zero(outputs), count=count)
        metrics = {"correlation": sum(correlations) / len(correlations)}
        return ObjectiveLoss(sum=torch.stack(losses).sum(), count=count, metrics=metrics)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
