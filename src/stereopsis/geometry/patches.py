"""World coordinates per image cell, and their integer form for position encodings."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Crop = Literal["trailing", "centred"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PatchCoordinates:
    """One world position per cell of a grid laid over an image.

    Attributes:
        coordinates: [rows, cols, 3] metres; zeros where invalid.
        valid: [rows, cols], False where too few pixels of the cell have depth.
    """

    coordinates: Float[np.ndarray, "rows cols 3"]
    valid: Bool[np.ndarray, "rows cols"]


def patch_coordinates(
    points: Float[np.ndarray, "height width 3"],
    valid: Bool[np.ndarray, "height width"],
    rows: int,
    cols: int,
    min_valid_fraction: float = 0.0,
    *,
    crop: Crop = "trailing",
) -> PatchCoordinates:
    """Mean world coordinate of the valid pixels in each cell.

    A cell is ``height // rows`` by ``width // cols`` pixels. What remains is left out: at the bottom and
    right with ``crop="trailing"``, as Video-3D-LLM does (384 -> 378 for 14 cells of 27 pixels: the last 6
    rows and columns), or half on each side with ``crop="centred"`` (the odd pixel at the end). Video-3D-LLM
    averages invalid pixels in as they are; here they are left out, so that a cell half covered by depth keeps
    a position on the surface.

    Args:
        points: [height, width, 3] metres.
        valid: [height, width].
        rows: cells down.
        cols: cells across.
        min_valid_fraction: share of a cell's pixels that must be valid, 0..1; at least one pixel always must.
        crop: which side loses the remainder.

    Raises:
        ValueError: more cells than pixels, or a fraction outside 0..1.
    """
    height, width = valid.shape
    if not (1 <= rows <= height and 1 <= cols <= width):
        raise ValueError(f"cannot lay {rows} x {cols} cells over an image of {height} x {width} pixels")
    if not 0.0 <= min_valid_fraction <= 1.0:
        raise ValueError(f"min_valid_fraction is {min_valid_fraction}, expected 0..1")
    cell_height, cell_width = height // rows, width // cols
    top, left = 0, 0
    if crop == "centred":
        top, left = (height - rows * cell_height) // 2, (width - cols * cell_width) // 2
    window = (slice(top, top + rows * cell_height), slice(left, left + cols * cell_width))
    cells = (rows, cell_height, cols, cell_width)
    inside = valid[window]
    kept = np.where(inside[..., None], points[window], 0.0).astype(np.float64)
    total = kept.reshape(*cells, 3).sum(axis=(1, 3))
    count = inside.reshape(cells).sum(axis=(1, 3))
    enough = (count > 0) & (count >= min_valid_fraction * cell_height * cell_width)
    mean = np.where(enough[..., None], total / np.maximum(count, 1)[..., None], 0.0)
    return PatchCoordinates(coordinates=mean.astype(points.dtype), valid=enough)


def discretise(
    coordinates: Float[np.ndarray, "*cells 3"],
    minimum: tuple[float, float, float] = (-15.0, -15.0, -5.0),
    maximum: tuple[float, float, float] = (15.0, 15.0, 5.0),
    step: float = 0.1,
) -> Int[np.ndarray, "*cells 3"]:
    """Clamp coordinates to a box and count steps from its lowest corner: ``round((c - minimum) / step)``.

    The defaults are Video-3D-LLM's: 0..300 along x and y, 0..100 along z. Halves round to even.

    Args:
        coordinates: [..., 3] metres.
        minimum: lowest corner of the box, metres.
        maximum: highest corner of the box, metres.
        step: metres per count.

    Returns:
        int64 [..., 3].

    Raises:
        ValueError: NaN coordinates, a step that is not positive, or an empty box.
    """
    low, high = np.asarray(minimum, dtype=np.float64), np.asarray(maximum, dtype=np.float64)
    if step <= 0 or (high <= low).any():
        raise ValueError(f"expected step > 0 and minimum < maximum, found {step}, {minimum}, {maximum}")
    if np.isnan(coordinates).any():
        raise ValueError("coordinates hold NaN; mark such cells invalid and set them to a number first")
    clamped = np.clip(coordinates.astype(np.float64), low, high)
    # Ten decimals swallow the noise of the division (0.15 / 0.1 = 1.4999...), so that halves are really
    # halves.
    return np.round(np.round((clamped - low) / step, 10)).astype(np.int64)
