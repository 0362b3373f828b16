"""Triangle primitives that furniture is built from, and the `Model` that they add up to.

Local frame of a model: x points to the front, z up; the footprint is centred on the origin, the base at 0.
"""

import dataclasses
import enum
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

Triangles = Float[np.ndarray, "_ 3 3"]
Real = float | int  # strict run-time checkers do not take an int for a float


class Role(enum.IntEnum):
    """What a part of an object is painted with."""

    BODY = 0
    METAL = 1
    DARK = 2
    LIGHT = 3
    GLASS = 4
    CANVAS = 5
    STEM = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surface:
    """A horizontal rectangle that small items may stand on, in the model's frame, metres."""

    x0: float
    x1: float
    y0: float
    y1: float
    z: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """An unplaced object.

    Attributes:
        triangles: [triangles, 3, 3] corners in the local frame, metres.
        roles: [triangles] `Role` of each triangle.
        surfaces: where small items may stand.
    """

    triangles: Float[np.ndarray, "triangles 3 3"]
    roles: UInt8[np.ndarray, "triangles"]
    surfaces: tuple[Surface, ...] = ()


_CUBE_CORNERS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], dtype=np.float64)
_CUBE_FACES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


def cuboid(x0: Real, x1: Real, y0: Real, y1: Real, z0: Real, z1: Real) -> Triangles:
    """An axis-aligned box, 12 triangles with outward winding."""
    low, high = np.array([x0, y0, z0]), np.array([x1, y1, z1])
    return (low + _CUBE_CORNERS * (high - low))[_CUBE_FACES]


def slab(corner: Sequence[Real], u: Sequence[Real], v: Sequence[Real], w: Sequence[Real]) -> Triangles:
    """A parallelepiped spanned by the edges ``u``, ``v``, ``w`` from ``corner``: tilted boards."""
    return (np.asarray(corner) + _CUBE_CORNERS @ np.array([u, v, w], dtype=np.float64))[_CUBE_FACES]


@functools.lru_cache(maxsize=16)
def _ring(sides: int) -> Float[np.ndarray, "{sides} 2"]:
    angles = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def lathe(
    profile: Sequence[tuple[Real, Real]],
    x: Real = 0.0,
    y: Real = 0.0,
    *,
    sides: int = 12,
    stretch: tuple[Real, Real] = (1.0, 1.0),
) -> Triangles:
    """A solid of revolution about a vertical axis through (x, y), closed at both ends.

    Args:
        profile: (radius, z) from bottom to top, metres.
        x: axis position.
        y: axis position.
        sides: facets around; multiples of 4 make the bounding box exact.
        stretch: factors on the x and y radius (ellipses).
    """
    points = list(profile)
    if points[0][0] > 0:
        points.insert(0, (0.0, points[0][1]))
    if points[-1][0] > 0:
        points.append((0.0, points[-1][1]))
    ring = _ring(sides) * np.asarray(stretch)
    rings = np.empty((len(points), sides, 3))
    for row, (radius, z) in zip(rings, points, strict=True):
        row[:, :2] = ring * radius + (x, y)
        row[:, 2] = z
    following = np.roll(rings, -1, axis=1)
    lower, upper = rings[:-1], rings[1:]
    lower_next, upper_next = following[:-1], following[1:]
    first = np.stack([lower, lower_next, upper_next], axis=2)
    second = np.stack([lower, upper_next, upper], axis=2)
    radii = np.array([radius for radius, _ in points])
    return np.concatenate([first[radii[:-1] > 0].reshape(-1, 3, 3), second[radii[1:] > 0].reshape(-1, 3, 3)], axis=0)


def cylinder(radius: Real, z0: Real, z1: Real, x: Real = 0.0, y: Real = 0.0, sides: int = 12) -> Triangles:
    """An upright cylinder."""
    return lathe([(radius, z0), (radius, z1)], x, y, sides=sides)


def ellipsoid(centre: tuple[Real, Real, Real], radii: tuple[Real, Real, Real], power: Real = 1.0) -> Triangles:
    """An upright ellipsoid; ``power`` < 1 swells it towards its bounding box (pillows)."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 7)
    cosines = np.clip(np.cos(angles), 0.0, None) ** power
    cosines[[0, -1]] = 0.0
    sines = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power
    profile = [(float(c), float(centre[2] + radii[2] * s)) for c, s in zip(cosines, sines, strict=True)]
    return lathe(profile, centre[0], centre[1], stretch=(radii[0], radii[1]))


def model(parts: Sequence[tuple[Triangles, Role]], surfaces: Sequence[Surface] = ()) -> Model:
    """Join painted parts and centre the footprint on the origin, the base on z = 0."""
    triangles = np.concatenate([part for part, _ in parts])
    roles = np.concatenate([np.full(len(part), role, dtype=np.uint8) for part, role in parts])
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    shift = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    moved = tuple(
        Surface(x0=s.x0 - shift[0], x1=s.x1 - shift[0], y0=s.y0 - shift[1], y1=s.y1 - shift[1], z=s.z - shift[2])
        for s in surfaces
    )
    return Model(triangles=triangles - shift, roles=roles, surfaces=moved)
