"""World coordinates per image cell, and their integer form for position encodings."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from stereopsis.geometry.camera import Intrinsics, check_pose

Crop = Literal["trailing", "centred"]
Holes = Literal["skip", "camera"]


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
    window, cells = _cells(valid.shape, rows, cols, min_valid_fraction, crop)
    inside = valid[window]
    whole = bool(inside.all())
    kept = points[window] if whole else np.where(inside[..., None], points[window], 0.0)
    total = np.stack([_sums(kept[..., axis].astype(np.float64), *cells) for axis in range(3)], axis=-1)
    return _means(total, _counts(inside, whole, *cells), min_valid_fraction, cells, points.dtype)


def depth_patch_coordinates(
    depth: Float[np.ndarray, "height width"],
    intrinsics: Intrinsics,
    T_world_camera: Float[np.ndarray, "4 4"],
    rows: int,
    cols: int,
    min_valid_fraction: float = 0.0,
    *,
    crop: Crop = "trailing",
    holes: Holes = "skip",
) -> PatchCoordinates:
    """`patch_coordinates` of a depth image's world points, without computing the points.

    A world point is linear in (depth * u, depth * v, depth), so the mean point of a cell follows from the
    cell's sums of these three: the pose is applied to one point per cell rather than to every pixel. The
    result is that of `unproject` and `patch_coordinates`, up to rounding.

    Args:
        depth: [height, width] z-depth in metres, already at the size of the model's image (nearest
            sampling); 0, negative and non-finite values are invalid.
        intrinsics: of that image.
        T_world_camera: camera to world (or aligned frame), metres.
        rows: cells down.
        cols: cells across.
        min_valid_fraction: as in `patch_coordinates`.
        crop: as in `patch_coordinates`.
        holes: "skip" leaves pixels without depth out. "camera" averages them in as the camera's own
            position, which is where Video-3D-LLM's released code puts them; every cell is valid then.

    Returns:
        Coordinates in the depth's dtype.

    Raises:
        ValueError: see `unproject` and `patch_coordinates`.
    """
    if depth.dtype.kind != "f" or depth.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"depth: {depth.dtype} {list(depth.shape)}, expected floating-point metres "
            f"[{intrinsics.height}, {intrinsics.width}] as the intrinsics say"
        )
    check_pose(T_world_camera)
    window, cells = _cells(depth.shape, rows, cols, min_valid_fraction, crop)
    part = depth[window]
    inside = np.isfinite(part) & (part > 0)
    whole = bool(inside.all())
    z = (part if whole else np.where(inside, part, 0.0)).astype(np.float64)
    if holes == "camera":
        inside, whole = np.ones_like(inside), True
    across = (np.arange(depth.shape[1]) + 0.5 - intrinsics.cx)[window[1]] / intrinsics.fx
    down = (np.arange(depth.shape[0]) + 0.5 - intrinsics.cy)[window[0]] / intrinsics.fy
    camera = np.stack([_sums(z, *cells, across=across), _sums(z, *cells, down=down), _sums(z, *cells)], axis=-1)
    count = _counts(inside, whole, *cells)
    T = np.asarray(T_world_camera, dtype=np.float64)
    total = camera @ T[:3, :3].T + count[..., None] * T[:3, 3]
    return _means(total, count, min_valid_fraction, cells, depth.dtype)


def _cells(
    shape: tuple[int, ...], rows: int, cols: int, min_valid_fraction: float, crop: Crop
) -> tuple[tuple[slice, slice], tuple[int, int, int, int]]:
    """The part of the image that the grid covers, and (rows, pixels down a cell, cols, pixels across a cell)."""
    height, width = shape
    if not (1 <= rows <= height and 1 <= cols <= width):
        raise ValueError(f"cannot lay {rows} x {cols} cells over an image of {height} x {width} pixels")
    if not 0.0 <= min_valid_fraction <= 1.0:
        raise ValueError(f"min_valid_fraction is {min_valid_fraction}, expected 0..1")
    cell_height, cell_width = height // rows, width // cols
    top, left = 0, 0
    if crop == "centred":
        top, left = (height - rows * cell_height) // 2, (width - cols * cell_width) // 2
    window = (slice(top, top + rows * cell_height), slice(left, left + cols * cell_width))
    return window, (rows, cell_height, cols, cell_width)


def _sums(
    values: np.ndarray,
    rows: int,
    cell_height: int,
    cols: int,
    cell_width: int,
    *,
    across: np.ndarray | None = None,
    down: np.ndarray | None = None,
) -> np.ndarray:
    """Sum of float64 values in each cell, each weighted by its column's `across` and its row's `down`."""
    weights = np.ones(rows * cell_height) if down is None else down
    # [rows, 1, pixels] @ [rows, pixels, width]: the rows of pixels of each row of cells, weighted and added.
    bands = np.matmul(weights.reshape(rows, 1, cell_height), values.reshape(rows, cell_height, -1))[:, 0]
    if across is not None:
        bands *= across
    return bands.reshape(rows, cols, cell_width).sum(axis=-1)


def _counts(inside: np.ndarray, whole: bool, rows: int, cell_height: int, cols: int, cell_width: int) -> np.ndarray:
    if whole:
        return np.full((rows, cols), cell_height * cell_width)
    return np.rint(_sums(inside.astype(np.float64), rows, cell_height, cols, cell_width)).astype(np.int64)


def _means(
    total: np.ndarray, count: np.ndarray, min_valid_fraction: float, cells: tuple[int, int, int, int], dtype: np.dtype
) -> PatchCoordinates:
    enough = (count > 0) & (count >= min_valid_fraction * cells[1] * cells[3])
    mean = np.where(enough[..., None], total / np.maximum(count, 1)[..., None], 0.0)
    return PatchCoordinates(coordinates=mean.astype(dtype), valid=enough)


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
