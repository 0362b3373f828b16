"""Conditions that know the target's camera: the visible tokens pooled by queries that carry its rays.

The released conditioning tells the denoiser the same about every hidden view, so that it cannot know which of them
it is to restore. Here each target cell asks along its own ray, in the scene's aligned frame. Places are encoded by
sines and cosines and one learned linear map that queries and keys share: a query is the mean over some points of its
ray, a key the 3D point that the token saw (or, where it has no depth, the mean over its own ray). The scalar product
of two sinusoid codes depends on the distance of the two points, so attention prefers tokens that lie on the ray from
the first step on. What distance does not say (directions, occlusion) two small networks may add; they start at zero.
Values, learned queries and the rest of the denoiser stay the released ones. (Ours; in neither paper.)
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stereopsis.data.batch import Batch
from stereopsis.data.pack import GROUND
from stereopsis.objectives.base import SpatialOutputs
from stereopsis.objectives.denoiser_network import Denoiser
from stereopsis.objectives.plan import DenoisingPlan

REACH = 8.0
"""Metres that count as 1 where lengths enter as they are."""
ORIGIN_WAVES = (16.0, 8.0, 4.0, 2.0, 1.0)
"""Wavelengths at which the origins of rays are encoded, metres."""
PLACE_WAVES = (12.0, 6.0, 3.0)
"""Wavelengths of the code that queries and keys share, metres: long enough to tell walls of a room apart, not more."""
DIRECTION_WAVES = (4.0, 2.0, 1.0, 0.5)
"""Wavelengths at which the components of unit directions are encoded."""
HEIGHTS = (0.0, 0.5, 1.0, 2.0)
"""Metres above the floor at which a bird's-eye cell's place is encoded."""
DEPTHS = (1.0, 2.0, 3.0, 4.0)
"""Metres along a ray at which it is encoded, for want of knowing where it ends."""
SHARPNESS = 16.0
"""Attention logit of a point and a query that is at the same place, when training starts."""
PLACE_FEATURES = 6 * len(PLACE_WAVES)
RAY_FEATURES = 9 + 6 * len(ORIGIN_WAVES) + 6 * len(DIRECTION_WAVES)


def camera_rays(
    cameras: Float[Tensor, "views 4 4"],
    intrinsics: Float[Tensor, "views 3 3"],
    image_size: tuple[int, int],
    grid: tuple[int, int],
) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views cells 3"]]:
    """Origins and unit directions of the rays through the centres of a grid of cells laid over each image.

    Args:
        cameras: camera (x right, y down, z forward) to aligned frame, metres.
        intrinsics: of the images.
        image_size: height and width of the images, pixels; the corner of the first pixel is (0, 0).
        grid: rows and columns of the cells.

    Returns:
        Camera centres, metres, and directions, row-major cells, both in the aligned frame.
    """
    (height, width), (rows, cols) = image_size, grid
    v = (torch.arange(rows, device=cameras.device, dtype=cameras.dtype) + 0.5) * height / rows
    u = (torch.arange(cols, device=cameras.device, dtype=cameras.dtype) + 0.5) * width / cols
    v, u = torch.meshgrid(v, u, indexing="ij")
    fx, fy, cx, cy = (intrinsics[:, i, j].to(cameras.dtype)[:, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y = (u.flatten() - cx) / fx, (v.flatten() - cy) / fy
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    # Not a matrix product: autocast would round it to half precision.
    directions = (cameras[:, None, :3, :3] * local[:, :, None]).sum(dim=-1)
    return cameras[:, :3, 3], nn.functional.normalize(directions, dim=-1)


def waves(x: Float[Tensor, "*some 3"], wavelengths: tuple[float, ...]) -> Float[Tensor, "*some features"]:
    """Sines and cosines of every coordinate at some wavelengths."""
    lengths = torch.tensor(wavelengths, dtype=x.dtype, device=x.device)
    angles = (2 * math.pi * x[..., None] / lengths).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def ray_features(
    origins: Float[Tensor, "views 3"], directions: Float[Tensor, "views cells 3"]
) -> Float[Tensor, "views cells features"]:
    """Origin, direction and moment (Plücker) of each ray, and waves of its origin and direction."""
    start = origins[:, None].expand_as(directions)
    moments = torch.linalg.cross(start, directions)
    parts = [start / REACH, directions, moments / REACH, waves(start, ORIGIN_WAVES), waves(directions, DIRECTION_WAVES)]
    return torch.cat(parts, dim=-1)


def along_rays(
    origins: Float[Tensor, "views 3"], directions: Float[Tensor, "views cells 3"]
) -> Float[Tensor, "views cells features"]:
    """Mean of the waves of points on each ray."""
    start = origins[:, None]
    return torch.stack([waves(start + depth * directions, PLACE_WAVES) for depth in DEPTHS]).mean(dim=0)


def _mlp(features: int, width: int) -> nn.Sequential:
    """Two layers, the last of which starts at zero."""
    mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
    nn.init.zeros_(mlp.get_parameter("2.weight"))
    nn.init.zeros_(mlp.get_parameter("2.bias"))
    return mlp


class PlacedConditioning(nn.Module):
    """What pooling by place shares: one code of places for queries and keys, and keys that know where tokens look.

    Args:
        width: of the denoiser.
        heads: of its condition pooler.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.places = nn.Linear(PLACE_FEATURES, width, bias=False)
        # Two equal codes have a scalar product of PLACE_FEATURES / 2; attention divides by the root of a head's width.
        std = (SHARPNESS / (PLACE_FEATURES / 2) / math.sqrt(width / heads)) ** 0.5
        nn.init.normal_(self.places.weight, std=std)
        self.key_rays = _mlp(RAY_FEATURES, width)

    def rays(self, batch: Batch, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Origins and directions of the rays through a grid over every view."""
        height, width = batch.images.shape[-2:]
        return camera_rays(batch.cameras, batch.intrinsics, (height, width), grid)

    def visible(self, plan: DenoisingPlan, outputs: SpatialOutputs, denoiser: Denoiser) -> tuple[Tensor, Tensor]:
        """The visible views' tokens of every row of the plan, and which of them are no padding."""
        per_view = outputs.visual.shape[1] * outputs.visual.shape[2]
        tokens = outputs.visual.flatten(1, 2)[plan.views].flatten(1, 2).to(denoiser.dtype)
        return tokens, plan.views_valid.repeat_interleave(per_view, dim=1)

    def keys(self, denoiser: Denoiser, batch: Batch) -> Float[Tensor, "views cells width"]:
        """What each token's key gets for where it looks, and for the point that it sees, if there is one."""
        rays = self.rays(batch, (batch.coordinates.shape[1], batch.coordinates.shape[2]))
        seen: Bool[Tensor, "views cells 1"] = batch.coordinates_valid.flatten(1)[..., None]
        codes = torch.where(seen, waves(batch.coordinates.flatten(1, 2), PLACE_WAVES), along_rays(*rays))
        return self.places(codes.to(denoiser.dtype)) + self.key_rays(ray_features(*rays).to(denoiser.dtype))


class GroundConditioning(PlacedConditioning):
    """Pools each scene's visible tokens with a query for every cell of its bird's-eye view, at that cell's place.

    A query is the mean code of some heights above the cell's centre, as a ray from the ceiling down would be.
    """

    def forward(
        self, denoiser: Denoiser, plan: DenoisingPlan, outputs: SpatialOutputs, batch: Batch
    ) -> Float[Tensor, "targets cells width"]:
        """One condition vector per target cell.

        Args:
            denoiser: whose bird's-eye pooler is used.
            plan: rows of visible views, one per scene; every target's source is a scene.
            outputs: holds the visual tokens.
            batch: holds cameras, intrinsics, coordinates, and the cells' places ("birdseye_cells").
        """
        with denoiser.precision(outputs.visual.device):
            tokens, valid = self.visible(plan, outputs, denoiser)
            keys = self.keys(denoiser, batch)[plan.views].flatten(1, 2)
            ground = batch.targets[GROUND].flatten(1, 2).to(batch.coordinates)
            at = [torch.cat([ground, torch.full_like(ground[..., :1], height)], dim=-1) for height in HEIGHTS]
            codes = torch.stack([waves(points, PLACE_WAVES) for points in at]).mean(dim=0)
            pooler = denoiser.pooler("birdseye")
            queries = pooler.cls_token + self.places(codes.to(denoiser.dtype))
            scene = torch.zeros(len(plan.views), dtype=torch.int64, device=tokens.device)
            scene = scene.scatter(0, plan.owner, plan.source)
            return pooler(tokens, valid, queries=queries[scene], keys=keys)[plan.owner]


class CameraConditioning(PlacedConditioning):
    """Pools each scene's visible tokens once, with queries for every cell of every hidden view of that scene."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.query_rays = _mlp(RAY_FEATURES, width)

    def forward(
        self, denoiser: Denoiser, plan: DenoisingPlan, outputs: SpatialOutputs, batch: Batch
    ) -> Float[Tensor, "targets cells width"]:
        """One condition vector per target cell.

        Args:
            denoiser: whose view pooler is used.
            plan: rows of visible views, one per scene; every target's source is a view.
            outputs: holds the visual tokens.
            batch: holds cameras, intrinsics and coordinates.
        """
        with denoiser.precision(outputs.visual.device):
            tokens, valid = self.visible(plan, outputs, denoiser)
            keys = self.keys(denoiser, batch)[plan.views].flatten(1, 2)
            # Each hidden view asks once, however often it is a target; rows of fewer hidden views are padded.
            asked, which = plan.source.unique(return_inverse=True)
            row = torch.zeros_like(asked).scatter(0, which, plan.owner)
            slot = _count_within(row)
            shape = (len(plan.views), int(slot.max()) + 1)
            pooler = denoiser.pooler("view")
            rays = self.rays(batch, denoiser.grid("view"))
            queries = self.places(along_rays(*rays).to(denoiser.dtype))
            queries = pooler.cls_token + (queries + self.query_rays(ray_features(*rays).to(denoiser.dtype)))[asked]
            padded = queries.new_zeros(*shape, *queries.shape[1:]).index_put((row, slot), queries)
            pooled = pooler(tokens, valid, queries=padded.flatten(1, 2), keys=keys).unflatten(1, (shape[1], -1))
        return pooled[row, slot][which]


def _count_within(groups: Tensor) -> Tensor:
    """[n] integers -> how many earlier entries have the same value."""
    same = groups[:, None] == groups[None]
    return same.tril(-1).sum(dim=1)
