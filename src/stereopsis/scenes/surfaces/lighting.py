"""Light on matt surfaces: two point lamps under the ceiling and an even ambient light (Lambert's law)."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lighting:
    """Two point lamps and an even ambient light; colours are RGB factors."""

    positions: Float[np.ndarray, "lamps 3"]
    strengths: Float[np.ndarray, "lamps"]
    ambient: float
    tint: Float[np.ndarray, "3"]


def draw_lighting(rng: np.random.Generator, size: tuple[float, float, float]) -> Lighting:
    """Two lamps under the ceiling, one stronger, with a slight warm or cold tint.

    Args:
        rng: the same state gives the same light.
        size: of the room, which begins at the origin, metres.
    """
    width, depth, height = size
    spots = rng.uniform(0.25, 0.75, (2, 2)) * (width, depth)
    positions = np.column_stack([spots, np.full(2, height - 0.25)])
    warmth = rng.uniform(-0.05, 0.05)
    return Lighting(
        positions=positions.astype(np.float32),
        strengths=np.array([rng.uniform(0.32, 0.45), rng.uniform(0.1, 0.2)], dtype=np.float32),
        ambient=float(rng.uniform(0.58, 0.68)),
        tint=np.array([1 + warmth, 1.0, 1 - warmth], dtype=np.float32),
    )


def triangle_normals(triangles: Float[np.ndarray, "triangles 3 3"]) -> Float[np.ndarray, "triangles 3"]:
    """Unit normals by winding order; zero for degenerate triangles."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def facing_normals(
    triangles: Float[np.ndarray, "triangles 3 3"],
    triangle: Int[np.ndarray, "rays"],
    directions: Float[np.ndarray, "rays 3"],
) -> Float[np.ndarray, "3 rays"]:
    """Unit normals of the triangles that rays hit, on the side that the rays come from."""
    normal = np.take(triangle_normals(triangles).T.copy(), triangle, axis=1)
    facing = normal[0] * directions[:, 0] + normal[1] * directions[:, 1] + normal[2] * directions[:, 2]
    normal *= np.where(facing > 0, np.float32(-1), np.float32(1))
    return normal


def lambert(
    lighting: Lighting, points: Float[np.ndarray, "3 rays"], normal: Float[np.ndarray, "3 rays"]
) -> Float[np.ndarray, "rays"]:
    """How brightly points are lit; 1 shows a surface in its own colour. No shadows are cast.

    Args:
        lighting: the lamps.
        points: [3, rays] metres.
        normal: [3, rays] unit length, on the side that is seen.
    """
    light = np.float32(lighting.ambient) * (1 + np.float32(0.12) * normal[2])
    for position, strength in zip(lighting.positions, lighting.strengths, strict=True):
        toward = position[:, None] - points
        squared = toward[0] ** 2 + toward[1] ** 2 + toward[2] ** 2
        cosine = (toward[0] * normal[0] + toward[1] * normal[1] + toward[2] * normal[2]) / np.sqrt(squared)
        light += strength * np.maximum(cosine, 0) / (1 + np.float32(0.05) * squared)
    return light
