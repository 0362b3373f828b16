"""A scene seen from straight above (Ross3D's global view): the picture, its frame, and points drawn into it.

`splat_birdseye` draws points with a z-buffer; `stereopsis.geometry.birdseye_mesh` casts rays at triangles. Both
share the rules here: how the extent is found, what counts as a ceiling, and how small holes are filled.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

_SLAB = 0.05  # height of the slabs in which a ceiling is looked for, metres
_CELL = 0.1  # side of the floor-plan cells that a slab is measured in, metres
_CEILING_POINTS = 500_000  # more are thinned by a fixed stride
_PIECE = 1 << 17  # points that are drawn at a time


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BirdsEyeView:
    """A scene seen from straight above.

    Attributes:
        image: uint8 [size, size, 3]; row 0 is the largest y, column 0 the smallest x of the aligned frame.
        void: [size, size], True where nothing was seen.
        origin: aligned-frame (x, y) of the image's top-left corner, metres.
        metres_per_pixel: scale, the same along both axes.
        height: float32 [size, size] z of what is seen, metres in the aligned frame, NaN where void; None where
            unknown (views that were read from a folder: heights and labels are not stored).
        labels: [size, size] instance or category number of what is seen, -1 where void; None where unknown.
        filled: [size, size], True where nothing was seen but a small hole was filled from its surroundings
            (these pixels are not void; ``~void & ~filled`` are the measured ones); None where nothing was.
    """

    image: UInt8[np.ndarray, "size size 3"]
    void: Bool[np.ndarray, "size size"]
    origin: tuple[float, float]
    metres_per_pixel: float
    height: Float[np.ndarray, "size size"] | None = None
    labels: Int[np.ndarray, "size size"] | None = None
    filled: Bool[np.ndarray, "size size"] | None = None

    @property
    def measured(self) -> Bool[np.ndarray, "size size"]:
        """Where something was seen: neither void nor filled."""
        return ~self.void if self.filled is None else ~self.void & ~self.filled


def ceiling_height(
    points: Float[np.ndarray, "n 3"], *, min_height: float = 1.8, min_coverage: float = 0.1
) -> float | None:
    """Height of the ceiling, or None where the points show none.

    The space is cut into horizontal slabs of 5 cm, and in each the occupied 10 cm floor-plan cells are
    counted (area, not points: close surfaces have more points). Walls give every slab the same few cells; a
    ceiling is the highest slab, at least `min_height` above the floor, with at least twice the median of the
    slabs above 1 m and at least `min_coverage` of the whole plan. The floor is the 1st percentile of the
    heights.

    Args:
        points: [n, 3] aligned frame (z up), metres.
        min_height: lowest ceiling above the floor, metres.
        min_coverage: least share of the plan's occupied cells that a ceiling covers.
    """
    if len(points) == 0:
        return None
    points = points[:: -(-len(points) // _CEILING_POINTS)]
    floor = float(np.percentile(points[:, 2], 1))
    plan = np.floor(points[:, :2] / _CELL).astype(np.int64)
    plan -= plan.min(axis=0)
    cell = plan[:, 0] * (int(plan[:, 1].max()) + 1) + plan[:, 1]
    cells = _renumber(cell)
    slab = np.floor((points[:, 2] - floor) / _SLAB).astype(np.int64)
    above = slab >= round(1.0 / _SLAB)
    if not above.any():
        return None
    slabs = int(slab.max()) + 1
    occupied = np.zeros((slabs, cells), dtype=bool)
    occupied[slab[above], cell[above]] = True
    # A tilted or noisy ceiling straddles slabs: count what three neighbours cover together.
    thick = occupied.copy()
    thick[1:] |= occupied[:-1]
    thick[:-1] |= occupied[1:]
    area = thick.sum(axis=1)
    seen = area[round(1.0 / _SLAB) :]
    needed = max(2.0 * float(np.median(seen[seen > 0])), min_coverage * cells)
    strong = np.flatnonzero(area >= needed)
    strong = strong[strong * _SLAB >= min_height]
    if not len(strong):
        return None
    low, high = floor + (strong[-1] - 1) * _SLAB, floor + (strong[-1] + 2) * _SLAB
    near = points[:, 2][(points[:, 2] >= low) & (points[:, 2] < high)]
    return float(np.median(near))


def _renumber(cell: np.ndarray) -> int:
    """Give the cells that occur the numbers 0, 1, ... in place, in their order, and return how many there are."""
    size = int(cell.max()) + 1
    if size > 10 * len(cell) + 1_000_000:  # stray points far away: sorting needs less memory
        found, cell[:] = np.unique(cell, return_inverse=True)
        return len(found)
    occurs = np.zeros(size, dtype=bool)
    occurs[cell] = True
    number = np.cumsum(occurs) - 1
    cell[:] = number[cell]
    return int(number[-1]) + 1


def _extent(xy: np.ndarray, trim: float) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) without the outermost `trim` share of points at each end of each axis."""
    last = len(xy) - 1
    low, high = int(np.floor(last * trim)), int(np.ceil(last * (1.0 - trim)))
    x, y = xy[:, 0], xy[:, 1]
    return _smallest(x, low), _smallest(y, low), -_smallest(-x, last - high), -_smallest(-y, last - high)


