"""Dense depth: the output at every visual token must tell how far away what its cell shows is."""

from jaxtyping import Float
from torch import Tensor

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objectives.dense import CellTargets, DenseObjective

NEAREST = 0.05
"""Metres; a cell whose depth is smaller has no target."""


class DepthHead(DenseObjective):
    """|ln of the predicted over the true depth| of every cell, z-depth in its own camera.

    A cell's depth is that of its mean 3D point, which is the mean depth of its pixels. The logarithm makes errors
    relative: 10 % is the same near and far, and twice too far costs as much as twice too near.

    Args:
        dim: width of the visual tokens.
        options: see `DenseObjective`.
    """

    name = "depth"
    needs = (POINTS, POINTS_VALID)

    def __init__(self, dim: int, **options) -> None:
        super().__init__(dim, 1, **options)

    def targets(self, batch: Batch) -> CellTargets:
        """Ln of the z-depth, metres."""
        depth = cell_depths(batch)
        valid = batch.targets[POINTS_VALID] & (depth > NEAREST)
        return CellTargets(values=depth.clamp(min=NEAREST).log()[..., None], valid=valid)

    def errors(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> Float[Tensor, "tokens"]:
        """Absolute difference of the logarithms."""
        return (predicted - wanted).abs()[:, 0]

    def figures(
        self, predicted: Float[Tensor, "tokens channels"], wanted: Float[Tensor, "tokens channels"]
    ) -> dict[str, float]:
        """Mean |predicted - true| / true."""
        return {"relative_error": float(((predicted - wanted).exp() - 1).abs().mean())}


def cell_depths(batch: Batch) -> Float[Tensor, "views rows cols"]:
    """Z-depth of every cell's mean 3D point in its own camera, metres; without meaning where there is no point."""
    cameras = batch.cameras.to(batch.targets[POINTS].dtype)
    offset = batch.targets[POINTS] - cameras[:, None, None, :3, 3]
    return (offset * cameras[:, None, None, :3, 2]).sum(-1)  # no matrix product: autocast would round it
