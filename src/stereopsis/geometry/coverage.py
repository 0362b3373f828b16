"""Maximum coverage: which few sets cover most of their union (Video-3D-LLM's choice of views), greedily and exactly.

A view's set is the 0.1 m voxels that its depth pixels fall into. The greedy choice takes, again and again,
the view that adds the most voxels that no chosen view has.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from stereopsis.geometry.camera import Intrinsics, check_pose, ray_slopes
from stereopsis.geometry.voxels import voxel_keys

VOXEL = 0.1
"""Video-3D-LLM's edge length of a voxel, metres."""

_DENSE_CELLS = 1 << 24  # bounding boxes up to this many voxels are addressed directly instead of sorted
_LARGEST_INDEX = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CoverageOrder:
    """The greedy order of some sets; the choice for any limit is a beginning of it.

    Attributes:
        order: int64 [picks] which set comes first, second, ...
        gains: int64 [picks] how many elements each adds that none before it has.
        total: elements in the union of all sets.
    """

    order: Int[np.ndarray, "picks"]
    gains: Int[np.ndarray, "picks"]
    total: int

    def first(self, views: int | None = None, ratio: float | None = None) -> list[int]:
        """The beginning of the order that reaches a share of the union, or a number of sets.

        Args:
            views: at most this many; None: no limit.
            ratio: stop as soon as at least this share of the union is covered, 0 < ratio <= 1; Video-3D-LLM
                uses 0.95 and 0.90. None: only `views` stops.

        Returns:
            In the order they were picked; at least one where there is any.

        Raises:
            ValueError: fewer than one view, or a ratio outside 0..1.
        """
        if views is not None and views < 1:
            raise ValueError(f"views is {views}, expected at least 1, or None for no limit")
        count = len(self.order) if views is None else min(views, len(self.order))
        if ratio is not None:
            if not 0.0 < ratio <= 1.0:
                raise ValueError(f"ratio is {ratio}, expected above 0 and at most 1, or None for no stop")
            # 0.7 * 30 is 21.000000000000004 in floating point, yet 21 of 30 are enough.
            needed = math.ceil(ratio * self.total - 1e-9 * max(self.total, 1))
            count = min(count, int(np.searchsorted(np.cumsum(self.gains), needed)) + 1)
        return [int(index) for index in self.order[:count]]


def depth_voxels(
    depth: Float[np.ndarray, "height width"],
    intrinsics: Intrinsics,
    T_world_camera: Float[np.ndarray, "4 4"],
    size: float = VOXEL,
) -> Int[np.ndarray, "count"]:
    """The voxels that a depth image's pixels fall into, as sorted `voxel_keys`.

    As in Video-3D-LLM, a coordinate belongs to the NEAREST multiple of `size` (halves to even): a floor at
    z = 0 then lies in the middle of its voxels, and noise does not throw it to and fro between two layers.

    Args:
        depth: [height, width] z-depth in metres; 0, negative and non-finite values are invalid.
        intrinsics: of the depth image.
        T_world_camera: camera to the frame in which voxels are counted, metres.
        size: edge length of a voxel, metres.

    Returns:
        int64 [count], none where no pixel is valid.

    Raises:
        ValueError: sizes that differ, an integer image, a pose that is not rigid, a size that is not
            positive, or points further than 2^20 voxels from the origin.
    """
    if not size > 0:
        raise ValueError(f"voxel size is {size}, expected a positive length in metres")
    if depth.dtype.kind != "f" or depth.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"depth: {depth.dtype} {list(depth.shape)}, expected floating-point metres "
            f"[{intrinsics.height}, {intrinsics.width}] as the intrinsics say"
        )
    check_pose(T_world_camera)
    valid = np.isfinite(depth) & (depth > 0)
    some = not valid.all()
    z = (np.where(valid, depth, 0.0) if some else depth).astype(np.float64)
    axes, low, shape = [], [], []
    axis = np.empty(depth.shape)
    for across, down, offset in ray_slopes(intrinsics, T_world_camera):
        np.add(across, down[:, None], out=axis)
        axis *= z
        axis += offset
        axis /= size
        np.rint(axis, out=axis)
        kept = axis[valid] if some else axis.reshape(-1)
        if not len(kept):
            return np.zeros(0, dtype=np.int64)
        smallest, largest = float(kept.min()), float(kept.max())
        if max(-smallest, largest) >= _LARGEST_INDEX:
            reach = max(-smallest, largest) * size
            raise ValueError(f"points reach {reach:.3g} m from the origin; check pose and depth")
        axes.append((kept - smallest).astype(np.int32))
        low.append(int(smallest))
        shape.append(int(largest - smallest) + 1)
    if math.prod(shape) > _DENSE_CELLS:  # a stray pixel far away: sort instead
        return np.unique(voxel_keys(np.stack(axes, axis=-1).astype(np.int64) + np.array(low)))
    cell = axes[0]
    cell *= shape[1]
    cell += axes[1]
    cell *= shape[2]
    cell += axes[2]
    seen = np.zeros(math.prod(shape), dtype=bool)
    seen[cell] = True
    return voxel_keys(np.stack(np.unravel_index(np.flatnonzero(seen), shape), axis=-1) + np.array(low))


