"""Reconstruction objectives: a denoiser, conditioned on the visual tokens' outputs, restores a VAE's latents.

Ross3D section 3: vanilla (a view from its own tokens), cross-view (hidden views from the visible ones) and
bird's-eye (the scene from above, from all visible views). All three share one denoiser and differ in what is
hidden, in the target and in which tokens condition which target.

All random numbers come from the CPU generator that is passed in, drawn scene after scene: a batch of two
scenes gives what the two would give one after the other.
"""

import abc

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.layout import VisualLayout
from stereopsis.objectives.base import Corruption, Objective, ObjectiveLoss, SpatialOutputs
from stereopsis.objectives.denoiser import Denoiser, Kind
from stereopsis.objectives.diffusion import CosineDiffusion
from stereopsis.objectives.plan import (
    Plan,
    SceneTargets,
    each_from_itself,
    joined,
    kept_views,
    scene_views,
)

CONDITIONINGS = ("released", "masked_positions")


class Reconstruction(Objective):
    """What the three objectives share. The denoiser is held, not registered: its owner registers it, once.

    The loss is the squared error of the predicted noise, averaged over a cell's channels and summed over
    cells; the count is the number of cells.

    Args:
        denoiser: shared by all reconstruction objectives of a model.
        diffusion: the process; the released cosine schedule by default.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.
    """

    kind: Kind = "view"
    latents_key: str = "view_latents"
    denoiser: Denoiser

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        diffusion: CosineDiffusion | None = None,
        weight: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__(weight=weight, every=every)
        denoiser.grid(self.kind)
        object.__setattr__(self, "denoiser", denoiser)
        self.diffusion = CosineDiffusion() if diffusion is None else diffusion

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

    def _latents(self, batch: Batch) -> Float[Tensor, "items cells channels"]:
        """The teacher's latents, cells flattened row by row."""
        latents = batch.targets[self.latents_key]
        wanted = (*self.denoiser.grid(self.kind), self.denoiser.config.channels)
        if latents.ndim != 4 or latents.shape[1:] != wanted:
            raise ValueError(
                f"objective '{self.name}': batch.targets['{self.latents_key}'] has shape "
                f"{tuple(latents.shape)}, but the denoiser was built for {wanted} (rows, cols, channels) per "
                "target; build DenoiserConfig from the latent teacher's grid and channels, or prepare the "
                "latents again"
            )
        return latents.flatten(1, 2)

    def _condition(
        self, plan: Plan, visual: Float[Tensor, "views rows cols dim"]
    ) -> Float[Tensor, "targets cells width"]:
        tokens = visual.flatten(1, 2)[plan.views].flatten(1, 2)
        valid = plan.views_valid.repeat_interleave(visual.shape[1] * visual.shape[2], dim=1)
        return self.denoiser.condition(tokens, valid, self.kind)[plan.owner]

    def _zero(self, outputs: SpatialOutputs) -> Float[Tensor, ""]:
        """Zero, connected to the visual tokens, the objective and the denoiser: no rank may skip them."""
        parameters = [p for module in (self, self.denoiser) for p in module.parameters() if p.requires_grad]
        zeros = [p.flatten()[:0].sum() for p in parameters]
        return outputs.visual[:0].to(self.denoiser.dtype).sum() + torch.stack(zeros).sum()

    def loss(self, outputs: SpatialOutputs, batch: Batch, generator: torch.Generator) -> ObjectiveLoss:
        """Summed noise prediction error.

        Raises:
            ValueError: the latents' grid or channels are not the denoiser's.
        """
        latents = self._latents(batch)
        device, dtype = outputs.visual.device, self.denoiser.dtype
        hidden = outputs.hidden.tolist()
        parts, draws = [], []
        for scene, views in enumerate(scene_views(batch)):
            part = self.training_targets(scene, views, hidden, batch, generator)
            parts.append(part)
            draws.append(self.diffusion.draw(len(part.source), latents.shape[1], latents.shape[2], generator))
        plan = joined(parts, device)
        count = self.count(batch)
        if len(plan.source) == 0 or count == 0:
            return ObjectiveLoss(sum=self._zero(outputs), count=count)
        t = torch.cat([t for t, _ in draws]).to(device)
        noise = torch.cat([noise for _, noise in draws]).to(device, dtype)
        noisy = self.diffusion.add_noise(latents[plan.source].to(dtype), noise, t)
        predicted = self.denoiser(noisy, t, self._condition(plan, outputs.visual), self.kind)
        error = (predicted.to(torch.promote_types(predicted.dtype, torch.float32)) - noise).square().mean(dim=-1)
        weights = self.cell_weights(plan.source, batch)
        return ObjectiveLoss(sum=error.sum() if weights is None else (error * weights).sum(), count=count)

    @torch.no_grad()
    def reconstruct(
        self, outputs: SpatialOutputs, batch: Batch, *, generator: torch.Generator, steps: int = 50
    ) -> Float[Tensor, "targets r c channels"]:
        """Sample the latents of this objective's targets from the denoiser, for pictures.

        Args:
            outputs: of a forward pass, with `hidden` as the objective's own `corrupt` left it.
            batch: the batch of that pass.
            generator: CPU generator of the starting noise.
            steps: DDIM steps.
        """
        hidden = outputs.hidden.tolist()
        parts = [self.picture_targets(s, v, hidden, batch) for s, v in enumerate(scene_views(batch))]
        plan = joined(parts, outputs.visual.device)
        grid, channels = self.denoiser.grid(self.kind), self.denoiser.config.channels
        shape = (len(plan.source), grid[0] * grid[1], channels)
        if len(plan.source) == 0:
            return outputs.visual.new_zeros(0, *grid, channels)
        condition = self._condition(plan, outputs.visual)
        cells = self.diffusion.sample(
            lambda noisy, t: self.denoiser(noisy, t, condition, self.kind),
            shape,
            generator=generator,
            steps=steps,
            device=outputs.visual.device,
        )
        return cells.unflatten(1, grid)


