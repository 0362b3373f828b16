"""Fresh reconstruction heads on a frozen model whose outputs are computed once: many updates for little work."""

from collections.abc import Sequence

import torch

from stereopsis.data.batch import Batch
from stereopsis.data.pack import ScenePack
from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.base import SpatialOutputs
from stereopsis.objectives.reconstruction import CrossView
from stereopsis.training.build import build_objectives
from stereopsis.training.posthoc_heads import reconstructions_only
from stereopsis.training.recipe import Recipe


class RememberedOutputs:
    """What a frozen model outputs at its visual tokens for some scenes, each under several maskings, in half precision.

    Args:
        model: with the objectives that hide views; nothing of it is trained.
        packs: with latent targets.
        masks: maskings of every scene.
        scenes: scenes per batch.
        due: objectives that hide something.
    """

    def __init__(
        self, model: SpatialModel, packs: Sequence[ScenePack], *, masks: int, scenes: int, due: tuple[str, ...]
    ) -> None:
        collate = model.collator()
        bare = [pack.replace(conversations=()) for pack in packs]
        self._kept: list[tuple[Batch, SpatialOutputs]] = []
        with torch.no_grad():
            for masking in range(masks):
                for first in range(0, len(bare), scenes):
                    batch = collate(bare[first : first + scenes])
                    generator = torch.Generator().manual_seed(masking * len(bare) + first)
                    outputs = model.outputs(batch.to(model.device), due, generator)
                    kept = SpatialOutputs(visual=outputs.visual.half().cpu(), hidden=outputs.hidden.cpu())
                    self._kept.append((batch, kept))

    def draw(self, generator: torch.Generator) -> tuple[Batch, SpatialOutputs]:
        """A random batch and what the model said to it."""
        batch, outputs = self._kept[int(torch.randint(len(self._kept), (1,), generator=generator))]
        return batch, SpatialOutputs(visual=outputs.visual.float(), hidden=outputs.hidden)


def fit_to_frozen(
    model: SpatialModel,
    packs: Sequence[ScenePack],
    recipe: Recipe,
    *,
    steps: int,
    scenes: int = 8,
    masks: int = 2,
    mask_token: torch.Tensor | None = None,
) -> list[float]:
    """Give a model fresh heads of the recipe's reconstruction objectives, and fit them to its frozen outputs.

    The mask token is not fitted, since the outputs are computed with it: it is the given one, or the mean visual token
    of the first scenes, a neutral vector to a model that has never seen anything hidden.

    Args:
        model: any; objectives that it has are replaced.
        packs: with latent targets.
        recipe: whose reconstruction objectives and denoiser are built, and whose head rate and seed are used.
        steps: updates.
        scenes: per update.
        masks: maskings of every scene that are remembered.
        mask_token: [dim] what the model was trained to see in place of hidden views.

    Returns:
        The summed loss of every update.

    Raises:
        RecipeError: the recipe reconstructs nothing, or the packs lack a target.
    """
    plan = reconstructions_only(recipe)
    collate = model.collator()
    first = collate([pack.replace(conversations=()) for pack in packs[:scenes]])
    model.objectives = None
    model.requires_grad_(False).eval()
    objectives = build_objectives(plan, model.adapter.dim, first.targets)
    objectives.check(first)
    if "cross_view" in objectives:
        hiding = objectives["cross_view"]
        assert isinstance(hiding, CrossView)
        with torch.no_grad():
            if mask_token is None:
                mask_token = model.visual_inputs(first.to(model.device)).tokens.flatten(0, 2).mean(0)
            hiding.mask_token.copy_(mask_token)
        hiding.mask_token.requires_grad_(False)
    model.objectives = objectives
    names = tuple(name for name, _ in objectives)
    remembered = RememberedOutputs(model, packs, masks=masks, scenes=scenes, due=names)
    trained = [parameter for parameter in objectives.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    others = [parameter for parameter in trained if parameter.ndim != 2]
    rate = plan.training.head_rate
    optimizers: tuple[torch.optim.Optimizer, ...] = (
        torch.optim.Muon(matrices, lr=rate, adjust_lr_fn="match_rms_adamw", weight_decay=0.0),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0),
    )
    schedules = [torch.optim.lr_scheduler.OneCycleLR(o, rate, total_steps=steps, pct_start=0.1) for o in optimizers]
    generator = torch.Generator().manual_seed(plan.seed)
    losses: list[float] = []
    for _ in range(steps):
        batch, outputs = remembered.draw(generator)
        found = objectives.losses(outputs, batch, names, generator)
        total = torch.stack([objectives[name].weight * each.sum / max(each.count, 1.0) for name, each in found.items()])
        for optimizer in optimizers:
            optimizer.zero_grad()
        total.sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        losses.append(float(total.detach().sum()))
    model.eval()
    return losses
