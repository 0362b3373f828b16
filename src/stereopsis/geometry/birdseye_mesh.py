"""A triangle mesh seen from straight above, by one vertical ray through each pixel's centre."""

import dataclasses
from typing import Literal

import numpy as np

from stereopsis.geometry.birdseye import BirdsEyeView, cut_height, empty_view, fill_small_holes, world_of
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.geometry.raycast import cast_hits, embree_scene

_SAMPLES = 300_000  # points on the surface by which ceiling and extent are found
_ABOVE = 1e-4  # metres above the cut at which rays start, so that a surface just at the cut is met


def raycast_birdseye(
    mesh: TriangleMesh,
    *,
    size: int = 432,
    extent: tuple[float, float, float, float] | None = None,
    ceiling: float | Literal["auto"] | None = "auto",
    ceiling_gap: float = 0.2,
    margin: float = 0.1,
    trim: float = 0.001,
    fill_radius: float = 0.0,
) -> BirdsEyeView:
    """Look straight down on a mesh: each pixel shows the highest surface under its centre.

    The conventions are those of `splat_birdseye`; ceiling and extent are found by the same rules, on points that
    are spread evenly over the surface. Both sides of a triangle are seen. A vertical wall without thickness is
    seen edge-on and so does not show; the splat of its points draws a line.

    Args:
        mesh: in the aligned frame (z up), metres.
        size: pixels along each side of the square image; 432 is Ross3D's.
        extent: (x_min, y_min, x_max, y_max) to show, metres; None: the surface's own, see `splat_birdseye`.
        ceiling: what lies above this height is left out; "auto" finds a ceiling; None keeps everything.
        ceiling_gap: metres below a found ceiling at which to cut.
        margin: metres added around an automatic extent.
        trim: share of the area that an automatic extent may lose at each end.
        fill_radius: pixels; see `fill_small_holes`.

    Returns:
        The view, with ``height`` and the triangles' ``labels``.

    Raises:
        ValueError: no surface left to draw, NaN or inf corners, or an extent without area.
        MissingExtraError: embreex is not installed.
    """
    if not np.isfinite(mesh.triangles).all():
        raise ValueError("the mesh holds NaN or inf; drop such triangles first")
    points = mesh.sample(_SAMPLES)
    limit = cut_height(points, ceiling, ceiling_gap)
    if limit is not None:
        points = points[points[:, 2] <= limit]
    if not len(points):
        raise ValueError("no surface to draw from above" + ("" if limit is None else f" below {limit:.2f} m"))
    view = empty_view(size, extent, points, margin, trim)
    top = float(mesh.triangles[..., 2].max()) + 1.0 if limit is None else limit + _ABOVE
    centres = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1).reshape(-1, 2)
    origins = np.column_stack([world_of(view, centres), np.full(size * size, top)]).astype(np.float32)
    down = np.tile(np.array([0, 0, -1], dtype=np.float32), (size * size, 1))
    hits = cast_hits(embree_scene(mesh.triangles), origins, down)
    seen = np.flatnonzero(hits.triangle >= 0)
    triangle, weights = hits.triangle[seen], hits.weights[seen]
    image = np.zeros((size * size, 3), dtype=np.uint8)
    height = np.full(size * size, np.nan, dtype=np.float32)
    labels = np.full(size * size, -1, dtype=np.int32)
    image[seen] = mesh.colours_at(triangle, weights)
    height[seen] = mesh.points_at(triangle, weights)[:, 2]
    labels[seen] = mesh.labels[triangle]
    drawn = dataclasses.replace(
        view,
        image=image.reshape(size, size, 3),
        void=(hits.triangle < 0).reshape(size, size),
        height=height.reshape(size, size),
        labels=labels.reshape(size, size),
    )
    return fill_small_holes(drawn, fill_radius)