def greedy_coverage(sets: Sequence[Int[np.ndarray, "_"]], *, limit: int | None = None) -> CoverageOrder:
    """Order sets by how much each adds to those before it; of equal gains, the lowest index comes first.

    The picks are those of the plain greedy algorithm. Its cost is not: instead of intersecting every set with
    what is covered at every pick, each newly covered element is taken off the gain of every set that holds
    it, once. That is linear in the sets' summed sizes, however many picks are made.

    Args:
        sets: distinct integers each (`depth_voxels`); empty sets are allowed and come last.
        limit: stop after this many picks; None orders all sets.

    Raises:
        ValueError: a set holds a number twice, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1, or None")
    count = len(sets)
    sizes = np.array([len(each) for each in sets], dtype=np.int64)
    if not sizes.sum():
        picks = min(count, count if limit is None else limit)
        return CoverageOrder(order=np.arange(picks), gains=np.zeros(picks, dtype=np.int64), total=0)
    columns, width = _columns(np.concatenate(sets))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    by_set = sparse.csr_array((np.ones(len(columns), dtype=np.int8), columns, starts), shape=(count, width))
    by_element = by_set.tocsc()  # a counting sort: linear
    _check_distinct(by_element)
    holders, element_starts = by_element.indices, by_element.indptr.astype(np.int64)
    covered = np.zeros(width, dtype=bool)
    gains = sizes.copy()
    order, gained = [], []
    for _ in range(count if limit is None else min(limit, count)):
        pick = int(np.argmax(gains))
        order.append(pick)
        gained.append(int(gains[pick]))
        if gains[pick]:
            own = columns[starts[pick] : starts[pick + 1]]
            new = own[~covered[own]]
            covered[new] = True
            begin, length = element_starts[new], element_starts[new + 1] - element_starts[new]
            # positions of all these elements' holders, one run after the other
            position = np.arange(length.sum()) + np.repeat(begin - (np.cumsum(length) - length), length)
            gains -= np.bincount(holders[position], minlength=count)
        gains[pick] = -1
    total = int(np.count_nonzero(np.diff(element_starts)))
    return CoverageOrder(order=np.array(order, dtype=np.int64), gains=np.array(gained, dtype=np.int64), total=total)


def _columns(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Small numbers for the keys, equal for equal keys, and a bound on them."""
    bits = 21
    parts = [(keys >> shift & ((1 << bits) - 1)) for shift in (2 * bits, bits, 0)]
    lows = [int(part.min()) for part in parts]
    shape = [int(part.max()) - low + 1 for part, low in zip(parts, lows, strict=True)]
    if keys.min() < 0 or int(keys.max()) >> 3 * bits or math.prod(shape) > _DENSE_CELLS:
        unique, inverse = np.unique(keys, return_inverse=True)
        return inverse.reshape(-1).astype(np.int32), len(unique)
    x, y, z = (part - low for part, low in zip(parts, lows, strict=True))
    return ((x * shape[1] + y) * shape[2] + z).astype(np.int32), math.prod(shape)


def _check_distinct(by_element: sparse.csc_array) -> None:
    holders, starts = by_element.indices, by_element.indptr
    same = holders[1:] == holders[:-1]
    same[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(holders))] - 1] = False
    if same.any():
        number = int(holders[1:][same][0])
        raise ValueError(f"set {number} holds a number more than once; pass each set through np.unique first")