class VanillaReconstruction(Reconstruction):
    """Each view from its own tokens; nothing is hidden (T_i, T_o identity; Ross3D's first ablation).

    A random subset of `ratio` of each scene's views, at least one, bounds the cost. Views that another
    objective hid in this pass are taken only where the visible ones do not suffice.

    Args:
        denoiser: as diffusion, weight and every: see `Reconstruction`.
        ratio: share of the views, in (0, 1].
    """

    name = "vanilla"
    needs = ("view_latents",)

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        ratio: float = 0.25,
        diffusion: CosineDiffusion | None = None,
        weight: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__(denoiser, diffusion=diffusion, weight=weight, every=every)
        if not 0 < ratio <= 1:
            raise ValueError(f"objective 'vanilla': ratio must lie in (0, 1], got {ratio}")
        self.ratio = ratio

    def _chosen(self, views: int) -> int:
        return min(views, max(1, int(views * self.ratio + 1e-9)))

    def count(self, batch: Batch) -> float:
        """Cells of the chosen views."""
        rows, cols = self.denoiser.grid("view")
        return float(rows * cols * sum(self._chosen(len(views)) for views in scene_views(batch)))

    def training_targets(
        self, scene: int, views: list[int], hidden: list[bool], batch: Batch, generator: torch.Generator
    ) -> SceneTargets:
        """A random subset of the views, visible ones first."""
        order = [views[i] for i in torch.randperm(len(views), generator=generator).tolist()]
        chosen = tuple(sorted(order, key=lambda view: hidden[view])[: self._chosen(len(views))])
        return each_from_itself(chosen)

    def picture_targets(self, scene: int, views: list[int], hidden: list[bool], batch: Batch) -> SceneTargets:
        """Every view."""
        return each_from_itself(tuple(views))


