"""An objective of your own in one class, its value checked by hand, and a few steps of training with it.

python examples/06_an_objective_of_your_own.py

The objective: from its output at a visual token, the model must tell how high above the floor that cell lies. With
`positions: none` it is told nothing about places, so the height has to be seen.
"""

import torch
from torch import nn

from stereopsis.data.batch import Batch
from stereopsis.objectives import Objective, ObjectiveLoss, Randomness, SpatialOutputs
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.packs.build import build_pack
from stereopsis.scenes.prepare import prepared_room
from stereopsis.training.build import build_model
from stereopsis.training.recipe import parse_recipe


class Height(Objective):
    """Absolute error of the predicted height of each cell, metres.

    T_i = nothing is hidden, F(T_o(I)) = measured heights, J = one linear layer, D = absolute difference.

    Args:
        dim: width of the visual tokens.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    name = "height"

    def __init__(self, dim: int, *, weight: float = 1.0, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)
        self.head = nn.Linear(dim, 1)

    def count(self, batch: Batch) -> float:
        """Number of cells whose place is known."""
        return float(batch.coordinates_valid.sum())

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Summed error."""
        known = batch.coordinates_valid
        predicted = self.head(outputs.visual[known])[:, 0]
        error = (predicted - batch.coordinates[known][:, 2]).abs()
        return ObjectiveLoss(sum=error.sum(), count=self.count(batch))


recipe = parse_recipe({"name": "mine", "model": {"positions": "none"}, "objectives": {"text": {}}})
model = build_model(recipe)
config = model.pack_config(views=8)
batch = model.collator()([build_pack(prepared_room(seed), config) for seed in (0, 1)])

objective = Height(model.adapter.dim)
model.objectives = ObjectiveSet({"height": objective})

# By hand: a head that always says 1 m errs by the mean distance of the true heights from 1 m.
with torch.no_grad():
    objective.head.weight.zero_()
    objective.head.bias.fill_(1.0)
    loss = model(batch, due=("height",), seed=0)["height"]
    heights = batch.coordinates[batch.coordinates_valid][:, 2]
    print(f"always 1 m: {float(loss.sum) / loss.count:.4f} m, by hand {float((heights - 1).abs().mean()):.4f} m")

optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for step in range(15):
    loss = model(batch, due=model.objectives.due(step), seed=step)["height"]
    mean = loss.sum / loss.count
    mean.backward()
    optimiser.step()
    optimiser.zero_grad()
    if step % 5 == 4:
        print(f"step {step + 1}: {mean.detach():.4f} m over {loss.count:.0f} cells")
