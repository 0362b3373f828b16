"""Camera pose: the mean output over each view's tokens must tell where that view was taken, seen from the first one.

Cambrian-P gives every view a token of its own for this; here the visual tokens carry it, and nothing is added at
inference.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stereopsis.data.batch import Batch
from stereopsis.objective_sections import CameraPoseSection
from stereopsis.objectives.dense import CellTargets, DenseObjective

DEFAULT = CameraPoseSection()


class CameraPose(DenseObjective):
    """Rotation and place of every view in the camera frame of its scene's first view, which itself is not asked about.

    The head gives two vectors that become the first two columns of a rotation (Gram-Schmidt; Zhou et al. 2019,
    continuous in six numbers), added to those of "not turned", and a place. A view costs |R' - R| (Frobenius;
    2 sqrt(2) sin(angle / 2)) + ``translation`` x metres.

    Args:
        dim: width of the visual tokens.
        translation: what a metre costs.
        layers: whose outputs are averaged over each view, see `DenseObjective`.
        weight: factor of the normalised loss.
        every: active on optimiser steps that are multiples of this.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "camera_pose"

    def __init__(
        self,
        dim: int,
        *,
        translation: float = DEFAULT.translation,
        layers: tuple[int, ...] = DEFAULT.layers,
        weight: float = DEFAULT.weight,
        every: int = DEFAULT.every,
    ) -> None:
        super().__init__(dim, 12, outputs=9, layers=layers, weight=weight, every=every)
        if translation < 0:
            raise ValueError(f"objective 'camera_pose': translation must be at least 0, got {translation}")
        self.translation = translation

    def tokens(self, states: Float[Tensor, "views rows cols dim"]) -> Float[Tensor, "views 1 1 dim"]:
        """The mean token of each view."""
        return states.mean(dim=(1, 2), keepdim=True)

    def targets(self, batch: Batch) -> CellTargets:
        """Nine entries of the rotation by rows, then the place in metres."""
        first = batch.layout.first_views()
        relative = relative_poses(batch.cameras[first], batch.cameras)
        values = torch.cat([relative[:, :3, :3].flatten(1), relative[:, :3, 3]], dim=1)
        asked = first != torch.arange(len(first), device=first.device)
        return CellTargets(values=values[:, None, None], valid=asked[:, None, None])

    def errors(
        self, predicted: Float[Tensor, "tokens 9"], wanted: Float[Tensor, "tokens 12"]
    ) -> Float[Tensor, "tokens"]:
        """|R' - R| + translation x |t' - t|."""
        turn = torch.linalg.vector_norm(rotation_of(predicted[:, :6]).flatten(1) - wanted[:, :9], dim=1)
        return turn + self.translation * torch.linalg.vector_norm(predicted[:, 6:] - wanted[:, 9:], dim=1)

    def figures(self, predicted: Float[Tensor, "tokens 9"], wanted: Float[Tensor, "tokens 12"]) -> dict[str, float]:
        """Mean angle, degrees, and mean distance, metres."""
        turn = torch.linalg.vector_norm(rotation_of(predicted[:, :6]).flatten(1) - wanted[:, :9], dim=1)
        angle = 2 * torch.asin((turn / 8**0.5).clamp(max=1))
        metres = torch.linalg.vector_norm(predicted[:, 6:] - wanted[:, 9:], dim=1)
        return {"degrees": float(torch.rad2deg(angle).mean()), "metres": float(metres.mean())}


def relative_poses(
    first: Float[Tensor, "views 4 4"], cameras: Float[Tensor, "views 4 4"]
) -> Float[Tensor, "views 4 4"]:
    """Poses of cameras in the frame of another one each (both camera to aligned frame)."""
    with torch.autocast(cameras.device.type, enabled=False):
        return torch.linalg.solve(first, cameras)


def rotation_of(six: Float[Tensor, "poses 6"]) -> Float[Tensor, "poses 3 3"]:
    """Rotation matrices of six numbers each: two columns, made orthonormal; zeros are the identity."""
    start = six.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    one, two = (six + start).unflatten(1, (2, 3)).unbind(1)
    one = functional.normalize(one, dim=1, eps=1e-6)
    two = functional.normalize(two - (one * two).sum(1, keepdim=True) * one, dim=1, eps=1e-6)
    return torch.stack([one, two, torch.linalg.cross(one, two)], dim=2)
