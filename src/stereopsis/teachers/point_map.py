"""A teacher without weights: descriptors of the geometry that each cell shows."""

import dataclasses
import functools
import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from stereopsis.geometry.normals import estimate_normals
from stereopsis.teachers.features import FeatureTeacher, TeacherViews, ViewFeatures
from stereopsis.weights.fingerprint import fingerprint


class PointMapTeacher(FeatureTeacher):
    """Descriptors of the geometry that each cell shows; needs depth, and no weights.

    In order: for each of x, y, z the sines and then the cosines of the mean coordinate at every wavelength;
    the mean surface normal; the height above the floor; depth edge strength, roughness and planarity. The
    position, normal and height of a spot are the same from every view; the last three depend a little on the
    view. Each entry is brought to about zero mean and unit spread by constants measured on indoor scenes, not
    by statistics of the input, so that one spot means one descriptor whatever else is in view.

    Args:
        wavelengths: of the coordinate's Fourier features, metres.
        min_valid_fraction: share of a cell's pixels that must have depth.
    """

    name = "point_map"
    per_view = True

    def __init__(
        self,
        *,
        wavelengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0),
        min_valid_fraction: float = 0.25,
    ) -> None:
        if not wavelengths or min(wavelengths) <= 0:
            raise ValueError(f"wavelengths are metres and must be positive, got {wavelengths}")
        if not 0.0 <= min_valid_fraction <= 1.0:
            raise ValueError(f"min_valid_fraction is {min_valid_fraction}, expected 0..1")
        self.wavelengths = tuple(wavelengths)
        self.min_valid_fraction = min_valid_fraction
        self.channels = 6 * len(wavelengths) + 7

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 over the settings and constants."""
        return fingerprint(
            {
                "kind": self.name,
                "version": 1,
                "wavelengths": self.wavelengths,
                "min_valid_fraction": self.min_valid_fraction,
                "standardisation": _STANDARD,
            }
        )

    @torch.no_grad()
    def encode(self, views: TeacherViews) -> ViewFeatures:
        """Features of every cell of every view.

        A cell is the set of pixels whose centre falls into it when the image is divided evenly. Cells with
        fewer valid pixels than `min_valid_fraction` (or none) are invalid.
        """
        cells = _Cells.of(views)
        valid = (cells.count > 0) & (cells.count >= self.min_valid_fraction * cells.pixels)
        points = views.points.double().where(views.points_valid[..., None], 0.0)
        mean = cells.mean(points)
        normals = _normals(views, cells)
        shape = _shape(points, mean, cells)
        turns = mean[..., None] * (2 * math.pi / torch.tensor(self.wavelengths, device=mean.device))
        waves = torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(-2) * math.sqrt(2)
        features = torch.cat(
            [
                waves,
                normals * math.sqrt(3),
                _standardised(mean[..., 2], "height")[..., None],
                _standardised(_edges(views, cells), "edge")[..., None],
                _standardised(shape.roughness, "roughness")[..., None],
                _standardised(shape.planarity, "planarity")[..., None],
            ],
            dim=-1,
        )
        return ViewFeatures(features=features.float().where(valid[..., None], 0.0), valid=valid)


# (mean, spread) of each quantity over indoor views; fixed, see the class's docstring
_STANDARD = {
    "height": (1.0, 0.8),  # metres
    "edge": (-3.2, 1.2),  # ln of the largest step of ln depth between neighbouring pixels
    "roughness": (-2.6, 1.2),  # ln of the smallest over the largest spread of the points
    "planarity": (0.5, 0.3),  # (middle - smallest) / largest spread of the points
}
_SMALLEST = 0.01  # smaller steps and ratios count as this: below lies the noise of depth sensors


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Cells:
    """Which cell each pixel belongs to, and sums over the valid pixels of each cell."""

    index: Int64[Tensor, "height width"]
    valid: Bool[Tensor, "views height width"]
    rows: int
    cols: int
    pixels: Float[Tensor, "rows cols"]

    @staticmethod
    def of(views: TeacherViews) -> "_Cells":
        _, height, width = views.points_valid.shape
        device = views.points_valid.device
        row = ((torch.arange(height, device=device) + 0.5) * views.rows / height).long()
        col = ((torch.arange(width, device=device) + 0.5) * views.cols / width).long()
        index = row[:, None] * views.cols + col[None, :]
        pixels = torch.bincount(index.flatten(), minlength=views.rows * views.cols).reshape(views.rows, views.cols)
        return _Cells(index=index, valid=views.points_valid, rows=views.rows, cols=views.cols, pixels=pixels.double())

    @functools.cached_property
    def count(self) -> Float[Tensor, "views rows cols"]:
        """Valid pixels per cell."""
        return self.sum(self.valid.double()[..., None])[..., 0]

    def sum(self, values: Float[Tensor, "views height width c"]) -> Float[Tensor, "views rows cols c"]:
        """Sum over each cell's pixels."""
        views, _, _, channels = values.shape
        total = values.new_zeros(views, self.rows * self.cols, channels)
        total.index_add_(1, self.index.flatten(), values.flatten(1, 2))
        return total.reshape(views, self.rows, self.cols, channels)

    def mean(self, values: Float[Tensor, "views height width c"]) -> Float[Tensor, "views rows cols c"]:
        """Mean over each cell's valid pixels (values must be zero elsewhere); zero where there are none."""
        return self.sum(values) / self.count.clamp(min=1)[..., None]

    def spread(self, values: Float[Tensor, "views rows cols c"]) -> Float[Tensor, "views height width c"]:
        """Each pixel's own cell value."""
        return values.flatten(1, 2)[:, self.index]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Shape:
    """How the points of a cell lie: ln of the smallest over the largest spread, and planarity (0..1)."""

    roughness: Float[Tensor, "views rows cols"]
    planarity: Float[Tensor, "views rows cols"]


