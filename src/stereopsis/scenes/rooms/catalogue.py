"""The categories: how each is built, how often, how large, and where it may stand."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

from stereopsis.scenes.rooms import decor, fixtures, furniture
from stereopsis.scenes.rooms.shapes import Model

Placement = Literal["wall", "free", "top", "hung"]
Scale = tuple[float, float, float]
SIZES = ("small", "large")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Category:
    """One kind of object.

    Attributes:
        name: the word for it.
        build: (size, variant) -> unscaled model.
        variants: how many shapes there are.
        small: factors on x, y, z for the size "small".
        large: factors for the size "large"; at least a quarter more than "small" in some direction.
        placement: with its back to a wall, anywhere on the floor, only on furniture, or hung in a wall.
        supports: categories that it may stand on.
        most: largest count that is drawn at once.
        front: whether it has a front (and so a yaw).
    """

    name: str
    build: Callable[[str, int], Model]
    variants: int = 1
    small: Scale = (0.82, 0.82, 0.86)
    large: Scale = (1.16, 1.16, 1.12)
    placement: Placement = "free"
    supports: tuple[str, ...] = ()
    most: int = 4
    front: bool = True


_TABLES = ("table", "desk", "cabinet", "nightstand")
_UNIT = (1.0, 1.0, 1.0)

FURNITURE: tuple[Category, ...] = (
    Category(
        name="chair",
        build=furniture.chair,
        variants=3,
    ),
    Category(
        name="stool",
        build=furniture.stool,
        variants=2,
        front=False,
    ),
    Category(
        name="table",
        build=furniture.table,
        variants=3,
        most=3,
        front=False,
        small=(0.8, 0.8, 0.85),
    ),
    Category(
        name="desk",
        build=furniture.desk,
        variants=2,
        placement="wall",
        most=2,
        small=(0.85, 0.8, 0.92),
    ),
    Category(
        name="sofa",
        build=furniture.sofa,
        variants=2,
        placement="wall",
        most=2,
        small=(0.9, 0.7, 0.9),
        large=(1.08, 1.15, 1.05),
    ),
    Category(
        name="bed",
        build=furniture.bed,
        variants=2,
        placement="wall",
        most=2,
        small=(0.86, 0.92, 0.9),
        large=(1.04, 1.15, 1.1),
    ),
    Category(
        name="cabinet",
        build=furniture.cabinet,
        variants=2,
        placement="wall",
        most=3,
        small=(0.85, 0.75, 0.85),
    ),
    Category(
        name="bookshelf",
        build=furniture.bookshelf,
        variants=3,
        placement="wall",
        most=3,
        small=(0.9, 0.85, 0.72),
        large=(1.1, 1.15, 1.12),
    ),
    Category(
        name="nightstand",
        build=furniture.nightstand,
        placement="wall",
        small=(0.85, 0.85, 0.85),
        large=(1.15, 1.2, 1.15),
    ),
    Category(
        name="refrigerator",
        build=furniture.refrigerator,
        variants=2,
        placement="wall",
        most=2,
        small=(0.85, 0.85, 0.68),
        large=(1.05, 1.15, 1.1),
    ),
    Category(
        name="toilet",
        build=fixtures.toilet,
        placement="wall",
        most=2,
    ),
    Category(
        name="bathtub",
        build=fixtures.bathtub,
        variants=2,
        placement="wall",
        most=2,
        small=(0.88, 0.78, 0.9),
        large=(1.1, 1.1, 1.1),
    ),
    Category(
        name="sink",
        build=fixtures.sink,
        placement="wall",
        most=3,
        small=(0.85, 0.8, 0.85),
        large=(1.15, 1.25, 1.05),
    ),
    Category(
        name="trash can",
        build=fixtures.trash_can,
        variants=2,
        front=False,
        small=(0.8, 0.8, 0.8),
        large=(1.25, 1.25, 1.3),
    ),
    Category(
        name="box",
        build=decor.carton,
        variants=2,
        front=False,
        supports=_TABLES,
        small=(0.75, 0.75, 0.75),
        large=(1.35, 1.35, 1.35),
    ),
    Category(
        name="plant",
        build=decor.plant,
        variants=2,
        front=False,
        supports=_TABLES,
        small=(1.1, 1.1, 1.1),
        large=_UNIT,
    ),
    Category(
        name="lamp",
        build=decor.lamp,
        variants=2,
        front=False,
        supports=_TABLES,
        small=(1.1, 1.1, 1.1),
        large=_UNIT,
    ),
    Category(
        name="vase",
        build=decor.vase,
        variants=2,
        front=False,
        supports=_TABLES,
        small=(0.95, 0.95, 0.85),
        large=(1.4, 1.4, 1.6),
    ),
    Category(
        name="tv",
        build=decor.television,
        placement="top",
        supports=("cabinet", "table", "desk"),
        most=2,
        small=(1.0, 0.72, 0.78),
        large=(1.0, 1.05, 1.1),
    ),
    Category(
        name="monitor",
        build=decor.monitor,
        placement="top",
        supports=("desk", "table", "cabinet"),
        most=3,
        small=(0.95, 0.85, 0.85),
        large=(1.1, 1.2, 1.2),
    ),
    Category(
        name="pillow",
        build=fixtures.pillow,
        placement="top",
        supports=("bed", "sofa"),
        most=3,
        front=False,
        small=(0.85, 0.8, 0.9),
        large=(1.15, 1.15, 1.2),
    ),
)

HUNG: tuple[Category, ...] = (
    Category(
        name="door",
        build=fixtures.door,
        placement="hung",
        most=2,
        small=_UNIT,
        large=_UNIT,
    ),
    Category(name="window", build=fixtures.window, variants=2, placement="hung", most=2, small=_UNIT, large=_UNIT),
    Category(
        name="picture",
        build=fixtures.picture,
        placement="hung",
        most=2,
        small=_UNIT,
        large=_UNIT,
    ),
)

BY_NAME: dict[str, Category] = {category.name: category for category in (*FURNITURE, *HUNG)}
CATEGORIES: tuple[str, ...] = tuple(BY_NAME)


@functools.lru_cache(maxsize=512)
def unit_model(name: str, size: str, variant: int) -> Model:
    """The unscaled model of a category, built once per process."""
    return BY_NAME[name].build(size, variant)
