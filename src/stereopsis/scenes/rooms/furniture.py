"""Furniture that stands on the floor: builders of unscaled models (see `shapes` for the local frame)."""

from stereopsis.scenes.rooms.shapes import (
    Model,
    Real,
    Role,
    Surface,
    Triangles,
    cuboid,
    cylinder,
    lathe,
    model,
)

_B, _M, _D, _L = Role.BODY, Role.METAL, Role.DARK, Role.LIGHT


def _post(x: Real, y: Real, thick: Real, z0: Real, z1: Real) -> Triangles:
    return cuboid(x - thick / 2, x + thick / 2, y - thick / 2, y + thick / 2, z0, z1)


def _legs(half_x: Real, half_y: Real, thick: Real, top: Real) -> list[Triangles]:
    return [_post(sx * half_x, sy * half_y, thick, 0, top) for sx in (-1, 1) for sy in (-1, 1)]


def chair(size: str, variant: int) -> Model:
    """Four legs, a seat and an upright back."""
    parts = [(leg, _M) for leg in _legs(0.19, 0.19, 0.055, 0.42)]
    parts += [(cuboid(-0.23, 0.23, -0.23, 0.23, 0.41, 0.49), _B)]
    if variant == 0:
        parts += [(cuboid(-0.23, -0.165, -0.23, 0.23, 0.49, 0.98), _B)]
    elif variant == 1:
        parts += [(cuboid(-0.23, -0.17, sy * 0.2 - 0.035, sy * 0.2 + 0.035, 0.49, 0.98), _B) for sy in (-1, 1)]
        parts += [(cuboid(-0.225, -0.175, -0.17, 0.17, z, z + 0.12), _B) for z in (0.62, 0.85)]
    else:
        parts += [(cuboid(-0.23, -0.165, -0.23, 0.23, 0.6, 0.98), _B)]
        parts += [(cuboid(-0.22, -0.18, sy * 0.17 - 0.03, sy * 0.17 + 0.03, 0.49, 0.6), _M) for sy in (-1, 1)]
    return model(parts)


def stool(size: str, variant: int) -> Model:
    """A round seat on a pole with a foot plate, or on three splayed legs."""
    parts = [(cylinder(0.2, 0.5, 0.6), _B)]
    if variant == 0:
        parts += [(cylinder(0.035, 0.03, 0.5, sides=8), _M), (cylinder(0.18, 0, 0.03), _M)]
    else:
        parts += [(_post(x, y, 0.06, 0, 0.5), _M) for x, y in ((0.13, 0.0), (-0.08, 0.12), (-0.08, -0.12))]
    return model(parts)


def table(size: str, variant: int) -> Model:
    """A top on four legs, or a round top on one column."""
    if variant == 2:
        parts = [
            (cylinder(0.5, 0.68, 0.75, sides=16), _B),
            (cylinder(0.07, 0.05, 0.68, sides=8), _B),
            (lathe([(0.3, 0), (0.3, 0.03), (0.08, 0.08)]), _B),
        ]
        return model(parts, [Surface(x0=-0.34, x1=0.34, y0=-0.34, y1=0.34, z=0.75)])
    parts = [(leg, _B) for leg in _legs(0.33, 0.53, 0.08, 0.68)]
    parts += [(cuboid(-0.4, 0.4, -0.6, 0.6, 0.67, 0.74), _B)]
    return model(parts, [Surface(x0=-0.4, x1=0.4, y0=-0.6, y1=0.6, z=0.74)])


def desk(size: str, variant: int) -> Model:
    """A writing desk: top, one block of drawers, one side panel, a modesty panel at the back."""
    side = 1 if variant == 0 else -1
    drawer_y = (0.22, 0.6) if side > 0 else (-0.6, -0.22)
    panel_y = (-0.6, -0.54) if side > 0 else (0.54, 0.6)
    parts = [
        (cuboid(-0.3, 0.32, -0.62, 0.62, 0.7, 0.76), _B),
        (cuboid(-0.28, 0.28, *drawer_y, 0.04, 0.7), _B),
        (cuboid(-0.28, 0.28, *panel_y, 0, 0.7), _B),
        (cuboid(-0.28, -0.25, -0.58, 0.58, 0.25, 0.7), _B),
        (cuboid(-0.26, 0.24, *drawer_y, 0, 0.04), _D),
    ]
    for z in (0.1, 0.3, 0.5):
        parts.append((cuboid(0.28, 0.285, drawer_y[0] + 0.02, drawer_y[1] - 0.02, z - 0.02, z), _D))
        parts.append((cuboid(0.28, 0.31, side * 0.41 - 0.08, side * 0.41 + 0.08, z + 0.07, z + 0.1), _M))
    return model(parts, [Surface(x0=-0.3, x1=0.32, y0=-0.62, y1=0.62, z=0.76)])


def sofa(size: str, variant: int) -> Model:
    """A seat with a back and two arms; the variants differ in the number of cushions."""
    half = 0.8
    parts = [
        (cuboid(-0.42, 0.42, -half, half, 0.08, 0.3), _B),
        (cuboid(-0.42, -0.18, -half, half, 0.3, 0.86), _B),
        (cuboid(-0.42, 0.42, -half - 0.16, -half, 0.08, 0.62), _B),
        (cuboid(-0.42, 0.42, half, half + 0.16, 0.08, 0.62), _B),
    ]
    count = 2 + variant
    step = 2 * half / count
    for i in range(count):
        parts.append((cuboid(-0.18, 0.44, -half + i * step + 0.012, -half + (i + 1) * step - 0.012, 0.3, 0.45), _B))
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append((cylinder(0.04, 0, 0.08, sx * 0.35, sy * 0.85, sides=8), _D))
    return model(parts, [Surface(x0=-0.15, x1=0.42, y0=-half, y1=half, z=0.45)])


