"""Which targets a reconstruction objective denoises, and which views' tokens condition each of them."""

import dataclasses

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from stereopsis.data.batch import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneTargets:
    """What one scene contributes: targets to denoise, and the views whose tokens condition each of them.

    Attributes:
        conditions: per condition, the indices (in the batch) of the views whose tokens are pooled.
        owner: per target, which of `conditions` it uses.
        source: per target, the index along the first axis of the latents.
    """

    conditions: tuple[tuple[int, ...], ...] = ()
    owner: tuple[int, ...] = ()
    source: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DenoisingPlan:
    """The targets of all scenes together, as index tensors.

    Attributes:
        views: per condition, the views whose tokens are pooled, padded with 0.
        views_valid: False for padding.
        owner: per target, its row of `views`.
        source: per target, the index along the first axis of the latents.
    """

    views: Int64[Tensor, "rows max_views"]
    views_valid: Bool[Tensor, "rows max_views"]
    owner: Int64[Tensor, "targets"]
    source: Int64[Tensor, "targets"]


def joined(parts: list[SceneTargets], device: torch.device) -> DenoisingPlan:
    """All scenes' targets as one plan; conditions of fewer views are padded."""
    rows = [views for part in parts for views in part.conditions]
    widest = max(1, max(map(len, rows), default=0))
    owner: list[int] = []
    first = 0
    for part in parts:
        owner += [first + index for index in part.owner]
        first += len(part.conditions)
    padded = [[*views, *[-1] * (widest - len(views))] for views in rows]
    index = torch.tensor(padded, dtype=torch.int64).reshape(len(rows), widest)
    source = torch.tensor([i for part in parts for i in part.source], dtype=torch.int64)
    return DenoisingPlan(
        views=index.clamp(min=0).to(device),
        views_valid=(index >= 0).to(device),
        owner=torch.tensor(owner, dtype=torch.int64).to(device),
        source=source.to(device),
    )


def scene_views(batch: Batch) -> list[list[int]]:
    """Per sample of the batch, the indices of its views."""
    groups: list[list[int]] = [[] for _ in batch.scene_ids]
    for view, scene in enumerate(batch.layout.scene.tolist()):
        groups[scene].append(view)
    return groups


def pointing_scenes(batch: Batch) -> list[bool]:
    """Per sample, whether it has conversations in this batch and every one of them is a grounding one.

    A grounding conversation's whole answer is one <ground> token, and no other conversation holds any.
    """
    queries = torch.bincount(batch.query_scene, minlength=len(batch.scene_ids)).tolist()
    return [0 < len(ids) == n for ids, n in zip(batch.conversation_ids, queries, strict=True)]


def kept_views(views: int, ratio: float) -> int:
    """How many of a scene's views stay visible: int(V (1 - ratio)), as released, but at least one."""
    return min(views, max(1, int(views * (1 - ratio) + 1e-9)))


def each_from_itself(views: tuple[int, ...], repeats: int = 1) -> SceneTargets:
    """Targets that are conditioned on the model's outputs at their own view."""
    return SceneTargets(
        conditions=tuple((view,) for view in views),
        owner=tuple(range(len(views))) * repeats,
        source=views * repeats,
    )
