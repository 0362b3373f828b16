"""Light on painted surfaces: Lambert shading with two lamps, ambient light and soft contact shadows."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from stereopsis.scenes.rooms import paint as paints
from stereopsis.scenes.rooms.layout import Layout
from stereopsis.scenes.rooms.paint import Paint, texture_mix
from stereopsis.scenes.surfaces.lighting import Lighting, draw_lighting, facing_normals, lambert

_FLOOR_TRIANGLES = 2
_COS = np.array([1, 0, -1, 0], dtype=np.float32)
_SIN = np.array([0, 1, 0, -1], dtype=np.float32)


def make_lighting(layout: Layout) -> Lighting:
    """Two lamps under the ceiling, one stronger, with a slight warm or cold tint."""
    return draw_lighting(np.random.default_rng([layout.seed, 0, 4]), layout.size)


def _albedo(
    paint: Paint,
    triangle: Int[np.ndarray, "rays"],
    points: Float[np.ndarray, "3 rays"],
    normal_z: Float[np.ndarray, "rays"],
) -> Float[np.ndarray, "rays 3"]:
    """RGB of the surfaces at the hit points, before light."""
    texture = paint.texture[triangle]
    mix = np.zeros(len(triangle), dtype=np.float32)
    for number in np.flatnonzero(np.bincount(texture)):
        if number == paints.PLAIN:
            continue
        rows = np.flatnonzero(texture == number)
        chosen = triangle[rows]
        owners = paint.owner[chosen]
        origin = paint.origin[owners]
        x, y, z = (
            points[0, rows] - origin[:, 0],
            points[1, rows] - origin[:, 1],
            points[2, rows] - origin[:, 2],
        )
        quarter = paint.quarter[owners]
        c, s = _COS[quarter], _SIN[quarter]
        local = np.stack([c * x + s * y, c * y - s * x, z])
        mix[rows] = texture_mix(int(number), local, normal_z[rows], paint.period[chosen])
    colour = np.take(paint.main, triangle, axis=0)
    colour += mix[:, None] * np.take(paint.second - paint.main, triangle, axis=0)
    return colour


def _floor_shadow(layout: Layout, points: Float[np.ndarray, "2 points"]) -> Float[np.ndarray, "points"]:
    """Darkening 0..1 of floor points under and beside what stands there (a soft contact shadow)."""
    nearest = np.full(points.shape[1], np.inf, dtype=np.float32)
    for item in layout.objects:
        if item.low[2] < 0.01:
            centre = ((item.low + item.high) / 2).astype(np.float32)
            half = ((item.high - item.low) / 2).astype(np.float32)
            dx = np.maximum(np.abs(points[0] - centre[0]) - half[0], 0)
            dx += np.maximum(np.abs(points[1] - centre[1]) - half[1], 0)
            np.minimum(nearest, dx, out=nearest)
    return np.float32(0.38) * np.exp(nearest * np.float32(-8.0))


def shade(
    layout: Layout,
    triangles: Float[np.ndarray, "triangles 3 3"],
    paint: Paint,
    triangle: Int[np.ndarray, "rays"],
    points: Float[np.ndarray, "3 rays"],
    directions: Float[np.ndarray, "rays 3"],
) -> UInt8[np.ndarray, "rays 3"]:
    """Colours of hit points; never pure black, so that black furniture keeps its shape.

    Args:
        layout: the room.
        triangles: corners of everything that can be hit, floor first.
        paint: how the triangles are painted.
        triangle: which triangle each ray hit.
        points: where, metres.
        directions: of the rays; surfaces are lit on the side that faces the camera.
    """
    lighting = make_lighting(layout)
    normal = facing_normals(triangles, triangle, directions)
    light = lambert(lighting, points, normal)
    on_floor = np.flatnonzero(triangle < _FLOOR_TRIANGLES)
    light[on_floor] *= 1 - _floor_shadow(layout, points[:2, on_floor])
    light[paint.glowing[triangle]] = 1.0
    colour = _albedo(paint, triangle, points, normal[2])
    colour *= (light * np.float32(255))[:, None]
    colour *= lighting.tint
    return np.clip(colour, 6, 255, out=colour).astype(np.uint8)
