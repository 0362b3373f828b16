"""The unit of estimated geometry: metres where the provider, a known length, or the height of the camera says so.

Otherwise the scale stays unknown, and the scene says so. It is then brought to a size that rooms have, as the search
for floor and walls, voxels and views from above expect lengths of such a size, but nothing in it may be read as metres.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from stereopsis.errors import SceneError
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView

NOMINAL_DEPTH = 2.0
"""Middle depth, in metres, that a scene of unknown scale is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownDistance:
    """Somebody measured a length.

    Attributes:
        metres: the length.
        ends: two of "PICTURE" (where it was taken) or "PICTURE:COLUMN,ROW" (what it shows at that pixel).
    """

    metres: float
    ends: tuple[str, str]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.metres) and self.metres > 0):
            raise SceneError(f"--known-distance {self.metres}: expected metres above 0")


def in_unit(geometry: EstimatedGeometry, factor: float) -> EstimatedGeometry:
    """The same with all lengths multiplied."""
    views = {name: _times(view, factor) for name, view in geometry.views.items()}
    return dataclasses.replace(geometry, views=views)


def _times(view: EstimatedView, factor: float) -> EstimatedView:
    pose = None if view.T_world_camera is None else view.T_world_camera.copy()
    if pose is not None:
        pose[:3, 3] *= factor
    depth = None if view.depth is None else (view.depth * factor).astype(np.float32)
    return dataclasses.replace(view, T_world_camera=pose, depth=depth, places=view.places * [1, 1, factor])


def scaled(geometry: EstimatedGeometry, known: KnownDistance | None) -> tuple[EstimatedGeometry, dict[str, Any]]:
    """Geometry in metres, or in a nominal unit, and what a scene's provenance says of it.

    Args:
        geometry: what a provider estimated; its views have poses.
        known: a measured length, which goes before what the provider says.

    Raises:
        SceneError: the ends name no picture or nothing measured.
    """
    if known is not None:
        found = float(np.linalg.norm(_end(geometry.views, known.ends[0]) - _end(geometry.views, known.ends[1])))
        if not found > 0:
            raise SceneError(f"--between {' '.join(known.ends)}: both ends are the same place; name two that differ")
        factor = known.metres / found
        words = f"{known.metres:g} m between {known.ends[0]} and {known.ends[1]}, as was told"
        return in_unit(geometry, factor), {"known": True, "from": words, "factor": factor}
    if geometry.metric:
        return geometry, {"known": True, "from": "the provider answers in metres"}
    middle = middle_depth(geometry)
    return in_unit(geometry, NOMINAL_DEPTH / middle), {
        "known": False,
        "from": "unknown",
        "factor": NOMINAL_DEPTH / middle,
    }


def middle_depth(geometry: EstimatedGeometry) -> float:
    """Median over the views of the median of what each sees.

    Raises:
        SceneError: nothing has depth.
    """
    middles = []
    for view in geometry.views.values():
        depth = view.believed()
        values = view.places[:, 2] if depth is None or not depth.any() else depth[depth > 0]
        if len(values):
            middles.append(float(np.median(values)))
    if not middles:
        raise SceneError("no picture has any depth, so nothing can be placed; take more pictures, with more overlap")
    return float(np.median(middles))


def _end(views: Mapping[str, EstimatedView], end: str) -> np.ndarray:
    """Where it is, in the geometry's unit."""
    name, _, pixel = end.partition(":")
    view = views.get(name)
    if view is None or view.T_world_camera is None:
        near = ", ".join(list(views)[:3])
        raise SceneError(
            f"--between {end}: there is no estimated picture {name!r}; expected NAME (where it was taken) or "
            f"NAME:COLUMN,ROW (what it shows there), with a name such as {near}"
        )
    if not pixel:
        return view.T_world_camera[:3, 3]
    try:
        column, row = (float(part) for part in pixel.split(","))
    except ValueError as error:
        raise SceneError(f"--between {end}: expected NAME:COLUMN,ROW, two numbers of pixels") from error
    camera, depth = view.intrinsics, view.believed()
    if not (0 <= column < camera.width and 0 <= row < camera.height):
        raise SceneError(f"--between {end}: lies outside the picture of {camera.width}x{camera.height} pixels")
    z = 0.0
    if depth is not None:
        y, x = int(row * depth.shape[0] / camera.height), int(column * depth.shape[1] / camera.width)
        around = depth[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        z = float(np.median(around[around > 0])) if (around > 0).any() else 0.0
    if z <= 0:
        raise SceneError(f"--between {end}: no depth is known there; choose a pixel with more texture around it")
    point = np.array([(column - camera.cx) / camera.fx * z, (row - camera.cy) / camera.fy * z, z, 1.0])
    return (view.T_world_camera @ point)[:3]
