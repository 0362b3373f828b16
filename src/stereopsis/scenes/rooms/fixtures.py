"""Bathroom pieces, and what hangs in or on walls (their back lies at the smallest x)."""

from stereopsis.scenes.rooms.shapes import Model, Role, cuboid, cylinder, ellipsoid, lathe, model

_B, _M, _D, _L = Role.BODY, Role.METAL, Role.DARK, Role.LIGHT


def toilet(size: str, variant: int) -> Model:
    """A tank, a bowl on a foot, and a raised lid."""
    parts = [
        (cuboid(-0.36, -0.18, -0.23, 0.23, 0.36, 0.82), _B),
        (cuboid(-0.37, -0.16, -0.24, 0.24, 0.82, 0.87), _B),
        (lathe([(0.13, 0), (0.12, 0.18), (0.21, 0.34), (0.22, 0.4)], 0.08, 0, stretch=(1.3, 1.0)), _B),
        (cuboid(-0.2, 0.02, -0.14, 0.14, 0, 0.36), _B),
        (lathe([(0.23, 0.4), (0.23, 0.44)], 0.08, 0, stretch=(1.25, 1.0)), _B),
        (lathe([(0.15, 0.44), (0.15, 0.445)], 0.09, 0, stretch=(1.3, 1.0)), _D),
        (cuboid(-0.18, -0.14, -0.19, 0.19, 0.44, 0.8), _L),
        (cuboid(-0.18, -0.12, -0.04, 0.04, 0.84, 0.88), _M),
    ]
    return model(parts)


def bathtub(size: str, variant: int) -> Model:
    """A long trough with a light inside and a tap at one end; its long side lies along y."""
    x, y, rim, wall = 0.37, 0.8, 0.56, 0.09
    parts = [
        (cuboid(-x, x, -y, y, 0, 0.2), _B),
        (cuboid(-x, -x + wall, -y, y, 0.2, rim), _B),
        (cuboid(x - wall, x, -y, y, 0.2, rim), _B),
        (cuboid(-x + wall, x - wall, -y, -y + wall, 0.2, rim), _B),
        (cuboid(-x + wall, x - wall, y - wall, y, 0.2, rim), _B),
        (cuboid(-x + wall, x - wall, -y + wall, y - wall, 0.2, 0.3 if variant == 0 else 0.4), _L),
        (cuboid(-0.04, 0.04, y - 0.08, y - 0.02, rim, rim + 0.2), _M),
        (cuboid(-0.04, 0.04, y - 0.24, y - 0.08, rim + 0.14, rim + 0.2), _M),
    ]
    return model(parts)


def sink(size: str, variant: int) -> Model:
    """A wash basin on a column, with a tap at the back."""
    parts = [
        (lathe([(0.16, 0), (0.1, 0.1), (0.09, 0.66)], -0.05, 0), _B),
        (cuboid(-0.24, 0.26, -0.3, 0.3, 0.66, 0.74), _B),
        (cuboid(-0.24, -0.12, -0.3, 0.3, 0.74, 0.86), _B),
        (cuboid(0.2, 0.26, -0.3, 0.3, 0.74, 0.86), _B),
        (cuboid(-0.12, 0.2, -0.3, -0.24, 0.74, 0.86), _B),
        (cuboid(-0.12, 0.2, 0.24, 0.3, 0.74, 0.86), _B),
        (cuboid(-0.12, 0.2, -0.24, 0.24, 0.74, 0.76), _L),
        (cuboid(-0.21, -0.15, -0.035, 0.035, 0.86, 1.06), _M),
        (cuboid(-0.15, 0.03, -0.03, 0.03, 1.0, 1.06), _M),
    ]
    return model(parts)


def door(size: str, variant: int) -> Model:
    """A leaf in a light frame, with a knob and raised panels."""
    half, top = (0.4, 2.0) if size == "small" else (0.72, 2.12)
    parts = [
        (cuboid(0, 0.03, -half, half, 0, top), _B),
        (cuboid(0, 0.05, -half - 0.08, -half, 0, top + 0.08), _L),
        (cuboid(0, 0.05, half, half + 0.08, 0, top + 0.08), _L),
        (cuboid(0, 0.05, -half, half, top, top + 0.08), _L),
    ]
    if size == "large":
        parts.append((cuboid(0.03, 0.046, -0.02, 0.02, 0, top), _D))
        leaves, knobs = [(-half, 0.0), (0.0, half)], [-0.09, 0.05]
    else:
        leaves, knobs = [(-half, half)], [half - 0.12]
    for y0, y1 in leaves:
        for z0, z1 in ((0.2, 0.9), (1.1, top - 0.2)):
            parts.append((cuboid(0.03, 0.045, y0 + 0.13, y1 - 0.1, z0, z1), _B))
    for y in knobs:
        parts.append((cuboid(0.03, 0.06, y, y + 0.05, 0.95, 1.06), _D))
    return model(parts)


def window(size: str, variant: int) -> Model:
    """A thick coloured frame with bars around bright panes."""
    half, tall = (0.38, 0.8) if size == "small" else (0.75, 1.15)
    parts = [
        (cuboid(0, 0.02, -half, half, 0, tall), Role.GLASS),
        (cuboid(0, 0.055, -half - 0.09, -half, -0.09, tall + 0.09), _B),
        (cuboid(0, 0.055, half, half + 0.09, -0.09, tall + 0.09), _B),
        (cuboid(0, 0.055, -half, half, tall, tall + 0.09), _B),
        (cuboid(0, 0.055, -half, half, -0.09, 0), _B),
        (cuboid(0, 0.045, -0.03, 0.03, 0, tall), _B),
    ]
    if variant == 0:
        parts.append((cuboid(0, 0.045, -half, half, tall / 2 - 0.03, tall / 2 + 0.03), _B))
    return model(parts)


def picture(size: str, variant: int) -> Model:
    """A canvas in a bold coloured frame."""
    half, tall = (0.2, 0.36) if size == "small" else (0.42, 0.62)
    frame = 0.075 if size == "small" else 0.1
    parts = [
        (cuboid(0, 0.02, -half, half, 0, tall), Role.CANVAS),
        (cuboid(0, 0.04, -half - frame, -half, -frame, tall + frame), _B),
        (cuboid(0, 0.04, half, half + frame, -frame, tall + frame), _B),
        (cuboid(0, 0.04, -half, half, tall, tall + frame), _B),
        (cuboid(0, 0.04, -half, half, -frame, 0), _B),
    ]
    return model(parts)


def pillow(size: str, variant: int) -> Model:
    """A swollen cushion, longer along y."""
    return model([(ellipsoid((0, 0, 0.08), (0.18, 0.28, 0.08), power=0.55), _B)])


def trash_can(size: str, variant: int) -> Model:
    """A bin that widens to a dark opening, or a pedal bin with a dome."""
    parts = [(lathe([(0.14, 0), (0.19, 0.46)]), _B), (lathe([(0.205, 0.46), (0.205, 0.5)]), _B)]
    if variant == 0:
        parts.append((cylinder(0.16, 0.5, 0.505), _D))
    else:
        parts.append((lathe([(0.17, 0.5), (0.15, 0.57), (0.08, 0.62)]), _M))
    return model(parts)
