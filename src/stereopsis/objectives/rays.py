"""Ray maps: the output at every visual token must tell from where and which way it looks, seen from the first view.

The dense form of a camera pose (Depth Anything 3 predicts such maps): a view's rays together say where it was taken,
how it was turned, and how wide its lens is.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.objective_sections import RaysSection
from stereopsis.objectives.camera_pose import relative_poses
from stereopsis.objectives.dense import CellTargets, DenseObjective
from stereopsis.objectives.pose import camera_rays

DEFAULT = RaysSection()


class RayMap(DenseObjective):
    """Direction and origin of the ray through the centre of every cell, in the camera frame of the scene's first view.

    A cell costs |d' - d| + ``origin`` x metres, d' and d of length 1. Every cell has a ray, whether or not depth is
    known.

    Args:
        dim: width of the visual tokens.
        origin: what a metre between the origins costs.
        options: see `DenseObjective`.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "rays"

    def __init__(self, dim: int, *, origin: float = DEFAULT.origin, **options) -> None:
        super().__init__(dim, 6, **options)
        if origin < 0:
            raise ValueError(f"objective 'rays': origin must be at least 0, got {origin}")
        self.origin = origin

    def targets(self, batch: Batch) -> CellTargets:
        """Unit direction, then origin in metres."""
        grid = batch.layout.grid
        height, width = batch.images.shape[-2:]
        relative = relative_poses(batch.cameras[batch.layout.first_views()], batch.cameras)
        origins, directions = camera_rays(relative, batch.intrinsics, (height, width), grid)
        values = torch.cat([directions, origins[:, None].expand_as(directions)], dim=-1).unflatten(1, grid)
        return CellTargets(values=values, valid=torch.ones_like(values[..., 0], dtype=torch.bool))

    def errors(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> Float[Tensor, "tokens"]:
        """|d' - d| + origin x |o' - o|."""
        direction = functional.normalize(predicted[:, :3], dim=-1, eps=1e-6)
        turned = torch.linalg.vector_norm(direction - wanted[:, :3], dim=-1)
        return turned + self.origin * torch.linalg.vector_norm(predicted[:, 3:] - wanted[:, 3:], dim=-1)

    def figures(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> dict[str, float]:
        """Mean angle between the directions, degrees, and mean distance of the origins, metres."""
        cosine = functional.cosine_similarity(predicted[:, :3], wanted[:, :3], dim=-1)
        metres = torch.linalg.vector_norm(predicted[:, 3:] - wanted[:, 3:], dim=-1)
        return {"degrees": float(torch.rad2deg(cosine.clamp(-1, 1).acos()).mean()), "metres": float(metres.mean())}
