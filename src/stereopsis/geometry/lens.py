"""Lenses that bend straight lines, and pictures as a pinhole would have taken them.

A lens takes a direction (x, y, 1) to a place in the image. Perspective lenses bend (x, y) itself, fisheye lenses the
same direction by its angle from the axis; both are the models of OpenCV and COLMAP (radial, rational, tangential and
thin-prism terms). Depth along the axis belongs to a point and not to its place in the image, so depth images only move.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from stereopsis.geometry.camera import Intrinsics

WIDEST = 1.3
"""Radians from the axis: no pinhole picture is made that shows more (150 degrees across)."""
NEGLIGIBLE_SHIFT = 0.5
"""Pixels: what moves no pixel farther is left as it is, as resampling would blur more than it mends."""
_GRID = 65


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lens:
    """A camera with distortion.

    Attributes:
        camera: focal lengths, principal point and size of the distorted image.
        fisheye: whether the angle from the axis is bent, instead of its tangent.
        radial: coefficients of the second, fourth, ... power of the distance (or angle) from the axis.
        rational: the same of the polynomial that divides; empty = none.
        tangential: p1, p2.
        prism: sx1, sy1.
    """

    camera: Intrinsics
    fisheye: bool = False
    radial: tuple[float, ...] = ()
    rational: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    prism: tuple[float, float] = (0.0, 0.0)

    @property
    def straight(self) -> bool:
        """Whether it is a pinhole."""
        return not self.fisheye and not any((*self.radial, *self.rational, *self.tangential, *self.prism))

    def resized(self, width: int, height: int) -> "Lens":
        """The lens of the same image after resizing it."""
        return dataclasses.replace(self, camera=self.camera.resized(width, height))

    def distorted(
        self, x: Float[np.ndarray, "*n"], y: Float[np.ndarray, "*n"]
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        """Where the directions (x, y, 1) fall in the distorted image, pixels."""
        distance = np.hypot(x, y)
        if self.fisheye:
            angle = np.where(distance > 0, np.arctan(distance) / np.where(distance > 0, distance, 1.0), 1.0)
            x, y = x * angle, y * angle
        squared = x**2 + y**2
        factor = self._radial(squared)
        p1, p2 = self.tangential
        bent_x = x * factor + 2 * p1 * x * y + p2 * (squared + 2 * x**2) + self.prism[0] * squared
        bent_y = y * factor + p1 * (squared + 2 * y**2) + 2 * p2 * x * y + self.prism[1] * squared
        return self.camera.fx * bent_x + self.camera.cx, self.camera.fy * bent_y + self.camera.cy

    def reach(self) -> float:
        """The tangent of the angle from the axis up to which farther directions fall farther out in the image."""
        angles = np.linspace(0.0, WIDEST, 1300)
        out = angles if self.fisheye else np.tan(angles)
        steps = np.diff(out * self._radial(out**2))
        falling = np.flatnonzero(steps <= 0)
        return float(np.tan(angles[falling[0]] if len(falling) else WIDEST))

    def shift(self) -> float:
        """The largest distance, pixels, between where the lens and a pinhole put the same direction."""
        if self.straight:
            return 0.0
        x, y = _directions(self.camera)
        column, row = self.distorted(x, y)
        straight = self.camera.fx * x + self.camera.cx, self.camera.fy * y + self.camera.cy
        return float(np.hypot(column - straight[0], row - straight[1]).max())

    def _radial(self, squared: np.ndarray) -> np.ndarray:
        return _polynomial(self.radial, squared) / _polynomial(self.rational, squared)


def _polynomial(coefficients: tuple[float, ...], squared: np.ndarray) -> np.ndarray:
    total = np.ones_like(squared)
    for power, value in enumerate(coefficients, start=1):
        total += value * squared**power
    return total


def _directions(camera: Intrinsics, count: int = _GRID) -> tuple[np.ndarray, np.ndarray]:
    """X and y of a grid over the whole image, edges included."""
    columns, rows = np.linspace(0, camera.width, count), np.linspace(0, camera.height, count)
    x, y = np.meshgrid((columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy)
    return x, y


def pinhole_for(lens: Lens) -> Intrinsics:
    """The widest pinhole of the same size and principal point all of whose pixels the lens has seen.

    Raises:
        ValueError: there is none: the coefficients belong to another image.
    """
    camera, reach = lens.camera, lens.reach()

    def seen(zoom: float) -> bool:
        target = dataclasses.replace(camera, fx=camera.fx * zoom, fy=camera.fy * zoom)
        x, y = _directions(target)
        if np.hypot(x, y).max() > reach:
            return False
        return bool(_inside(*lens.distorted(x, y), camera).all())

    low, high = 0.1, 8.0
    if not seen(high):
        raise ValueError("no part of the image is free of folds; the coefficients do not belong to this camera")
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if seen(middle) else (middle, high)
    return dataclasses.replace(camera, fx=camera.fx * high, fy=camera.fy * high)


def _inside(column: np.ndarray, row: np.ndarray, camera: Intrinsics) -> Bool[np.ndarray, "*n"]:
    slack = 1e-6 * camera.width
    return (column >= -slack) & (column <= camera.width + slack) & (row >= -slack) & (row <= camera.height + slack)


@functools.lru_cache(maxsize=4)
def _places(lens: Lens, target: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in the distorted image, minus a half, of every pixel of the pinhole's."""
    x = (np.arange(target.width) + 0.5 - target.cx) / target.fx
    y = (np.arange(target.height) + 0.5 - target.cy) / target.fy
    column, row = lens.distorted(*np.meshgrid(x, y))
    return (column - 0.5).astype(np.float32), (row - 0.5).astype(np.float32)


def undistort_colour(
    picture: UInt8[np.ndarray, "height width 3"], lens: Lens, target: Intrinsics
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """The picture as the pinhole would have taken it, bilinear between pixels.

    Args:
        picture: the distorted one.
        lens: of the picture's size.
        target: of `pinhole_for`.
    """
    column, row = _places(lens, target)
    column, row = np.clip(column, 0, lens.camera.width - 1), np.clip(row, 0, lens.camera.height - 1)
    left = np.minimum(column.astype(np.intp), max(0, lens.camera.width - 2))
    top = np.minimum(row.astype(np.intp), max(0, lens.camera.height - 2))
    right, down = np.minimum(left + 1, lens.camera.width - 1), np.minimum(top + 1, lens.camera.height - 1)
    across, below = (column - left)[..., None], (row - top)[..., None]
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[down, left] * (1 - across) + picture[down, right] * across
    return np.rint(upper * (1 - below) + lower * below).astype(np.uint8)


def undistort_nearest(
    values: Shaped[np.ndarray, "height width"], lens: Lens, target: Intrinsics
) -> Shaped[np.ndarray, "new_height new_width"]:
    """Depth (or labels) as the pinhole would have seen them: the nearest pixel's, never a mixture.

    Args:
        values: the distorted image.
        lens: of the image's size.
        target: of `pinhole_for`.
    """
    column, row = (np.rint(place).astype(np.intp) for place in _places(lens, target))
    return values[np.clip(row, 0, lens.camera.height - 1), np.clip(column, 0, lens.camera.width - 1)]
