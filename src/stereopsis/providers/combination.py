"""Depth of one provider with the cameras of another: every depth image is brought to the cameras' unit by sure points.

Networks that see one picture, or a few, know depth up to a scale (and a shift) of each picture's own. The points whose
depth the cameras' provider is sure of say which: fitted robustly, picture by picture.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView, GeometryProvider, Picture

LEAST_PLACES = 8
"""Sure points from which a picture's scale is fitted; from three times as many on, a shift too."""
_ROUNDS = 10
_MIN_SPREAD = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """depth of the cameras = scale * depth of the network + shift.

    Attributes:
        scale: above 0.
        shift: in the cameras' unit.
        error: median of the relative errors after it.
        places: how many points were used.
    """

    scale: float
    shift: float
    error: float
    places: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination(GeometryProvider):
    """See the module's docstring.

    Attributes:
        cameras: gives poses.
        depths: gives depth.
    """

    cameras: GeometryProvider
    depths: GeometryProvider

    def __post_init__(self) -> None:
        if not self.cameras.gives_poses:
            raise SceneError(
                f"--geometry {self.name}: {self.cameras.name} estimates no cameras; name one that does first, e.g. "
                f"colmap+{self.cameras.name}"
            )
        if not self.depths.gives_depth:
            raise SceneError(
                f"--geometry {self.name}: {self.depths.name} estimates no dense depth; name another second"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """Both names, the cameras' first."""
        return f"{self.cameras.name}+{self.depths.name}"

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        self.cameras.check()
        self.depths.check()

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`; views without a usable fit keep their cameras and get no depth."""
        found = self.cameras.estimate(pictures, in_order=in_order, known=known)
        straight = [as_straight(p, found.views[p.name]) for p in pictures if p.name in found.views]
        dense = self.depths.estimate(straight, in_order=in_order, known=found)
        views, fits, without = {}, {}, dict(dense.left_out)
        for name, view in found.views.items():
            own = dense.views.get(name)
            if own is None or own.depth is None:
                views[name] = dataclasses.replace(view, depth=None, valid=None)
                continue
            if own.T_world_camera is view.T_world_camera:  # it measured in the cameras' unit
                views[name] = dataclasses.replace(view, depth=own.depth, valid=own.valid)
                continue
            fit = fit_depth(own, view)
            if fit is None:
                without[name] = "too few sure points to bring its depth to the cameras' unit"
                views[name] = dataclasses.replace(view, depth=None, valid=None)
                continue
            fits[name] = fit
            depth = np.where(own.depth > 0, own.depth * fit.scale + fit.shift, 0).astype(np.float32)
            views[name] = dataclasses.replace(view, depth=depth, valid=own.valid)
        notes: dict[str, object] = {**found.notes, **dense.notes}
        if fits:
            notes["depth_fit_error"] = round(float(np.median([fit.error for fit in fits.values()])), 4)
        if without:
            notes["without_depth"] = without
        return EstimatedGeometry(views=views, metric=found.metric, left_out=found.left_out, notes=notes)


def as_straight(picture: Picture, view: EstimatedView) -> Picture:
    """The picture that a view's intrinsics describe."""
    camera = view.intrinsics
    load = view.straight or picture.load_colour
    return dataclasses.replace(picture, load_colour=load, size=(camera.width, camera.height), focal=camera.fx)


def depth_at(view: EstimatedView, places: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """What a view's depth image says at places of the picture; 0 where it is not to be believed."""
    depth = view.believed()
    assert depth is not None
    rows, cols = depth.shape
    x = np.clip(places[:, 0] * cols / view.intrinsics.width, 0, cols - 1).astype(int)
    y = np.clip(places[:, 1] * rows / view.intrinsics.height, 0, rows - 1).astype(int)
    return depth[y, x].astype(np.float64)


def fit_depth(dense: EstimatedView, sure: EstimatedView) -> Fit | None:
    """Scale and shift that bring dense depth to sure places: reweighted least squares on relative errors.

    Args:
        dense: with depth, in any unit.
        sure: with places.

    Returns:
        None where fewer than `LEAST_PLACES` places have depth.
    """
    found = depth_at(dense, sure.places)
    ok = found > 0
    x, y = found[ok], sure.places[ok, 2].astype(np.float64)
    if len(x) < LEAST_PLACES:
        return None
    scale, shift = float(np.median(y / x)), 0.0
    spread = (np.percentile(x, 90) - np.percentile(x, 10)) / np.median(x)
    shifted = len(x) >= 3 * LEAST_PLACES and spread >= _MIN_SPREAD
    columns = np.stack([x, np.ones_like(x)], axis=1) if shifted else x[:, None]
    for _ in range(_ROUNDS):
        error = (scale * x + shift - y) / y
        width = max(1.4826 * float(np.median(np.abs(error))), 1e-4)
        weight = 1 / (1 + (error / (2 * width)) ** 2) / y  # Cauchy, on relative errors
        solved = np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0]
        if solved[0] <= 0:
            break
        scale, shift = float(solved[0]), float(solved[1]) if shifted else 0.0
    error = np.abs(scale * x + shift - y) / y
    return Fit(scale=scale, shift=shift, error=float(np.median(error)), places=len(x))
