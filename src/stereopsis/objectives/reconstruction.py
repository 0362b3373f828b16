"""Reconstruction objectives: a denoiser, conditioned on the visual tokens' outputs, restores a VAE's latents.

Ross3D section 3: vanilla (a view from its own tokens), cross-view (hidden views from the visible ones) and
bird's-eye (the scene from above, from all visible views). All three share one denoiser and differ in what is
hidden, in the target and in which tokens condition which target.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.layout import VisualLayout
from stereopsis.data.pack import GROUND
from stereopsis.objective_sections import BirdsEyeSection, CrossViewSection, VanillaSection
from stereopsis.objectives.base import BuildContext, Masking, Objective, Randomness, SpatialOutputs, of_scene
from stereopsis.objectives.denoiser_network import Denoiser, Kind
from stereopsis.objectives.plan import DenoisingPlan, SceneTargets, each_from_itself, kept_views
from stereopsis.objectives.pose import CameraConditioning, GroundConditioning
from stereopsis.objectives.reconstruction_base import ReconstructionObjective

CONDITIONINGS = ("released", "masked_positions", "pose")
GROUND_CONDITIONINGS = ("released", "pose")

VANILLA, CROSS_VIEW, BIRDS_EYE = VanillaSection(), CrossViewSection(), BirdsEyeSection()


class VanillaReconstruction(ReconstructionObjective):
    """Each view from its own tokens; nothing is hidden (T_i, T_o identity; Ross3D's first ablation).

    A random subset of `ratio` of each scene's views, at least one, bounds the cost. Views that another
    objective hid in this pass are taken only where the visible ones do not suffice.

    Args:
        denoiser: see `ReconstructionObjective`.
        ratio: share of the views, in (0, 1].
        shared: what every reconstruction objective takes; see `ReconstructionObjective`.
    """

    name = "vanilla"
    needs = ("view_latents",)

    def __init__(self, denoiser: Denoiser, *, ratio: float = VANILLA.ratio, **shared: Any) -> None:
        super().__init__(denoiser, **shared)
        if not 0 < ratio <= 1:
            raise ValueError(f"objective 'vanilla': ratio must lie in (0, 1], got {ratio}")
        self.ratio = ratio

    def chosen_views(self, views: int) -> int:
        """How many of a scene's views are reconstructed."""
        return min(views, max(1, int(views * self.ratio + 1e-9)))

    def count(self, batch: Batch) -> float:
        """Cells of the chosen views."""
        rows, cols = self.denoiser.grid("view")
        return float(rows * cols * sum(self.chosen_views(len(views)) for views in self.active_views(batch) if views))

    def training_targets(
        self, scene: int, views: list[int], hidden: list[bool], batch: Batch, generator: torch.Generator
    ) -> SceneTargets:
        """A random subset of the views, visible ones first."""
        order = [views[i] for i in torch.randperm(len(views), generator=generator).tolist()]
        chosen = tuple(sorted(order, key=lambda view: hidden[view])[: self.chosen_views(len(views))])
        return each_from_itself(chosen)

    def picture_targets(self, scene: int, views: list[int], hidden: list[bool], batch: Batch) -> SceneTargets:
        """Every view."""
        return each_from_itself(tuple(views))


class CrossView(ReconstructionObjective):
    """Hidden views from the visible ones (Ross3D section 3; released interval: every 4th optimiser step).

    Args:
        denoiser: see `ReconstructionObjective`.
        ratio: share of the views that is hidden (the paper's gamma); int(V (1 - ratio)), at least one, stay.
        repeats: how often each target is used per pass, each time with a new timestep and noise; None = V //
            hidden views, as released.
        conditioning: "released" pools the tokens of all visible views of the scene, the same for every
            hidden view; "masked_positions" (the paper's formula) takes the outputs at the hidden view's own
            positions; "pose" (ours) pools the visible views' tokens by queries that know the hidden view's camera.
        dim: width of the tokens that go into the language model; None = the denoiser's condition_dim.
        shared: what every reconstruction objective takes; see `ReconstructionObjective`.
    """

    name = "cross_view"
    needs = ("view_latents",)

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        ratio: float = CROSS_VIEW.ratio,
        repeats: int | None = CROSS_VIEW.repeats,
        conditioning: str = CROSS_VIEW.conditioning,
        dim: int | None = None,
        every: int = CROSS_VIEW.every,
        **shared: Any,
    ) -> None:
        super().__init__(denoiser, every=every, **shared)
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
        self.pose = None
        if conditioning == "pose":
            self.pose = CameraConditioning(denoiser.config.width, denoiser.z_embedder_view.heads).to(denoiser.dtype)

    @classmethod
    def from_recipe(cls, context: BuildContext, **options: Any) -> Objective:
        """Build it around the run's denoiser, with a mask token of the model's width."""
        return super().from_recipe(context, dim=context.dim, **options)

    def repeats_of(self, views: int, hidden: int) -> int:
        """How often each hidden view of a scene is a target."""
        return views // hidden if self.repeats is None else self.repeats

    def count(self, batch: Batch) -> float:
        """Cells of the views that `mask` hides, times their repeats."""
        rows, cols = self.denoiser.grid("view")
        targets = 0
        for views in self.active_views(batch):
            n_hidden = len(views) - kept_views(len(views), self.ratio)
            targets += n_hidden * self.repeats_of(len(views), n_hidden) if n_hidden else 0
        return float(rows * cols * targets)

    def mask(
        self, tokens: Float[Tensor, "views rows cols dim"], layout: VisualLayout, generator: Randomness
    ) -> Masking:
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
            order = torch.randperm(len(views), generator=of_scene(generator, sample))
            hidden[views[order[kept_views(len(views), self.ratio) :]]] = True
        hidden = hidden.to(tokens.device)
        edited = torch.where(hidden[:, None, None, None], self.mask_token.to(tokens.dtype), tokens)
        return Masking(tokens=edited, hidden=hidden)

    def _targets(self, views: list[int], hidden: list[bool], repeats: int | None) -> SceneTargets:
        masked = tuple(view for view in views if hidden[view])
        if not masked:
            return SceneTargets()
        repeats = self.repeats_of(len(views), len(masked)) if repeats is None else repeats
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
                f"hidden, expected {expected}; apply this objective's mask() in the same forward pass"
            )
        return self._targets(views, hidden, None)

    def condition(
        self, plan: DenoisingPlan, outputs: SpatialOutputs, batch: Batch
    ) -> Float[Tensor, "targets cells width"]:
        """Pooled tokens; with "pose", by queries of each target's own camera."""
        if self.pose is None:
            return super().condition(plan, outputs, batch)
        return self.pose(self.denoiser, plan, outputs, batch)

    def picture_targets(self, scene: int, views: list[int], hidden: list[bool], batch: Batch) -> SceneTargets:
        """The scene's hidden views, in order of their index in the batch."""
        return self._targets(views, hidden, 1)