class CrossView(Reconstruction):
    """Hidden views from the visible ones (Ross3D section 3; released interval: every 4th optimiser step).

    Args:
        denoiser: as diffusion, weight and every: see `Reconstruction`.
        ratio: share of the views that is hidden (the paper's gamma); int(V (1 - ratio)), at least one, stay.
        repeats: how often each target is used per pass, each time with a new timestep and noise; None = V //
            hidden views, as released.
        conditioning: "released" pools the tokens of all visible views of the scene, the same for every
            hidden view; "masked_positions" (the paper's formula) takes the outputs at the hidden view's own
            positions.
        dim: width of the tokens that go into the language model; None = the denoiser's condition_dim.
    """

    name = "cross_view"
    needs = ("view_latents",)

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        ratio: float = 0.25,
        repeats: int | None = None,
        conditioning: str = "released",
        dim: int | None = None,
        diffusion: CosineDiffusion | None = None,
        weight: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__(denoiser, diffusion=diffusion, weight=weight, every=every)
        if conditioning not in CONDITIONINGS:
            raise ValueError(
                f"objective 'cross_view': unknown conditioning '{conditioning}'; known: {', '.join(CONDITIONINGS)}"
            )
        if not 0 < ratio < 1:
            raise ValueError(f"objective 'cross_view': ratio must lie between 0 and 1, got {ratio}")
        if repeats is not None and repeats < 1:
            raise ValueError(f"objective 'cross_view': repeats must be >= 1 or None (V // hidden), got {repeats}")
        self.ratio, self.repeats = ratio, repeats
        self.conditioning = conditioning
        dim = denoiser.config.condition_dim if dim is None else dim
        self.mask_token = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def _repeats(self, views: int, hidden: int) -> int:
        return views // hidden if self.repeats is None else self.repeats

    def count(self, batch: Batch) -> float:
        """Cells of the views that `corrupt` hides, times their repeats."""
        rows, cols = self.denoiser.grid("view")
        targets = 0
        for views in scene_views(batch):
            n_hidden = len(views) - kept_views(len(views), self.ratio)
            targets += n_hidden * self._repeats(len(views), n_hidden) if n_hidden else 0
        return float(rows * cols * targets)

    def corrupt(
        self, tokens: Float[Tensor, "views rows cols dim"], layout: VisualLayout, generator: torch.Generator
    ) -> Corruption:
        """Replace a random share of each scene's views by the mask token; the model adds positions later."""
        if tokens.shape[-1] != len(self.mask_token):
            raise ValueError(
                f"objective 'cross_view': the visual tokens have {tokens.shape[-1]} features, its mask token "
                f"{len(self.mask_token)}; set dim to the width of the language model's input"
            )
        hidden = torch.zeros(len(tokens), dtype=torch.bool)
        scene = layout.scene.cpu()
        for sample in scene.unique().tolist():
            views = torch.nonzero(scene == sample).flatten()
            order = torch.randperm(len(views), generator=generator)
            hidden[views[order[kept_views(len(views), self.ratio) :]]] = True
        hidden = hidden.to(tokens.device)
        edited = torch.where(hidden[:, None, None, None], self.mask_token.to(tokens.dtype), tokens)
        return Corruption(tokens=edited, hidden=hidden)

    def _targets(self, views: list[int], hidden: list[bool], repeats: int | None) -> SceneTargets:
        masked = tuple(view for view in views if hidden[view])
        if not masked:
            return SceneTargets()
        repeats = self._repeats(len(views), len(masked)) if repeats is None else repeats
        if self.conditioning == "masked_positions":
            return each_from_itself(masked, repeats)
        source = masked * repeats
        visible = tuple(view for view in views if not hidden[view])
        return SceneTargets(conditions=(visible,), owner=(0,) * len(source), source=source)

    def training_targets(
        self, scene: int, views: list[int], hidden: list[bool], batch: Batch, generator: torch.Generator
    ) -> SceneTargets:
        """The scene's hidden views, repeated."""
        expected = len(views) - kept_views(len(views), self.ratio)
        found = sum(hidden[view] for view in views)
        if found != expected:
            raise ValueError(
                f"objective 'cross_view': scene '{batch.scene_ids[scene]}' has {found} of {len(views)} views "
                f"hidden, expected {expected}; apply this objective's corrupt() in the same forward pass"
            )
        return self._targets(views, hidden, None)

    def picture_targets(self, scene: int, views: list[int], hidden: list[bool], batch: Batch) -> SceneTargets:
        """The scene's hidden views, in order of their index in the batch."""
        return self._targets(views, hidden, 1)


class BirdsEye(Reconstruction):
    """The whole scene from above, from the tokens of all visible views (Ross3D's global view).

    Void cells are left out.

    Args:
        denoiser: as diffusion, weight and every: see `Reconstruction`; must have a bird's-eye part.
        repeats: how often each scene is used per pass, each time with a new timestep and noise.
    """

    name = "birds_eye"
    needs = ("birdseye_latents", "birdseye_valid")
    kind: Kind = "birdseye"
    latents_key = "birdseye_latents"

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        repeats: int = 1,
        diffusion: CosineDiffusion | None = None,
        weight: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__(denoiser, diffusion=diffusion, weight=weight, every=every)
        if repeats < 1:
            raise ValueError(f"objective 'birds_eye': repeats must be >= 1, got {repeats}")
        self.repeats = repeats

    def count(self, batch: Batch) -> float:
        """Cells of the bird's-eye views that are not void, times the repeats."""
        return float(batch.targets["birdseye_valid"].sum()) * self.repeats

    def training_targets(
        self, scene: int, views: list[int], hidden: list[bool], batch: Batch, generator: torch.Generator
    ) -> SceneTargets:
        """The scene's bird's-eye view, repeated; nothing where it is all void."""
        if not bool(batch.targets["birdseye_valid"][scene].any()):
            return SceneTargets()
        visible = tuple(view for view in views if not hidden[view])
        return SceneTargets(conditions=(visible,), owner=(0,) * self.repeats, source=(scene,) * self.repeats)

    def picture_targets(self, scene: int, views: list[int], hidden: list[bool], batch: Batch) -> SceneTargets:
        """The scene's bird's-eye view, once."""
        visible = tuple(view for view in views if not hidden[view])
        return SceneTargets(conditions=(visible,), owner=(0,), source=(scene,))

    def cell_weights(self, source: Int64[Tensor, "targets"], batch: Batch) -> Float[Tensor, "targets cells"] | None:
        """1 on cells that some view saw."""
        valid = batch.targets["birdseye_valid"]
        if valid.shape != batch.targets["birdseye_latents"].shape[:3]:
            raise ValueError(
                f"objective 'birds_eye': birdseye_valid has shape {tuple(valid.shape)}, but birdseye_latents "
                f"{tuple(batch.targets['birdseye_latents'].shape)}; validity must be given per latent cell"
            )
        return valid.flatten(1)[source].to(self.denoiser.dtype)
