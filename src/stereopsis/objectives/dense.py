"""What objectives share that predict something of every visual token's cell, or of every view."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS
from stereopsis.objective_sections import DenseSection
from stereopsis.objectives.base import BuildContext, Objective, ObjectiveLoss, Randomness, SpatialOutputs

Projector = Literal["mlp", "conv"]

DEFAULT = DenseSection()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellTargets:
    """What the heads must predict.

    Attributes:
        values: [views rows cols channels]; what stands where ``valid`` is False is never read.
        valid: [views rows cols] which cells have a target.
    """

    values: Float[Tensor, "views rows cols channels"]
    valid: Bool[Tensor, "views rows cols"]


class DenseObjective(Objective, abc.ABC):
    """A small head on each visual token predicts what its cell should be.

    Views that another objective hid in this pass are left out: the rest of their scene then weighs correspondingly
    more, so that the scene's mean, and the count, which is known before anything is hidden, keep their meaning.

    Args:
        dim: width of the visual tokens.
        channels: of the target.
        outputs: of the heads, where these say it in other numbers than the target; None = as many.
        layers: whose outputs the heads read, -1 = the last, negative numbers count from the end; several have a head
            each, and their losses are averaged.
        projector: "mlp" reads each token by itself (D -> 2D -> channels); "conv" is one 3x3 convolution over each
            view's grid, zeros around it (iREPA).
        object_weight: a cell whose mean 3D point lies in a candidate box counts so many times as much as another; 1
            makes no difference (and needs no points).
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        outputs: int | None = None,
        layers: tuple[int, ...] = DEFAULT.layers,
        projector: Projector = DEFAULT.projector,
        object_weight: float = DEFAULT.object_weight,
        weight: float = DEFAULT.weight,
        every: int = DEFAULT.every,
    ) -> None:
        super().__init__(weight=weight, every=every)
        if not layers or len(set(layers)) < len(layers):
            raise ValueError(f"objective '{self.name}': layers must name at least one layer, each once, got {layers}")
        if object_weight <= 0:
            raise ValueError(f"objective '{self.name}': object_weight must be positive, got {object_weight}")
        self.channels, self.projector, self.object_weight = channels, projector, object_weight
        self.read = tuple(layers)
        self.layers = tuple(layer for layer in layers if layer != -1)
        if object_weight != 1 and POINTS not in self.needs:
            self.needs = (*self.needs, POINTS)
        self.head = _head(dim, outputs or channels, projector)
        self.more_heads = nn.ModuleList(_head(dim, outputs or channels, projector) for _ in layers[1:])

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> Objective:
        """Build it for the model's width."""
        return cls(context.dim, **options)

    @abc.abstractmethod
    def targets(self, batch: Batch) -> CellTargets:
        """What the heads must predict on this batch."""

    @abc.abstractmethod
    def errors(
        self, predicted: Float[Tensor, "tokens outputs"], wanted: Float[Tensor, "tokens channels"]
    ) -> Float[Tensor, "tokens"]:
        """What each token's error costs."""

    def figures(
        self, predicted: Float[Tensor, "tokens outputs"], wanted: Float[Tensor, "tokens channels"]
    ) -> Mapping[str, float]:
        """What is worth logging of detached predictions; averaged over the layers."""
        return {}

    def tokens(self, states: Float[Tensor, "views rows cols dim"]) -> Float[Tensor, "views r c dim"]:
        """What the heads read of a layer's outputs; the default is every token."""
        return states

    def count(self, batch: Batch) -> float:
        """Number of cells that have a target, those of objects by their weight."""
        return float(self._weights(batch, self.targets(batch).valid).sum())

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Summed error, averaged over the layers.

        Raises:
            ValueError: the target's grid or channels differ from the tokens' grid or the head's output.
        """
        targets = self.targets(batch)
        read = self.tokens(outputs.visual)
        if targets.values.shape != (*read.shape[:3], self.channels) or targets.valid.shape != read.shape[:3]:
            raise ValueError(
                f"objective '{self.name}': the target has shape {tuple(targets.values.shape)} (validity "
                f"{tuple(targets.valid.shape)}), but the tokens and the head "
                f"ask for {(*read.shape[:3], self.channels)} "
                "(views, rows, cols, channels); pool the target to the token grid, or build the objective for it"
            )
        weights = self._weights(batch, targets.valid)
        used = targets.valid & ~outputs.hidden[:, None, None]
        count = float(weights.sum())
        if not bool(used.any()):
            idle = [self._predicted(layer, head, outputs, used) for layer, head in self._heads()]  # of no token: zero
            return ObjectiveLoss(sum=torch.stack([each.float().sum() for each in idle]).sum(), count=count)
        share = token_shares(weights, used, batch.layout.scene)
        totals, figures = [], []
        for layer, head in self._heads():
            predicted = self._predicted(layer, head, outputs, used)
            predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
            wanted = targets.values[used].to(predicted.dtype)
            totals.append((self.errors(predicted, wanted) * share.to(predicted.dtype)).sum())
            figures.append(self.figures(predicted.detach(), wanted))
        metrics = {key: sum(each[key] for each in figures) / len(figures) for key in figures[0]}
        return ObjectiveLoss(sum=torch.stack(totals).mean(), count=count, metrics=metrics)

    def _weights(self, batch: Batch, valid: Bool[Tensor, "views r c"]) -> Float[Tensor, "views r c"]:
        """What each cell counts: nothing without a target, more where an object is."""
        weights = valid.to(torch.float32)
        if self.object_weight == 1:
            return weights
        return weights * torch.where(object_cells(batch), self.object_weight, 1.0)

    def _heads(self) -> Iterator[tuple[int, nn.Module]]:
        return zip(self.read, (self.head, *self.more_heads), strict=True)

    def _predicted(
        self, layer: int, head: nn.Module, outputs: SpatialOutputs, used: Bool[Tensor, "views r c"]
    ) -> Float[Tensor, "used_tokens outputs"]:
        states = self.tokens(outputs.at(layer)).to(next(head.parameters()).dtype)
        if self.projector == "mlp":
            return head(states[used])
        return head(states.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[used]


def _head(dim: int, channels: int, projector: Projector) -> nn.Module:
    if projector == "conv":
        return nn.Conv2d(dim, channels, 3, padding=1)
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, channels))


def token_shares(
    weights: Float[Tensor, "views rows cols"], used: Bool[Tensor, "views rows cols"], scene: Tensor
) -> Float[Tensor, "used_tokens"]:
    """Weight of each used token: its own, times its scene's over that of its scene's used tokens.

    Args:
        weights: of all tokens, 0 for those without a target.
        used: which tokens are compared.
        scene: which scene each view belongs to.
    """
    of_scene = scene[:, None, None].expand_as(used)
    scenes = int(scene.max()) + 1
    whole = weights.new_zeros(scenes).index_add(0, of_scene.flatten(), weights.flatten())
    kept = weights.new_zeros(scenes).index_add(0, of_scene[used], weights[used])
    return weights[used] * (whole / kept.clamp(min=1e-12))[of_scene[used]]


def object_cells(batch: Batch) -> Bool[Tensor, "views rows cols"]:
    """Cells whose mean 3D point lies in one of their scene's candidate boxes."""
    points = batch.targets[POINTS]
    found = torch.zeros(points.shape[:3], dtype=torch.bool, device=points.device)
    for number, proposals in enumerate(batch.proposals):
        if not len(proposals.boxes):
            continue
        views = batch.layout.scene == number
        offset = (points[views][..., None, :] - proposals.boxes[:, :3].to(points)).abs()
        found[views] = (offset <= proposals.boxes[:, 3:].to(points) / 2).all(-1).any(-1)
    return found
