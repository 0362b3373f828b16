"""Point maps: the output at every visual token must tell where in space what its cell shows is."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objective_sections import PointMapSection
from stereopsis.objectives.dense import CellTargets, DenseObjective

PointFrame = Literal["first", "aligned"]

DEFAULT = PointMapSection()


class PointMap(DenseObjective):
    """Distance of the predicted from the true mean 3D point of every cell, metres.

    Args:
        dim: width of the visual tokens.
        frame: whose coordinates are predicted: "first", the camera of the scene's first view (as VGGT does: what
            pictures alone can tell), or "aligned", the frame in which boxes and questions are given.
        options: see `DenseObjective`.
    """

    name = "point_map"
    needs = (POINTS, POINTS_VALID)

    def __init__(self, dim: int, *, frame: PointFrame = DEFAULT.frame, **options) -> None:
        super().__init__(dim, 3, **options)
        self.frame = frame

    def targets(self, batch: Batch) -> CellTargets:
        """Mean points in the chosen frame."""
        points = batch.targets[POINTS]
        if self.frame == "first":
            points = in_camera(points, batch.cameras[batch.layout.first_views()])
        return CellTargets(values=points, valid=batch.targets[POINTS_VALID])

    def errors(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> Float[Tensor, "tokens"]:
        """Euclidean distance."""
        return torch.linalg.vector_norm(predicted - wanted, dim=-1)

    def figures(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> dict[str, float]:
        """Mean distance, metres."""
        return {"metres": float(self.errors(predicted, wanted).mean())}


def in_camera(
    points: Float[Tensor, "views rows cols 3"], cameras: Float[Tensor, "views 4 4"]
) -> Float[Tensor, "views rows cols 3"]:
    """Aligned-frame points in the coordinates of one camera (to aligned frame) per view, metres."""
    cameras = cameras.to(points.dtype)
    offset = points - cameras[:, None, None, :3, 3]
    # R^T times the offset, written as sums: autocast would round a matrix product.
    return (cameras[:, None, None, :3, :3] * offset[..., :, None]).sum(-2)
