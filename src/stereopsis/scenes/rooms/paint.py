"""Named colours and procedural textures, evaluated at hit points in each object's own frame."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from stereopsis.scenes.rooms.shapes import Role

# name: (main colour, second colour of stripes, checks and grain), display RGB in 0..1.
PALETTE: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "red": ((0.90, 0.08, 0.08), (0.52, 0.03, 0.04)),
    "yellow": ((0.98, 0.86, 0.08), (0.70, 0.58, 0.02)),
    "green": ((0.10, 0.66, 0.16), (0.03, 0.36, 0.07)),
    "blue": ((0.10, 0.28, 0.95), (0.04, 0.12, 0.52)),
    "purple": ((0.52, 0.12, 0.78), (0.29, 0.04, 0.45)),
    "pink": ((1.00, 0.48, 0.74), (0.76, 0.28, 0.52)),
    "brown": ((0.42, 0.23, 0.09), (0.24, 0.12, 0.04)),
    "white": ((0.97, 0.97, 0.97), (0.72, 0.72, 0.72)),
    "black": ((0.07, 0.07, 0.08), (0.21, 0.21, 0.22)),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)
MATERIALS: tuple[str, ...] = ("plain", "striped", "checkered", "wooden")
MATERIAL_WEIGHTS = np.array([0.4, 0.2, 0.2, 0.2])

_ROLE_COLOURS = {
    Role.METAL: (0.55, 0.56, 0.58),
    Role.DARK: (0.17, 0.18, 0.20),
    Role.LIGHT: (0.86, 0.86, 0.83),
    Role.GLASS: (0.75, 0.90, 1.00),
    Role.CANVAS: (0.66, 0.78, 0.84),
    Role.STEM: (0.30, 0.38, 0.26),
}
PLAIN, STRIPED, CHECKERED, WOODEN, CANVAS, WALL, TILES, PLANKS, CARPET = range(9)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Paint:
    """How each triangle is painted.

    Attributes:
        main: [triangles, 3] RGB in 0..1.
        second: [triangles, 3] RGB of the texture's other tone.
        texture: [triangles] one of the texture numbers of this module.
        period: [triangles] texture length, metres.
        owner: [triangles] row of ``origin`` and ``quarter``.
        origin: [owners, 3] local origins, metres.
        quarter: [owners] quarter turns from local to world.
        glowing: [triangles] True where light does not change the colour (window panes).
    """

    main: Float[np.ndarray, "triangles 3"]
    second: Float[np.ndarray, "triangles 3"]
    texture: Int[np.ndarray, "triangles"]
    period: Float[np.ndarray, "triangles"]
    owner: Int[np.ndarray, "triangles"]
    origin: Float[np.ndarray, "owners 3"]
    quarter: Int[np.ndarray, "owners"]
    glowing: Bool[np.ndarray, "triangles"]


def object_tones(colour: str, roles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Main and second RGB [triangles, 3] of an object's triangles from its colour's name and their roles."""
    main_by_role = np.array([PALETTE[colour][0], *(_ROLE_COLOURS[role] for role in list(Role)[1:])])
    second_by_role = main_by_role * 0.55
    second_by_role[Role.BODY] = PALETTE[colour][1]
    second_by_role[Role.CANVAS] = (0.28, 0.34, 0.27)
    return main_by_role[roles], second_by_role[roles]


def texture_mix(
    texture: int,
    local: Float[np.ndarray, "3 points"],
    normal_z: Float[np.ndarray, "points"],
    period: Float[np.ndarray, "points"],
) -> Float[np.ndarray, "points"]:
    """How much of the second tone shows (0..1) at local points of one texture.

    Args:
        texture: one of the texture numbers.
        local: points in the object's frame, metres.
        normal_z: z component of the surface normals there.
        period: texture length, metres.
    """
    x, y, z = local
    flat = np.abs(normal_z) > 0.7
    if texture == STRIPED:
        along = np.where(flat, x, z)
        return ((along / period + 0.13) % 1.0 > 0.5).astype(np.float32)
    if texture in (CHECKERED, CARPET):
        cells = np.floor((local + np.float32(0.0137)) / period).sum(axis=0)
        amount = 1.0 if texture == CHECKERED else 0.35
        return (cells % 2).astype(np.float32) * np.float32(amount)
    if texture == WOODEN:
        across, along = np.where(flat, x, z), y + 0.3 * x
        wave = across / period + 0.35 * np.sin(along * np.float32(7.0)) + 0.2 * np.sin(along * np.float32(17.0))
        return (0.4 + 0.4 * np.sin(wave * np.float32(2 * np.pi))).astype(np.float32)
    if texture == CANVAS:
        hills = np.float32(0.09) * np.sin(y * np.float32(9.0)) + np.float32(0.05) * np.sin(y * np.float32(23.0))
        return (z < period * np.float32(1.9) + hills).astype(np.float32)
    if texture == WALL:
        return (z < 0.09).astype(np.float32)
    if texture == TILES:
        edge = np.minimum(x / period % 1.0, y / period % 1.0) * period
        return (edge < 0.035).astype(np.float32)
    if texture == PLANKS:
        row = np.floor(y / period)
        seam = (y / period % 1.0) * period < 0.02
        tone = (row * 37 + np.floor((x + row * np.float32(0.55)) / np.float32(1.1)) * 17) % 5
        return np.where(seam, 0.9, tone * 0.13).astype(np.float32)
    return np.zeros(len(local), dtype=np.float32)
