"""A room's shell in voxels: floor, ceiling, walls, and what lies inside."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from stereopsis.geometry.birdseye import ceiling_height

_MAX_CELLS = 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wall:
    """A wall plane across `axis` at `position`, which runs from `begin` to `end` along the other axis (metres)."""

    axis: int
    position: float
    begin: float
    end: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Voxels:
    """Occupied voxels, and the exact bounds of the points in each.

    Attributes:
        index: [n, 3] from 0; one row per occupied voxel.
        low: [n, 3] least coordinates of its points, metres.
        high: [n, 3] largest coordinates of its points, metres.
        shape: voxels along x, y and z.
        origin: [3] lowest corner of voxel (0, 0, 0), metres.
        size: edge length, metres.
    """

    index: Int[np.ndarray, "n 3"]
    low: Float[np.ndarray, "n 3"]
    high: Float[np.ndarray, "n 3"]
    shape: tuple[int, int, int]
    origin: Float[np.ndarray, "3"]
    size: float


def occupied_voxels(points: Float[np.ndarray, "n 3"], size: float) -> Voxels:
    """Sort points into voxels of a room; a few stray points far away are left out.

    Raises:
        ValueError: the points spread over more than 2^26 voxels.
    """
    points = points.astype(np.float64)
    # Stray depth pixels would blow the grid up: of each axis the outermost 0.05 % of the points may go.
    low, high = np.quantile(points, [0.0005, 0.9995], axis=0)
    margin = 4 * size
    points = points[((points >= low - margin) & (points <= high + margin)).all(axis=1)]
    # A voxel's middle lies on a multiple of the size, so that a floor at z = 0 is one layer.
    origin = (np.round(points.min(axis=0) / size) - 0.5) * size
    index = np.floor((points - origin) / size).astype(np.int64)
    shape = index.max(axis=0) + 1
    if np.prod(shape.astype(np.float64)) > _MAX_CELLS:
        extent = " x ".join(f"{side * size:.0f}" for side in shape)
        raise ValueError(f"the points spread over {extent} m; that is no room at {size} m a voxel: check their units")
    cell = (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    points = points[order]
    return Voxels(
        index=index[order][starts],
        low=np.minimum.reduceat(points, starts, axis=0),
        high=np.maximum.reduceat(points, starts, axis=0),
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        origin=origin,
        size=size,
    )


def floor_layer(voxels: Voxels) -> int:
    """Of the lowest layer that covers a fifth of the largest layer's area and the two above it, the largest."""
    area = np.bincount(voxels.index[:, 2])
    lowest = int(np.flatnonzero(area >= 0.2 * area.max())[0])
    return lowest + int(np.argmax(area[lowest : lowest + 3]))


def ceiling_layer(points: Float[np.ndarray, "n 3"], voxels: Voxels) -> int:
    """The first layer that belongs to the ceiling, or one above everything."""
    ceiling = ceiling_height(points)
    if ceiling is None:
        return voxels.shape[2]
    return min(voxels.shape[2], int(np.floor((ceiling - 0.1 - voxels.origin[2]) / voxels.size)))


def find_walls(voxels: Voxels, floor: int, top: int, *, share: float, length: float) -> list[Wall]:
    """Upright planes across x or y that are filled over much of the height, along a metre or so.

    Args:
        voxels: of the room.
        floor: its floor's layer.
        top: its ceiling's layer.
        share: 0..1 of the height (0.3 m above the floor up to the ceiling, or as far as was seen).
        length: least length of a wall, metres; at least 30 % of what was seen along it is needed as well.
    """
    size = voxels.size
    begin = floor + max(2, round(0.3 / size))
    seen_to = int(np.quantile(voxels.index[:, 2], 0.99)) + 1
    end = min(top, seen_to)
    if end - begin < round(1.0 / size):
        return []  # nobody looked at walls
    upright = voxels.index[(voxels.index[:, 2] >= begin) & (voxels.index[:, 2] < end)]
    walls = []
    for axis in (0, 1):
        across, along = upright[:, axis], upright[:, 1 - axis]
        filled = np.zeros((voxels.shape[axis], voxels.shape[1 - axis], end - begin), dtype=bool)
        filled[across, along, upright[:, 2] - begin] = True
        alone = filled.sum(axis=(1, 2))
        thick = filled.copy()  # a wall that is not quite straight changes between neighbouring slabs
        thick[1:] |= filled[:-1]
        thick[:-1] |= filled[1:]
        tall = thick.sum(axis=2) >= share * (end - begin)
        run = tall.sum(axis=1) * size
        extent = np.ptp(along) * size if len(along) else 0.0
        needed = max(length, 0.3 * extent)
        while run.max(initial=0.0) >= needed:
            peak = int(np.argmax(run))
            near = slice(max(peak - 1, 0), peak + 2)
            slab = near.start + int(np.argmax(alone[near]))
            columns = np.flatnonzero(tall[peak])
            walls.append(
                Wall(
                    axis=axis,
                    position=float(voxels.origin[axis] + (slab + 0.5) * size),
                    begin=float(voxels.origin[1 - axis] + columns[0] * size) - 0.3,
                    end=float(voxels.origin[1 - axis] + (columns[-1] + 1) * size) + 0.3,
                )
            )
            run[max(slab - 3, 0) : slab + 4] = 0.0
    return walls


def tall_columns(voxels: Voxels, floor: int, top: int, *, share: float) -> Bool[np.ndarray, "n"]:
    """Voxels in columns of the floor plan that, with their neighbours, are filled over this share of the height."""
    begin = floor + max(2, round(0.3 / voxels.size))
    end = min(top, int(np.quantile(voxels.index[:, 2], 0.99)) + 1)
    if end - begin < round(1.6 / voxels.size):
        return np.zeros(len(voxels.index), dtype=bool)
    filled = np.zeros((voxels.shape[0], voxels.shape[1], end - begin), dtype=bool)
    upright = voxels.index[(voxels.index[:, 2] >= begin) & (voxels.index[:, 2] < end)]
    filled[upright[:, 0], upright[:, 1], upright[:, 2] - begin] = True
    cross = ndimage.generate_binary_structure(2, 1)[:, :, None]
    tall = ndimage.binary_dilation(filled, cross).mean(axis=2) >= share
    return (tall & filled.any(axis=2))[voxels.index[:, 0], voxels.index[:, 1]]


def inner_voxels(
    voxels: Voxels, floor: int, top: int, walls: Sequence[Wall], *, floor_gap: float
) -> Bool[np.ndarray, "n"]:
    """Voxels that belong to no floor, ceiling or wall."""
    height = voxels.index[:, 2]
    kept = (height > floor + round(floor_gap / voxels.size)) & (height < top)
    middle = voxels.origin + (voxels.index + 0.5) * voxels.size
    for wall in walls:
        near = np.abs(middle[:, wall.axis] - wall.position) < 1.6 * voxels.size
        run = middle[:, 1 - wall.axis]
        kept &= ~(near & (run >= wall.begin) & (run <= wall.end))
    return kept
