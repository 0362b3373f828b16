"""Small things: on the floor, or standing on furniture."""

import math

from stereopsis.scenes.rooms.shapes import Model, Role, cuboid, cylinder, ellipsoid, lathe, model, slab

_B, _M, _D, _L = Role.BODY, Role.METAL, Role.DARK, Role.LIGHT


def lamp(size: str, variant: int) -> Model:
    """A coloured shade on a foot ("small", mostly on furniture) or on a long pole ("large", on the floor)."""
    if size == "small":
        foot = lathe([(0.1, 0), (0.1, 0.02), (0.05, 0.05), (0.05, 0.16), (0.02, 0.2)])
        return model([(foot, _M), (cylinder(0.02, 0.2, 0.26, sides=8), _M), (lathe([(0.18, 0.24), (0.11, 0.5)]), _B)])
    shade = [(0.27, 1.12), (0.15, 1.5)] if variant == 0 else [(0.22, 1.12), (0.22, 1.5)]
    return model([(cylinder(0.18, 0, 0.04), _D), (cylinder(0.03, 0.04, 1.14, sides=8), _D), (lathe(shade), _B)])


def television(size: str, variant: int) -> Model:
    """A wide thin screen in a coloured case, on two feet."""
    parts = [
        (cuboid(-0.05, 0.02, -0.5, 0.5, 0.05, 0.65), _B),
        (cuboid(0.02, 0.03, -0.43, 0.43, 0.12, 0.58), _D),
        (cuboid(-0.1, 0.1, -0.36, -0.3, 0, 0.05), _M),
        (cuboid(-0.1, 0.1, 0.3, 0.36, 0, 0.05), _M),
    ]
    return model(parts)


def monitor(size: str, variant: int) -> Model:
    """A computer screen in a coloured case, on a neck and a base plate."""
    parts = [
        (cuboid(-0.04, 0.02, -0.27, 0.27, 0.16, 0.54), _B),
        (cuboid(0.02, 0.025, -0.215, 0.215, 0.215, 0.485), _D),
        (cuboid(-0.06, -0.02, -0.035, 0.035, 0.02, 0.3), _M),
        (cuboid(-0.11, 0.1, -0.13, 0.13, 0, 0.025), _M),
    ]
    return model(parts)


def plant(size: str, variant: int) -> Model:
    """Coloured foliage (a flowering bush) over a grey pot; small ones fit on furniture."""
    if size == "small":
        parts = [(lathe([(0.06, 0), (0.09, 0.13)]), _M)]
        tufts = ((0.05, 0.06, 0.2), (-0.07, 0.02, 0.22), (0.03, -0.07, 0.2), (0.0, 0.0, 0.3))
        parts += [(ellipsoid(centre, (0.08, 0.08, 0.08)), _B) for centre in tufts]
        return model(parts)
    parts = [(lathe([(0.15, 0), (0.21, 0.32)]), _M), (cylinder(0.03, 0.32, 0.6, sides=8), Role.STEM)]
    if variant == 0:
        leaves = ((0.14, 0.1, 0.62), (-0.15, 0.08, 0.68), (0.05, -0.16, 0.66), (0.02, 0.02, 0.92))
        parts += [(ellipsoid(centre, (0.19, 0.19, 0.2)), _B) for centre in leaves]
    else:
        for i in range(6):
            a = i * math.pi / 3
            c, s = math.cos(a), math.sin(a)
            u = (0.3 * c, 0.3 * s, 0.45 if i % 2 else 0.25)
            parts.append((slab((0.06 * s, -0.06 * c, 0.5), u, (-0.13 * s, 0.13 * c, 0), (0.02, 0.02, 0.05)), _B))
        parts.append((lathe([(0.06, 0.55), (0.1, 0.75), (0.0, 1.1)]), _B))
    return model(parts)


def vase(size: str, variant: int) -> Model:
    """A bellied vessel with a neck, dark inside."""
    if variant == 0:
        profile = [(0.06, 0), (0.13, 0.12), (0.12, 0.2), (0.05, 0.28), (0.05, 0.32), (0.08, 0.38)]
    else:
        profile = [(0.05, 0), (0.07, 0.04), (0.15, 0.24), (0.14, 0.3), (0.07, 0.36)]
    top_radius, top = profile[-1]
    return model([(lathe(profile), _B), (cylinder(top_radius * 0.75, top, top + 0.003), _D)])


def carton(size: str, variant: int) -> Model:
    """A packing box: closed with light tape, or open with its flaps folded out."""
    a, tall = 0.2, 0.34
    if variant == 0:
        tape = cuboid(-a - 0.003, a + 0.003, -0.04, 0.04, 0.2, tall + 0.004)
        return model([(cuboid(-a, a, -a * 1.2, a * 1.2, 0, tall), _B), (tape, _L)])
    b = a * 1.2
    parts = [
        (cuboid(-a, a, -b, b, 0, tall - 0.02), _B),
        (cuboid(-a + 0.02, a - 0.02, -b + 0.02, b - 0.02, tall - 0.02, tall - 0.015), _D),
        (slab((a, -b, tall - 0.02), (0.13, 0, 0.1), (0, 2 * b, 0), (-0.02, 0, 0.01)), _B),
        (slab((-a, -b, tall - 0.02), (-0.13, 0, 0.1), (0, 2 * b, 0), (0.02, 0, 0.01)), _B),
        (slab((-a, b, tall - 0.02), (0, 0.13, 0.1), (2 * a, 0, 0), (0, -0.02, 0.01)), _B),
        (slab((-a, -b, tall - 0.02), (0, -0.13, 0.1), (2 * a, 0, 0), (0, 0.02, 0.01)), _B),
    ]
    return model(parts)