class BirdsEye(ReconstructionObjective):
    """The whole scene from above, from the tokens of all visible views (Ross3D's global view).

    Void cells are left out.

    Args:
        denoiser: see `ReconstructionObjective`; must have a bird's-eye part.
        repeats: how often each scene is used per pass, each time with a new timestep and noise.
        conditioning: "released" pools by learned queries, the same in every scene; "pose" (ours) by queries that know
            where on the floor each cell lies.
        shared: what every reconstruction objective takes; see `ReconstructionObjective`.
    """

    name = "birds_eye"
    needs: tuple[str, ...] = ("birdseye_latents", "birdseye_valid")
    kind: Kind = "birdseye"
    latents_key = "birdseye_latents"

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        repeats: int = BIRDS_EYE.repeats,
        conditioning: str = BIRDS_EYE.conditioning,
        **shared: Any,
    ) -> None:
        super().__init__(denoiser, **shared)
        if repeats < 1:
            raise ValueError(f"objective 'birds_eye': repeats must be >= 1, got {repeats}")
        if conditioning not in GROUND_CONDITIONINGS:
            known = ", ".join(GROUND_CONDITIONINGS)
            raise ValueError(f"objective 'birds_eye': unknown conditioning '{conditioning}'; known: {known}")
        self.repeats = repeats
        self.place = None
        if conditioning == "pose":
            self.needs = (*self.needs, GROUND)
            self.place = GroundConditioning(denoiser.config.width, denoiser.z_embedder_bev.heads).to(denoiser.dtype)

    def condition(
        self, plan: DenoisingPlan, outputs: SpatialOutputs, batch: Batch
    ) -> Float[Tensor, "targets cells width"]:
        """Pooled tokens; with "pose", by queries at each cell's place."""
        if self.place is None:
            return super().condition(plan, outputs, batch)
        return self.place(self.denoiser, plan, outputs, batch)

    def count(self, batch: Batch) -> float:
        """Cells of the bird's-eye views that are not void, times the repeats."""
        valid = batch.targets["birdseye_valid"].flatten(1).sum(dim=1).tolist()
        return float(sum(n for n, views in zip(valid, self.active_views(batch), strict=True) if views)) * self.repeats

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
