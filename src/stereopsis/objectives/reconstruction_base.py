"""What all reconstruction objectives share: conditions from visual tokens, noise, the loss, and sampling.

All random numbers come from the CPU generators that are passed in, drawn scene after scene: with one generator a
batch of two scenes gives what the two would give one after the other, with one per scene what each would give alone.
"""

import abc
import dataclasses
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor

from stereopsis.data.batch import Batch
from stereopsis.errors import did_you_mean
from stereopsis.objective_sections import ReconstructionSection
from stereopsis.objectives.base import BuildContext, Objective, ObjectiveLoss, Randomness, SpatialOutputs, of_scene
from stereopsis.objectives.denoiser_network import Denoiser, Kind
from stereopsis.objectives.noise_process import Process, guided
from stereopsis.objectives.plan import DenoisingPlan, SceneTargets, joined, pointing_scenes, scene_views

LATENTS = ("sample", "mean")
GROUNDING = ("include", "skip")

DEFAULT = ReconstructionSection()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Draws:
    """The random numbers of one scene.

    Attributes:
        t: [targets] timesteps.
        noise: [targets cells channels].
        unconditional: [targets] True for targets that are trained without a condition.
    """

    t: Real[Tensor, "targets"]
    noise: Float[Tensor, "targets cells channels"]
    unconditional: Bool[Tensor, "targets"]


