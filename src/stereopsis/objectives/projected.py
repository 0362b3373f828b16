"""What objectives share that compare tokens in a space of their own: a small head, zeros that stay connected."""

import abc
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stereopsis.objectives.base import BuildContext, Objective, SpatialOutputs


class ProjectedObjective(Objective, abc.ABC):
    """An objective whose head maps visual tokens to directions that are compared with each other.

    Args:
        dim: width of the visual tokens.
        width: of the space in which tokens are compared.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    def __init__(self, dim: int, width: int, *, weight: float, every: int) -> None:
        super().__init__(weight=weight, every=every)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, width))

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> Objective:
        """Build it for the model's width."""
        return cls(context.dim, **options)

    def directions(self, outputs: SpatialOutputs) -> Float[Tensor, "tokens width"]:
        """All visual tokens through the head, of length 1, in float32 or finer."""
        tokens = self.head(outputs.visual.flatten(0, 2).to(self.head.get_parameter("0.weight").dtype))
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        return functional.normalize(tokens, dim=-1, eps=1e-6)

    def connected_zero(self, outputs: SpatialOutputs) -> Float[Tensor, ""]:
        """Zero that is still connected to tokens and head: no process may skip them."""
        return outputs.visual[:0].float().sum() + sum(p.flatten()[:0].float().sum() for p in self.parameters())