def bed(size: str, variant: int) -> Model:
    """A frame with a headboard, a light mattress and a coloured blanket; the front is the foot end."""
    half = 0.48 if size == "small" else 0.7
    parts = [
        (cuboid(-1.0, 1.0, -half, half, 0.14, 0.3), _B),
        (cuboid(-1.06, -0.98, -half - 0.03, half + 0.03, 0, 0.95 if variant == 0 else 0.8), _B),
        (cuboid(-0.98, 0.98, -half + 0.02, half - 0.02, 0.3, 0.48), _L),
        (cuboid(-0.42, 1.01, -half - 0.02, half + 0.02, 0.2, 0.53), _B),
    ]
    if variant == 1:
        parts.append((cuboid(1.0, 1.06, -half - 0.03, half + 0.03, 0, 0.62), _B))
    parts += [(leg, _D) for leg in _legs(0.9, half - 0.06, 0.08, 0.14)]
    return model(parts, [Surface(x0=-0.95, x1=-0.45, y0=-half + 0.03, y1=half - 0.03, z=0.48)])


def cabinet(size: str, variant: int) -> Model:
    """A sideboard with two or three doors, dark seams and knobs."""
    parts = [
        (cuboid(-0.22, 0.21, -0.55, 0.55, 0.08, 0.78), _B),
        (cuboid(-0.23, 0.24, -0.57, 0.57, 0.78, 0.83), _B),
        (cuboid(-0.2, 0.17, -0.5, 0.5, 0, 0.08), _D),
    ]
    doors = 2 + variant
    step = 1.1 / doors
    for i in range(doors):
        y = -0.55 + i * step
        parts.append((cuboid(0.21, 0.225, y + 0.02, y + step - 0.02, 0.12, 0.75), _B))
        parts.append((cuboid(0.21, 0.214, y - 0.001, y + 0.02, 0.1, 0.76), _D))
        knob = y + (step - 0.1 if i % 2 == 0 else 0.06)
        parts.append((cuboid(0.225, 0.25, knob, knob + 0.04, 0.4, 0.54), _M))
    return model(parts, [Surface(x0=-0.23, x1=0.24, y0=-0.57, y1=0.57, z=0.83)])


def bookshelf(size: str, variant: int) -> Model:
    """A tall open case with rows of grey books."""
    parts = [(cuboid(-0.16, 0.16, sy * 0.45 - 0.025, sy * 0.45 + 0.025, 0, 1.7), _B) for sy in (-1, 1)]
    parts.append((cuboid(-0.16, -0.13, -0.45, 0.45, 0, 1.7), _B))
    levels = (0.02, 0.36, 0.7, 1.04, 1.38)
    for z in (*levels, 1.66):
        parts.append((cuboid(-0.16, 0.16, -0.45, 0.45, z, z + 0.05), _B))
    tones = (_L, _D, _M)
    for row, z in enumerate(levels):
        y = -0.4
        for i in range(3 + (row + variant) % 3):
            wide = 0.06 + 0.05 * ((i * 7 + row * 3 + variant) % 3)
            tall = 0.19 + 0.03 * ((i * 5 + row) % 3)
            parts.append((cuboid(-0.12, 0.1, y, y + wide, z + 0.05, z + 0.05 + tall), tones[(i + row) % 3]))
            y += wide + 0.005
    return model(parts)


def nightstand(size: str, variant: int) -> Model:
    """A low cube: a drawer above an open compartment, on short legs."""
    parts = [
        (cuboid(-0.22, 0.22, -0.24, 0.24, 0.5, 0.55), _B),
        (cuboid(-0.21, 0.2, -0.23, 0.23, 0.33, 0.5), _B),
        (cuboid(-0.21, 0.2, -0.23, -0.19, 0.1, 0.33), _B),
        (cuboid(-0.21, 0.2, 0.19, 0.23, 0.1, 0.33), _B),
        (cuboid(-0.21, 0.2, -0.23, 0.23, 0.08, 0.12), _B),
        (cuboid(-0.21, -0.18, -0.19, 0.19, 0.12, 0.33), _D),
        (cuboid(0.2, 0.23, -0.06, 0.06, 0.4, 0.44), _M),
    ]
    parts += [(leg, _M) for leg in _legs(0.17, 0.19, 0.05, 0.08)]
    return model(parts, [Surface(x0=-0.22, x1=0.22, y0=-0.24, y1=0.24, z=0.55)])


def refrigerator(size: str, variant: int) -> Model:
    """A tall box with two doors and long handles."""
    split = 1.15 if variant == 0 else 0.62
    parts = [
        (cuboid(-0.33, 0.27, -0.34, 0.34, 0.05, 1.7), _B),
        (cuboid(-0.3, 0.25, -0.32, 0.32, 0, 0.05), _D),
        (cuboid(0.27, 0.275, -0.34, 0.34, 0.05, 1.7), _D),
        (cuboid(0.275, 0.33, -0.34, 0.34, 0.07, split - 0.02), _B),
        (cuboid(0.275, 0.33, -0.34, 0.34, split + 0.02, 1.7), _B),
        (cuboid(0.33, 0.38, 0.23, 0.28, split - 0.45, split - 0.06), _M),
        (cuboid(0.33, 0.38, 0.23, 0.28, split + 0.06, split + 0.4), _M),
    ]
    return model(parts)