def _standardised(values: Tensor, quantity: str) -> Tensor:
    mean, spread = _STANDARD[quantity]
    return ((values - mean) / spread).clamp(-3, 3)


def _normals(views: TeacherViews, cells: _Cells) -> Float[Tensor, "views rows cols 3"]:
    """Mean of the pixels' normals, not renormalised: shorter where the surface bends, zero where unknown."""
    radius = max(1, round(views.points_valid.shape[1] / 80))
    points, valid = views.points.cpu().numpy(), views.points_valid.cpu().numpy()
    maps = [estimate_normals(p, v, radius=radius) for p, v in zip(points, valid, strict=True)]
    device = views.points.device
    normals = torch.from_numpy(np.stack([m.normals for m in maps])).to(device)
    known = torch.from_numpy(np.stack([m.valid for m in maps])).to(device)
    count = cells.sum(known.double()[..., None])
    return cells.sum(normals) / count.clamp(min=1)


def _depths(views: TeacherViews) -> Float[Tensor, "views height width"]:
    """Depth along the optical axis, metres; at least a centimetre."""
    T = views.T_aligned_camera.double()
    axis, origin = T[:, :3, 2], T[:, :3, 3]
    offset = views.points.double() - origin[:, None, None]
    return (offset * axis[:, None, None]).sum(dim=-1).clamp(min=0.01)


def _edges(views: TeacherViews, cells: _Cells) -> Float[Tensor, "views rows cols"]:
    """Ln of the largest step of ln depth between two valid neighbouring pixels of a cell."""
    depth = _depths(views).where(views.points_valid, 1.0).log()
    step = torch.zeros_like(depth)
    for axis in (1, 2):
        near, far = depth.narrow(axis, 0, depth.shape[axis] - 1), depth.narrow(axis, 1, depth.shape[axis] - 1)
        both = views.points_valid.narrow(axis, 0, near.shape[axis]) & views.points_valid.narrow(
            axis, 1, near.shape[axis]
        )
        jump = (far - near).abs().where(both, 0.0)
        target = step.narrow(axis, 0, near.shape[axis])
        target.copy_(torch.maximum(target, jump))
    largest = torch.zeros(len(step), cells.rows * cells.cols, dtype=step.dtype, device=step.device)
    index = cells.index.flatten().expand(len(step), -1)
    largest.scatter_reduce_(1, index, step.flatten(1), reduce="amax")
    return largest.clamp(min=_SMALLEST).log().reshape(len(step), cells.rows, cells.cols)


def _shape(
    points: Float[Tensor, "views height width 3"], mean: Float[Tensor, "views rows cols 3"], cells: _Cells
) -> _Shape:
    """Spread of each cell's points along their principal axes."""
    offset = (points - cells.spread(mean)).where(cells.valid[..., None], 0.0)
    outer = (offset[..., :, None] * offset[..., None, :]).flatten(-2)
    covariance = cells.mean(outer).unflatten(-1, (3, 3))
    spreads = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()
    small, middle, large = spreads.unbind(dim=-1)
    size = large.clamp(min=1e-6)
    return _Shape(roughness=(small / size).clamp(min=_SMALLEST).log(), planarity=(middle - small) / size)
