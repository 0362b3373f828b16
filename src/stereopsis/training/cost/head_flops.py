"""Operations of what stands on the language model's outputs: the grounding head and the objectives' heads."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.camera_pose import CameraPose
from stereopsis.objectives.denoiser_network import Denoiser
from stereopsis.objectives.plan import kept_views
from stereopsis.objectives.reconstruction import BirdsEye, CrossView, VanillaReconstruction
from stereopsis.training.cost.units import Flops, SceneLoad, matrices_cost, matrices_of


def hidden_views(members: Mapping[str, nn.Module], scene: SceneLoad) -> int:
    """Views of a scene that the cross-view objective hides where it is active."""
    member = members.get("cross_view")
    return scene.views - kept_views(scene.views, member.ratio) if isinstance(member, CrossView) else 0


def grounding_cost(model: SpatialModel, scenes: Sequence[SceneLoad]) -> Flops:
    """The two MLPs, and the averages over the cells that see each proposal."""
    asked = [s for s in scenes if s.queries]
    if not asked:
        return Flops()
    widest = max(s.proposals for s in scenes) + 1  # the zero target
    cost = matrices_cost(matrices_of([model.grounding.objects]), widest * len(scenes), input_gradient=True)
    cost += matrices_cost(matrices_of([model.grounding.query]), sum(s.queries for s in asked), input_gradient=True)
    rows, cols = model.adapter.encoder_grid
    averaged = 2.0 * model.adapter.dim * rows * cols * sum(s.proposals * s.views for s in scenes)
    return cost + Flops(forward=averaged, backward=averaged)


def objective_cost(model: SpatialModel, member: nn.Module, scenes: Sequence[SceneLoad]) -> Flops:
    """Heads of one objective where it is active."""
    per_view = math.prod(model.adapter.view_grid)
    if isinstance(member, VanillaReconstruction):
        chosen = sum(member.chosen_views(s.views) for s in scenes)
        return _denoising(member.denoiser, "view", targets=chosen, rows=chosen, tokens=per_view)
    if isinstance(member, CrossView):
        cost = Flops()
        for scene in scenes:
            hidden = hidden_views({"cross_view": member}, scene)
            if not hidden:
                continue
            own = member.conditioning == "masked_positions"
            cost += _denoising(
                member.denoiser,
                "view",
                targets=hidden * member.repeats_of(scene.views, hidden),
                rows=hidden if own else 1,
                tokens=per_view if own else per_view * (scene.views - hidden),
                queries=hidden if member.conditioning == "pose" else 1,
            )
            cost += _placed(member.pose, per_view * scene.views)
        return cost
    if isinstance(member, BirdsEye):
        cost = Flops()
        for scene in scenes:
            cost += _denoising(
                member.denoiser, "birdseye", targets=member.repeats, rows=1, tokens=per_view * scene.views
            )
            cost += _placed(member.place, per_view * scene.views)
        return cost
    read = 1 if isinstance(member, CameraPose) else per_view  # a pose is told by the mean of a view's tokens
    return matrices_cost(matrices_of([member]), read * sum(s.views for s in scenes), input_gradient=True)


def _placed(module: nn.Module | None, tokens: int) -> Flops:
    """Codes of places and rays, which are computed for every token of every view."""
    return Flops() if module is None else matrices_cost(matrices_of([module]), tokens, input_gradient=False)


def _denoising(
    denoiser: Denoiser,
    kind: Literal["view", "birdseye"],
    *,
    targets: int,
    rows: int,
    tokens: int,
    queries: int = 1,
) -> Flops:
    """The condition pooler over ``rows`` rows of tokens, and the network over its targets.

    ``queries`` sets of queries, one per cell each, ask every row.
    """
    cells, width = math.prod(denoiser.grid(kind)), denoiser.config.width
    pooler = denoiser.pooler(kind)
    cost = matrices_cost(matrices_of([pooler.proj, pooler.k, pooler.v]), rows * tokens, input_gradient=True)
    cost += matrices_cost(matrices_of([pooler.linear]), rows * cells * queries, input_gradient=True)
    cost += _full_attention(width, rows * cells * queries * tokens)
    embed = denoiser.x_embedder_view if kind == "view" else denoiser.x_embedder_bev
    cost += matrices_cost(matrices_of([embed]), targets * cells, input_gradient=False)
    cost += matrices_cost(matrices_of([denoiser.t_embedder]), targets, input_gradient=False)
    network = matrices_of([denoiser.blocks, denoiser.final_layer])
    cost += matrices_cost(network, targets * cells, input_gradient=True)
    return cost + _full_attention(width, denoiser.config.depth * targets * cells**2)


def _full_attention(width: int, pairs: int) -> Flops:
    return Flops(forward=4.0 * width * pairs, backward=8.0 * width * pairs)
