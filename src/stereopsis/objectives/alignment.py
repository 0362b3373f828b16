"""Feature alignment (3DRS): the visual tokens' outputs must predict a 3D foundation model's features."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.errors import did_you_mean
from stereopsis.objectives.base import BuildContext, Objective, ObjectiveLoss, Randomness, SpatialOutputs

DISTANCES = ("squared", "cosine", "l2")


def feature_distance(
    student: Float[Tensor, "tokens channels"], teacher: Float[Tensor, "tokens channels"], distance: str
) -> Float[Tensor, "tokens"]:
    """Distance of L2-normalised features, token by token.

    Args:
        student: predicted features.
        teacher: what they should be.
        distance: "squared" = |s - t|^2 summed over channels = 2 - 2cos (released); "cosine" = 1 - cos;
            "l2" = |s - t|.
    """
    student = functional.normalize(student, dim=-1, eps=1e-6)
    teacher = functional.normalize(teacher, dim=-1, eps=1e-6)
    if distance == "cosine":
        return 1 - (student * teacher).sum(dim=-1)
    if distance == "l2":
        return torch.linalg.vector_norm(student - teacher, dim=-1)
    return (student - teacher).square().sum(dim=-1)


class FeatureAlignment(Objective):
    """An MLP on each visual token predicts the teacher's feature of the same cell (3DRS section 3).

    Tokens count where "view_features_valid" holds. Views that another objective hid in this pass are left
    out: the rest of their scene then weighs correspondingly more, so that the scene's mean, and the count,
    which is known before anything is hidden, keep their meaning.

    Args:
        dim: width of the visual tokens.
        features: channels of the teacher.
        distance: see `feature_distance`.
        layers: whose outputs are aligned, -1 = the last (3DRS's choice), negative numbers count from the end; several
            have a head each, and their losses are averaged.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    name = "alignment"
    needs = ("view_features", "view_features_valid")

    def __init__(
        self,
        dim: int,
        features: int,
        *,
        distance: str = "squared",
        layers: tuple[int, ...] = (-1,),
        weight: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__(weight=weight, every=every)
        if distance not in DISTANCES:
            hint = did_you_mean(distance, DISTANCES)
            raise ValueError(f"objective 'alignment': unknown distance '{distance}'{hint}")
        if not layers or len(set(layers)) < len(layers):
            raise ValueError(f"objective 'alignment': layers must name at least one layer, each once, got {layers}")
        self.distance = distance
        self.aligned = tuple(layers)
        self.layers = tuple(layer for layer in layers if layer != -1)
        self.head = _head(dim, features)
        self.more_heads = nn.ModuleList(_head(dim, features) for _ in layers[1:])

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> Objective:
        """Build it with a head from the model's width to the teacher's channels."""
        return cls(context.dim, context.targets["view_features"].shape[-1], **options)

    def count(self, batch: Batch) -> float:
        """Number of cells for which the teacher has a feature."""
        return float(batch.targets["view_features_valid"].sum())

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Summed distance; the metric is the mean cosine over the supervised tokens.

        Raises:
            ValueError: the teacher's grid or channels differ from the tokens' grid or the head's output.
        """
        teacher, valid = batch.targets["view_features"], batch.targets["view_features_valid"]
        features = len(self.head.get_parameter("2.bias"))
        if teacher.shape != (*outputs.visual.shape[:3], features) or valid.shape != teacher.shape[:3]:
            raise ValueError(
                f"alignment objective: the teacher's features have shape {tuple(teacher.shape)} (validity "
                f"{tuple(valid.shape)}), but the tokens and the head ask for "
                f"{(*outputs.visual.shape[:3], features)} (views, rows, cols, channels); pool the teacher to "
                "the token grid, or build the objective for that teacher"
            )
        used = valid & ~outputs.hidden[:, None, None]
        if not bool(used.any()):
            idle = [self._predicted(layer, head, outputs, used) for layer, head in self._heads()]  # of no token: zero
            return ObjectiveLoss(sum=torch.stack([each.float().sum() for each in idle]).sum(), count=self.count(batch))
        share = token_shares(valid, used, batch.layout.scene)
        totals, cosines = [], []
        for layer, head in self._heads():
            predicted = self._predicted(layer, head, outputs, used)
            predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
            wanted = teacher[used].to(predicted.dtype)
            totals.append((feature_distance(predicted, wanted, self.distance) * share.to(predicted.dtype)).sum())
            cosines.append(float(functional.cosine_similarity(predicted.detach(), wanted, dim=-1).mean()))
        metrics = {"cosine": sum(cosines) / len(cosines)}
        return ObjectiveLoss(sum=torch.stack(totals).mean(), count=self.count(batch), metrics=metrics)

    def _heads(self) -> Iterator[tuple[int, nn.Module]]:
        return zip(self.aligned, (self.head, *self.more_heads), strict=True)

    def _predicted(
        self, layer: int, head: nn.Module, outputs: SpatialOutputs, used: Bool[Tensor, "views rows cols"]
    ) -> Float[Tensor, "used_tokens channels"]:
        return head(outputs.at(layer)[used].to(head.get_parameter("0.weight").dtype))


def _head(dim: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, features))


def token_shares(
    valid: Bool[Tensor, "views rows cols"],
    used: Bool[Tensor, "views rows cols"],
    scene: Tensor,
) -> Float[Tensor, "used_tokens"]:
    """Weight of each used token: its scene's valid over its scene's used tokens (1 if nothing is hidden)."""
    of_scene = scene[:, None, None].expand_as(used)
    scenes = int(scene.max()) + 1
    all_tokens = torch.bincount(of_scene[valid], minlength=scenes)
    used_tokens = torch.bincount(of_scene[used], minlength=scenes)
    return (all_tokens / used_tokens.clamp(min=1))[of_scene[used]]