def _smallest(values: np.ndarray, rank: int) -> float:
    """The value of this rank, 0 = the smallest; for ranks near either end of many values, faster than sorting them."""
    sample = values[:: max(1, len(values) // 20_000)]
    # About twice as many sample values lie below this one as the rank's share says.
    guess = min(len(sample) - 1, int(2 * rank / len(values) * len(sample)) + 10)
    low = values[values <= np.partition(sample, guess)[guess]]
    if len(low) <= rank:
        low = values
    return float(np.partition(low, rank)[rank])


def cut_height(
    points: Float[np.ndarray, "n 3"], ceiling: float | Literal["auto"] | None, ceiling_gap: float
) -> float | None:
    """The height above which nothing is drawn, metres; None where everything is. See `splat_birdseye`."""
    if ceiling != "auto":
        return ceiling
    found = ceiling_height(points)
    return None if found is None else found - ceiling_gap


def empty_view(
    size: int,
    extent: tuple[float, float, float, float] | None,
    points: Float[np.ndarray, "n 3"],
    margin: float,
    trim: float,
) -> BirdsEyeView:
    """A view of nothing but void, framed around an extent or around points. See `splat_birdseye`.

    Raises:
        ValueError: no pixels, or an extent without area.
    """
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1 pixel")
    if extent is None:
        x_min, y_min, x_max, y_max = _extent(points[:, :2], trim)
        x_min, y_min, x_max, y_max = x_min - margin, y_min - margin, x_max + margin, y_max + margin
    else:
        x_min, y_min, x_max, y_max = (float(value) for value in extent)
    side = max(x_max - x_min, y_max - y_min)
    if not (side > 0 and x_max >= x_min and y_max >= y_min):
        raise ValueError(f"extent {(x_min, y_min, x_max, y_max)} is empty; expected x_min, y_min, x_max, y_max")
    return BirdsEyeView(
        image=np.zeros((size, size, 3), dtype=np.uint8),
        void=np.ones((size, size), dtype=bool),
        origin=((x_min + x_max - side) / 2, (y_min + y_max + side) / 2),
        metres_per_pixel=side / size,
        height=np.full((size, size), np.nan, dtype=np.float32),
    )


def splat_birdseye(
    points: Float[np.ndarray, "n 3"],
    colours: UInt8[np.ndarray, "n 3"],
    *,
    labels: Int[np.ndarray, "n"] | None = None,
    size: int = 432,
    extent: tuple[float, float, float, float] | None = None,
    ceiling: float | Literal["auto"] | None = "auto",
    ceiling_gap: float = 0.2,
    margin: float = 0.1,
    trim: float = 0.001,
    fill_radius: float = 0.0,
) -> BirdsEyeView:
    """Draw points from above: the highest point of each pixel wins (at equal heights, the last one given).

    Args:
        points: [n, 3] aligned frame (z up), metres.
        colours: [n, 3] RGB.
        labels: [n] instance or category numbers for the view's ``labels``; None leaves these out.
        size: pixels along each side of the square image; 432 is Ross3D's.
        extent: (x_min, y_min, x_max, y_max) to show, metres. None: the points' own, without the outermost
            `trim` share at each end of each axis (stray depth pixels would otherwise shrink the room), plus
            the margin. The longer side fills the image, the scene is centred, and both axes have one scale.
            Points outside are not drawn.
        ceiling: points above this height are left out. "auto": `ceiling_height` minus `ceiling_gap`, or
            everything is kept where no ceiling is found. None: everything is kept.
        ceiling_gap: metres below a found ceiling at which to cut.
        margin: metres added around an automatic extent.
        trim: share of points that an automatic extent may lose at each end.
        fill_radius: pixels; see `fill_small_holes`.

    Raises:
        ValueError: no points left to draw, NaN or inf points, counts that differ, or an extent without area.
    """
    if len(points) != len(colours):
        raise ValueError(f"{len(points)} points but {len(colours)} colours; one colour per point is needed")
    if labels is not None and len(points) != len(labels):
        raise ValueError(f"{len(points)} points but {len(labels)} labels; one label per point is needed")
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or inf; drop invalid points first")
    limit = cut_height(points, ceiling, ceiling_gap)
    kept = None if limit is None else points[:, 2] <= limit
    if kept is not None and not kept.all():
        points, colours = points[kept], colours[kept]
        labels = None if labels is None else labels[kept]
    if not len(points):
        raise ValueError("no points to draw from above" + ("" if limit is None else f" below {limit:.2f} m"))
    view = empty_view(size, extent, points, margin, trim)
    return fill_small_holes(_draw(view, points, colours, labels), fill_radius)


def _draw(view: BirdsEyeView, points: np.ndarray, colours: np.ndarray, labels: np.ndarray | None) -> BirdsEyeView:
    """An empty view with points drawn into it.

    Points are taken in pieces that fit the processor's cache. What lies below the highest point so far of
    its pixel drops out after one look, which is most of what comes after the first pieces.
    """
    size = len(view.void)
    image = np.zeros((size * size, 3), dtype=np.uint8)
    seen = np.full(size * size, -1, dtype=np.int32)
    highest = np.full(size * size, -np.inf, dtype=points.dtype)
    for begin in range(0, len(points), _PIECE):
        piece = points[begin : begin + _PIECE]
        height = np.ascontiguousarray(piece[:, 2])
        u = (piece[:, 0].astype(np.float64) - view.origin[0]) / view.metres_per_pixel
        v = (view.origin[1] - piece[:, 1].astype(np.float64)) / view.metres_per_pixel
        inside = (u >= 0) & (u <= size) & (v >= 0) & (v <= size)
        number = None if inside.all() else np.flatnonzero(inside)
        if number is not None:
            u, v, height = u[number], v[number], height[number]
        # Inside, u and v are not negative: cutting the fraction off is floor.
        cell = np.minimum(v.astype(np.int64), size - 1) * size + np.minimum(u.astype(np.int64), size - 1)
        kept = np.flatnonzero(height >= highest[cell])
        number = kept if number is None else number[kept]
        cell, height = cell[kept], height[kept]
        np.maximum.at(highest, cell, height)
        winners = np.flatnonzero(height == highest[cell])
        image[cell[winners]] = colours[begin : begin + _PIECE][number[winners]]
        if labels is not None:
            seen[cell[winners]] = labels[begin : begin + _PIECE][number[winners]]
    void = np.isneginf(highest)
    return dataclasses.replace(
        view,
        image=image.reshape(size, size, 3),
        void=void.reshape(size, size),
        height=np.where(void, np.nan, highest).astype(np.float32).reshape(size, size),
        labels=None if labels is None else seen.reshape(size, size),
    )


def pixel_of(view: BirdsEyeView, xy: Float[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points 2"]:
    """Image coordinates (u right, v down) of aligned-frame (x, y); floor gives column and row. float64."""
    xy = np.asarray(xy, dtype=np.float64)
    u = (xy[..., 0] - view.origin[0]) / view.metres_per_pixel
    v = (view.origin[1] - xy[..., 1]) / view.metres_per_pixel
    return np.stack([u, v], axis=-1)


def world_of(view: BirdsEyeView, pixel: Float[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points 2"]:
    """Aligned-frame (x, y) of image coordinates (u, v), float64; pixel centres lie at +0.5."""
    pixel = np.asarray(pixel, dtype=np.float64)
    x = view.origin[0] + pixel[..., 0] * view.metres_per_pixel
    y = view.origin[1] - pixel[..., 1] * view.metres_per_pixel
    return np.stack([x, y], axis=-1)


def fill_small_holes(view: BirdsEyeView, radius: float) -> BirdsEyeView:
    """Give void pixels between seen ones the colour, height and label of the nearest seen pixel.

    Which pixels: those that a morphological closing by a disc of `radius` pixels adds, so that gaps up to
    about 2 * radius wide close while the scene's outline stays where it is. ``filled`` says which these are.

    Args:
        view: left unchanged.
        radius: pixels; 0 changes nothing.

    Raises:
        ValueError: a negative radius.
    """
    if radius < 0:
        raise ValueError(f"radius is {radius}, expected 0 or more pixels")
    if radius == 0 or view.void.all() or not view.void.any():
        return view
    pad = int(np.ceil(radius)) + 1
    distance, (rows, cols) = ndimage.distance_transform_edt(view.void, return_indices=True)
    # Beyond the border lies more void: pad before dilating, then erode by the same disc.
    grown = ndimage.distance_transform_edt(np.pad(view.void, pad, constant_values=True)) <= radius
    closed = (ndimage.distance_transform_edt(grown) > radius)[pad:-pad, pad:-pad]
    filled = view.void & closed & (distance <= radius)
    return dataclasses.replace(
        view,
        image=np.where(filled[..., None], view.image[rows, cols], view.image),
        void=view.void & ~filled,
        height=None if view.height is None else np.where(filled, view.height[rows, cols], view.height),
        labels=None if view.labels is None else np.where(filled, view.labels[rows, cols], view.labels),
        filled=filled if view.filled is None else filled | view.filled,
    )
