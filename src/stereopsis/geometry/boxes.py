"""Axis-aligned boxes [cx, cy, cz, dx, dy, dz]: centre and full side lengths, metres, aligned frame (z up)."""

import numpy as np
from jaxtyping import Float, Int

_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


def check_boxes(boxes: np.ndarray, what: str = "boxes") -> None:
    """Refuse arrays that are not boxes.

    Raises:
        ValueError: the last axis is not 6 long, values are NaN or inf, or a side is negative.
    """
    if boxes.shape[-1:] != (6,):
        raise ValueError(f"{what}: shape {boxes.shape}, expected (..., 6): cx cy cz dx dy dz")
    if not np.isfinite(boxes).all():
        raise ValueError(f"{what}: holds NaN or inf")
    if (boxes[..., 3:] < 0).any():
        raise ValueError(f"{what}: side lengths must not be negative; are these corners (min, max) instead?")


def box_volume(boxes: Float[np.ndarray, "*boxes 6"]) -> Float[np.ndarray, "*boxes"]:
    """Volume of each box, cubic metres."""
    return np.prod(boxes[..., 3:].astype(np.float64), axis=-1)


def intersection_volume(a: Float[np.ndarray, "n 6"], b: Float[np.ndarray, "m 6"]) -> Float[np.ndarray, "n m"]:
    """Volume that each box of `a` shares with each box of `b`, cubic metres, float64 [n, m].

    Raises:
        ValueError: see `check_boxes`.
    """
    check_boxes(a, "first boxes")
    check_boxes(b, "second boxes")
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    # Half extents minus the distance of the centres, rather than max/min corners: exact for equal boxes
    # anywhere.
    reach = (a[..., 3:] + b[..., 3:]) / 2 - np.abs(a[..., :3] - b[..., :3])
    overlap = np.minimum(reach, np.minimum(a[..., 3:], b[..., 3:]))
    return np.prod(np.clip(overlap, 0.0, None), axis=-1)


def iou(a: Float[np.ndarray, "n 6"], b: Float[np.ndarray, "m 6"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of each box of `a` with each box of `b`, float64 [n, m] in 0..1.

    A box without volume overlaps nothing: its IoU is 0, also with itself.

    Raises:
        ValueError: see `check_boxes`.
    """
    shared = intersection_volume(a, b)
    union = box_volume(a)[:, None] + box_volume(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def box_corners(boxes: Float[np.ndarray, "*boxes 6"]) -> Float[np.ndarray, "*boxes 8 3"]:
    """The eight corners, metres; corner i has the high x if i & 4, high y if i & 2, high z if i & 1."""
    return boxes[..., None, :3] + _SIGNS.astype(boxes.dtype) * boxes[..., None, 3:] / 2


def box_edges() -> Int[np.ndarray, "12 2"]:
    """The twelve edges as pairs of corner numbers of `box_corners`."""
    pairs = [(i, i | bit) for bit in (4, 2, 1) for i in range(8) if not i & bit]
    return np.array(pairs, dtype=np.int64)


def box_from_points(points: Float[np.ndarray, "*points 3"]) -> Float[np.ndarray, "6"]:
    """The smallest box around the points, float64.

    Raises:
        ValueError: no points, or NaN or inf among them.
    """
    flat = points.reshape(-1, 3).astype(np.float64)
    if not len(flat):
        raise ValueError("cannot put a box around zero points")
    if not np.isfinite(flat).all():
        raise ValueError("points hold NaN or inf; drop invalid points first")
    low, high = flat.min(axis=0), flat.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low])
