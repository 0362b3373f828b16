"""Voxels: cubes of a regular grid whose corner (0, 0, 0) is the world origin."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

_SPAN = 1 << 21  # indices per axis that fit three times into 63 bits


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VoxelGroups:
    """Which points share a voxel.

    Attributes:
        groups: int64, one group number per point, 0 .. count - 1 in the order of `voxels`; -1 where invalid.
        voxels: int64 [count, 3] the occupied voxels, sorted by x, then y, then z.
        sizes: int64 [count] points per voxel.
    """

    groups: Int[np.ndarray, "*points"]
    voxels: Int[np.ndarray, "count 3"]
    sizes: Int[np.ndarray, "count"]


def voxel_indices(points: Float[np.ndarray, "*points 3"], size: float) -> Int[np.ndarray, "*points 3"]:
    """Index of the voxel that holds each point: floor(point / size), also below zero.

    Args:
        points: [..., 3] metres.
        size: edge length, metres.

    Returns:
        int64 [..., 3].

    Raises:
        ValueError: a size that is not positive, or coordinates that are NaN or inf.
    """
    if not size > 0:
        raise ValueError(f"voxel size is {size}, expected a positive length in metres")
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or inf; drop invalid points before voxelising")
    return np.floor(points.astype(np.float64) / size).astype(np.int64)


def voxel_keys(indices: Int[np.ndarray, "*points 3"]) -> Int[np.ndarray, "*points"]:
    """One int64 per voxel index; keys sort as the voxels do: by x, then y, then z.

    Args:
        indices: [..., 3] whole numbers within +-2^20 (52 km either way at 5 cm).

    Raises:
        ValueError: an index beyond that.
    """
    if indices.size and np.abs(indices).max() >= _SPAN // 2:
        raise ValueError(f"voxel indices reach {np.abs(indices).max()}, supported is less than {_SPAN // 2}")
    shifted = indices.astype(np.int64) + _SPAN // 2
    return (shifted[..., 0] * _SPAN + shifted[..., 1]) * _SPAN + shifted[..., 2]


def voxels_of_keys(keys: Int[np.ndarray, "*points"]) -> Int[np.ndarray, "*points 3"]:
    """The voxel indices that `voxel_keys` made the keys of: int64 [..., 3]."""
    return np.stack([keys // _SPAN**2, keys // _SPAN % _SPAN, keys % _SPAN], axis=-1) - _SPAN // 2


def voxel_groups(
    points: Float[np.ndarray, "*points 3"], size: float, valid: Bool[np.ndarray, "*points"] | None = None
) -> VoxelGroups:
    """Number the occupied voxels and say for each point which one it is in.

    Args:
        points: [..., 3] metres.
        size: edge length, metres.
        valid: [...], points to use; the others get group -1 and may hold anything. None: all.
    """
    used = np.ones(points.shape[:-1], dtype=bool) if valid is None else valid
    occupied = voxel_keys(voxel_indices(points[used], size))
    keys, inverse, sizes = np.unique(occupied, return_inverse=True, return_counts=True)
    groups = np.full(points.shape[:-1], -1, dtype=np.int64)
    groups[used] = inverse.reshape(-1)
    return VoxelGroups(groups=groups, voxels=voxels_of_keys(keys), sizes=sizes.astype(np.int64))