class ReconstructionObjective(Objective):
    """A denoiser restores latents. It is held, not registered: its owner registers it, once.

    The loss is the squared error of what the process asks for (noise, or velocity), averaged over a cell's channels
    and summed over cells; the count is the number of cells.

    Args:
        denoiser: shared by all reconstruction objectives of a model.
        diffusion: the process; the one that the denoiser's config names by default.
        latents: "sample" draws every target anew from the teacher's posterior in each pass (as released; repeats of a
            target share the draw), where the batch holds its spread, the target "..._std"; a teacher without spread
            has one answer. "mean" always takes the posterior's mean.
        grounding: "skip" lets a scene whose conversations in this batch ALL point add nothing, as in the released
            code, where a sample is one conversation; "include" treats all scenes alike. A scene without
            conversations is never skipped.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.

    Raises:
        ValueError: an unknown value.
    """

    kind: Kind = "view"
    latents_key: str = "view_latents"
    denoiser: Denoiser

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        diffusion: Process | None = None,
        latents: str = DEFAULT.latents,
        grounding: str = DEFAULT.grounding,
        weight: float = DEFAULT.weight,
        every: int = DEFAULT.every,
    ) -> None:
        super().__init__(weight=weight, every=every)
        denoiser.grid(self.kind)
        for key, value, known in (("latents", latents, LATENTS), ("grounding", grounding, GROUNDING)):
            if value not in known:
                raise ValueError(f"objective '{self.name}': unknown {key} '{value}'{did_you_mean(value, known)}")
        object.__setattr__(self, "denoiser", denoiser)
        self.diffusion = denoiser.process() if diffusion is None else diffusion
        self.latents, self.grounding = latents, grounding

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> Objective:
        """Build it around the run's denoiser."""
        if not isinstance(context.denoiser, Denoiser):
            raise ValueError(f"objective '{cls.name}' needs a denoiser; give the run a latent teacher")
        return cls(context.denoiser, **options)

    @abc.abstractmethod
    def training_targets(
        self, scene: int, views: list[int], hidden: list[bool], batch: Batch, generator: torch.Generator
    ) -> SceneTargets:
        """Which targets one scene trains on; `hidden` is about every view of the batch."""

    @abc.abstractmethod
    def picture_targets(self, scene: int, views: list[int], hidden: list[bool], batch: Batch) -> SceneTargets:
        """Which targets of one scene are worth a picture, each once."""

    def cell_weights(self, source: Int64[Tensor, "targets"], batch: Batch) -> Float[Tensor, "targets cells"] | None:
        """1 for the cells that count, 0 for the others; None where all count."""
        return None

    def active_views(self, batch: Batch) -> list[list[int]]:
        """Per scene, the indices of its views; none for a scene that adds nothing to this objective."""
        if self.grounding == "include":
            return scene_views(batch)
        skipped = pointing_scenes(batch)
        return [[] if skip else views for views, skip in zip(scene_views(batch), skipped, strict=True)]

    def protected_views(self, batch: Batch) -> Bool[Tensor, "views"] | None:
        """The views of scenes that add nothing: nothing of theirs is hidden for nothing."""
        if self.grounding == "include":
            return None
        skipped = torch.tensor(pointing_scenes(batch), dtype=torch.bool, device=batch.layout.scene.device)
        return skipped[batch.layout.scene]

    def _latents(self, batch: Batch) -> Float[Tensor, "items cells channels"]:
        """The teacher's latents, cells flattened row by row; the teacher itself learns nothing from them."""
        latents = batch.targets[self.latents_key]
        wanted = (*self.denoiser.grid(self.kind), self.denoiser.config.channels)
        if latents.ndim != 4 or latents.shape[1:] != wanted:
            raise ValueError(
                f"objective '{self.name}': batch.targets['{self.latents_key}'] has shape "
                f"{tuple(latents.shape)}, but the denoiser was built for {wanted} (rows, cols, channels) per "
                "target; build DenoiserConfig from the latent teacher's grid and channels, or prepare the "
                "latents again"
            )
        return latents.detach().flatten(1, 2)

    def _spread(self, batch: Batch) -> Float[Tensor, "items cells channels"] | None:
        """Standard deviation of the teacher's posterior; None where the mean is taken."""
        key = f"{self.latents_key}_std"
        if self.latents == "mean" or key not in batch.targets:
            return None
        mean, std = batch.targets[self.latents_key], batch.targets[key]
        if std.shape != mean.shape:
            raise ValueError(
                f"objective '{self.name}': batch.targets['{key}'] has shape {tuple(std.shape)}, its mean "
                f"{tuple(mean.shape)}; prepare the latents again"
            )
        return std.detach().flatten(1, 2)

    def _draws(self, targets: int, cells: int, channels: int, generator: torch.Generator) -> _Draws:
        t, noise = self.diffusion.draw(targets, cells, channels, generator)
        unconditional = torch.zeros(targets, dtype=torch.bool)
        if self.denoiser.config.dropout:
            unconditional = torch.rand(targets, generator=generator) < self.denoiser.config.dropout
        return _Draws(t=t, noise=noise, unconditional=unconditional)

    def condition(
        self, plan: DenoisingPlan, outputs: SpatialOutputs, batch: Batch
    ) -> Float[Tensor, "targets cells width"]:
        """What the denoiser is told about each target: tokens of the plan's views, pooled."""
        visual = outputs.visual
        tokens = visual.flatten(1, 2)[plan.views].flatten(1, 2)
        valid = plan.views_valid.repeat_interleave(visual.shape[1] * visual.shape[2], dim=1)
        return self.denoiser.condition(tokens, valid, self.kind)[plan.owner]

    def _zero(self, outputs: SpatialOutputs) -> Float[Tensor, ""]:
        """Zero, from a pass over no targets: it uses what any other pass uses, and processes must agree on that."""
        (rows, cols), channels = self.denoiser.grid(self.kind), self.denoiser.config.channels
        tokens = outputs.visual[:0].flatten(1, 2)
        condition = self.denoiser.condition(tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool), self.kind)
        noisy = condition.new_zeros(0, rows * cols, channels)
        predicted = self.denoiser(noisy, condition.new_zeros(0), condition, self.kind)
        zeros = [p.flatten()[:0].sum().to(predicted.dtype) for p in self.parameters() if p.requires_grad]
        return torch.stack([predicted.sum(), *zeros]).sum()

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: Randomness) -> ObjectiveLoss:
        """Summed prediction error.

        Raises:
            ValueError: the latents' grid or channels are not the denoiser's.
        """
        latents, spread = self._latents(batch), self._spread(batch)
        device, dtype = outputs.visual.device, self.denoiser.dtype
        hidden = outputs.hidden.tolist()
        parts, draws, shift = [], [], torch.zeros(latents.shape)
        for scene, views in enumerate(self.active_views(batch)):
            own = of_scene(generator, scene)
            part = self.training_targets(scene, views, hidden, batch, own) if views else SceneTargets()
            chosen = sorted(set(part.source))
            if spread is not None:
                shift[chosen] = torch.randn(len(chosen), *latents.shape[1:], generator=own)
            parts.append(part)
            draws.append(self._draws(len(part.source), latents.shape[1], latents.shape[2], own))
        plan = joined(parts, device)
        count = self.count(batch)
        if len(plan.source) == 0 or count == 0:
            return ObjectiveLoss(sum=self._zero(outputs), count=count)
        x0 = latents[plan.source].to(dtype)
        if spread is not None:
            x0 = x0 + spread[plan.source].to(dtype) * shift.to(device, dtype)[plan.source]
        t = torch.cat([draw.t for draw in draws]).to(device)
        noise = torch.cat([draw.noise for draw in draws]).to(device, dtype)
        unconditional = torch.cat([draw.unconditional for draw in draws]).to(device)
        condition = self.condition(plan, outputs, batch)
        condition = torch.where(unconditional[:, None, None], condition.new_zeros(()), condition)
        predicted = self.denoiser(self.diffusion.add_noise(x0, noise, t), t, condition, self.kind)
        wanted = self.diffusion.target(x0, noise)
        error = (predicted.to(torch.promote_types(predicted.dtype, torch.float32)) - wanted).square().mean(dim=-1)
        weights = self.cell_weights(plan.source, batch)
        return ObjectiveLoss(sum=error.sum() if weights is None else (error * weights).sum(), count=count)

    @torch.no_grad()
    def reconstruct(
        self,
        outputs: SpatialOutputs,
        batch: Batch,
        *,
        generator: torch.Generator,
        steps: int = 50,
        guidance: float = 1.0,
    ) -> Float[Tensor, "targets r c channels"]:
        """Sample the latents of this objective's targets from the denoiser, for pictures.

        Args:
            outputs: of a forward pass, with `hidden` as the objective's own `mask` left it.
            batch: the batch of that pass.
            generator: CPU generator of the starting noise.
            steps: sampling steps.
            guidance: classifier-free guidance; 1 = none.

        Raises:
            ValueError: guidance is asked of a denoiser that was never trained without a condition.
        """
        if guidance != 1.0 and not self.denoiser.config.dropout:
            raise ValueError(
                f"objective '{self.name}': guidance {guidance} needs a denoiser that was also trained without a "
                "condition; train with 'dropout' in the recipe's 'denoiser:' section, or sample with guidance 1"
            )
        hidden = outputs.hidden.tolist()
        parts = [self.picture_targets(s, v, hidden, batch) for s, v in enumerate(scene_views(batch))]
        plan = joined(parts, outputs.visual.device)
        grid, channels = self.denoiser.grid(self.kind), self.denoiser.config.channels
        if len(plan.source) == 0:
            return outputs.visual.new_zeros(0, *grid, channels)
        cond = self.condition(plan, outputs, batch)
        uncond = torch.zeros_like(cond)

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            informed = self.denoiser(noisy, t, cond, self.kind)
            if guidance == 1.0:
                return informed
            return guided(informed, self.denoiser(noisy, t, uncond, self.kind), guidance)

        cells = self.diffusion.sample(
            predict,
            (len(plan.source), grid[0] * grid[1], channels),
            generator=generator,
            steps=steps,
            device=outputs.visual.device,
        )
        return cells.unflatten(1, grid)
