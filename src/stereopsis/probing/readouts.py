"""Linear readouts: what a ridge regression finds of a cell's geometry in its frozen token, on unseen scenes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.data.pack import ScenePack
from stereopsis.data.views import Views
from stereopsis.geometry.normals import estimate_normals
from stereopsis.geometry.patches import patch_coordinates

QUANTITIES = ("depth", "normal", "occupancy")
PITCH = 0.5
"""Edge of the voxels whose occupancy is read, metres."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellGeometry:
    """What is read out of each cell of a scene.

    Attributes:
        targets: name -> [views rows cols values].
        valid: name -> [views rows cols].
    """

    targets: Mapping[str, Float[Tensor, "views rows cols values"]]
    valid: Mapping[str, Bool[Tensor, "views rows cols"]]


def cell_geometry(pack: ScenePack, views: Views, points: Tensor, valid: Tensor) -> CellGeometry:
    """Log depth, normal and occupancy of the surroundings, cell by cell.

    - depth: natural logarithm of the distance of the cell's mean point along the optical axis, metres;
    - normal: mean unit normal of the cell's pixels in the camera's frame;
    - occupancy: for each of the 26 neighbours of the cell's voxel (edge `PITCH`), whether any view saw a surface there.

    Args:
        pack: the scene, for its cameras.
        views: its decoded views.
        points: [views rows cols 3] mean point of every cell.
        valid: [views rows cols].
    """
    rows, cols = valid.shape[1:]
    inverse = torch.linalg.inv(pack.cameras.double())
    local = torch.einsum("vij,vrcj->vrci", inverse[:, :3, :3], points.double()) + inverse[:, None, None, :3, 3]
    depth = local[..., 2:].clamp(min=0.05).log().float()
    normals, known = [], []
    for number, (seen, there) in enumerate(zip(views.points.numpy(), views.points_valid.numpy(), strict=True)):
        found = estimate_normals(seen, there, radius=max(1, round(seen.shape[0] / 80)))
        mean = patch_coordinates(found.normals, found.valid, rows, cols, 0.25)
        turned = mean.coordinates @ inverse[number, :3, :3].T.numpy()
        length = np.linalg.norm(turned, axis=-1, keepdims=True)
        normals.append(torch.from_numpy((turned / np.maximum(length, 1e-6)).astype(np.float32)))
        known.append(torch.from_numpy(mean.valid & (length[..., 0] > 0.3)))
    return CellGeometry(
        targets={"depth": depth, "normal": torch.stack(normals), "occupancy": _occupancy(views, points, valid)},
        valid={"depth": valid & (local[..., 2] > 0.05), "normal": torch.stack(known) & valid, "occupancy": valid},
    )


def _occupancy(views: Views, points: Tensor, valid: Tensor) -> Float[Tensor, "views rows cols 26"]:
    occupied = torch.unique(torch.floor(views.points[views.points_valid].double() / PITCH).long(), dim=0)
    if not len(occupied):
        return torch.zeros(*valid.shape, 26)
    low = occupied.min(0).values - 2
    size = occupied.max(0).values + 3 - low
    grid = torch.zeros(*size.tolist())
    grid[tuple((occupied - low).T)] = 1.0
    centre = (torch.floor(points.double() / PITCH).long() - low).clamp(min=1)
    centre = torch.minimum(centre, size - 2)
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)]
    return torch.stack([grid[tuple((centre + torch.tensor(step)).unbind(-1))] for step in steps], dim=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readout:
    """One quantity read from scenes that the regression has not seen.

    Attributes:
        r2: share of the variance that is explained, averaged over the quantity's values; at most 1, 0 = the mean.
        error: depth: mean absolute relative error; normal: mean angle, degrees; occupancy: share of wrong voxels.
        baseline: the same error of always answering the training scenes' mean.
        cells: how many cells were tested.
    """

    r2: float
    error: float
    baseline: float
    cells: int


class RidgeProbe:
    """Ridge regression in closed form on standardised features, gathered scene by scene (memory: dim x dim).

    Args:
        dim: of the features.
        names: the quantities, of `CellGeometry.targets`.
        penalty: per training cell.
    """

    def __init__(self, dim: int, names: Sequence[str] = QUANTITIES, penalty: float = 1e-2) -> None:
        self.dim, self.names, self.penalty = dim, tuple(names), penalty
        self._sums: dict[str, list[Tensor]] = {}
        self._tested: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.names}

    def train(self, features: Float[Tensor, "views rows cols dim"], geometry: CellGeometry) -> None:
        """Add one scene to the training sums."""
        for name in self.names:
            x, y = self._cells(features, geometry, name)
            ones = torch.ones(len(x), 1, dtype=torch.float64)
            x = torch.cat([x, ones], dim=1)
            parts = [x.T @ x, x.T @ y]
            kept = self._sums.setdefault(name, [torch.zeros_like(part) for part in parts])
            for total, part in zip(kept, parts, strict=True):
                total += part

    def test(self, features: Float[Tensor, "views rows cols dim"], geometry: CellGeometry) -> None:
        """Keep one scene's cells for `results`."""
        for name in self.names:
            self._tested[name].append(self._cells(features, geometry, name))

    def results(self) -> dict[str, Readout]:
        """Fit, and read the test scenes; quantities without training or test cells are left out."""
        found = {}
        for name in self.names:
            tested = [pair for pair in self._tested[name] if len(pair[0])]
            if name not in self._sums or not tested or float(self._sums[name][0][-1, -1]) < 2:
                continue
            x, y = (torch.cat(parts) for parts in zip(*tested, strict=True))
            weights, mean = self._fit(*self._sums[name])
            predicted = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1) @ weights
            spread = (y - mean).square().sum(0)
            kept = spread > 1e-9
            r2 = 1 - (y - predicted).square().sum(0)[kept] / spread[kept]
            found[name] = Readout(
                r2=float(r2.mean()) if bool(kept.any()) else 0.0,
                error=_error(name, predicted, y),
                baseline=_error(name, mean.expand_as(y), y),
                cells=len(x),
            )
        return found

    def _cells(self, features: Tensor, geometry: CellGeometry, name: str) -> tuple[Tensor, Tensor]:
        valid = geometry.valid[name]
        return features[valid].double(), geometry.targets[name][valid].double()

    def _fit(self, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        """Weights on raw features with a constant behind them; the penalty acts on standardised ones."""
        cells = gram[-1, -1]
        mean, target = gram[-1, :-1] / cells, cross[-1] / cells
        covariance = gram[:-1, :-1] / cells - mean[:, None] * mean[None]
        scale = covariance.diagonal().clamp(min=1e-12).sqrt()
        standard = covariance / (scale[:, None] * scale[None])
        joint = (cross[:-1] / cells - mean[:, None] * target[None]) / scale[:, None]
        eye = torch.eye(self.dim, dtype=torch.float64)
        weights = torch.linalg.solve(standard + self.penalty * eye, joint) / scale[:, None]
        return torch.cat([weights, (target - mean @ weights)[None]]), target


def _error(name: str, predicted: Tensor, truth: Tensor) -> float:
    if name == "depth":
        return float(((predicted - truth).exp() - 1).abs().mean())
    if name == "normal":
        cosine = torch.nn.functional.cosine_similarity(predicted, truth, dim=1).clamp(-1, 1)
        return float(cosine.acos().mean()) * 180 / math.pi
    return float(((predicted > 0.5) != (truth > 0.5)).double().mean())
