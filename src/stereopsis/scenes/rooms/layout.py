"""Where things stand: a seeded room is drawn, furnished and checked, before anything is rendered."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.errors import SceneError
from stereopsis.scenes.rooms.catalogue import BY_NAME, FURNITURE, HUNG, SIZES, Category, unit_model
from stereopsis.scenes.rooms.config import RoomConfig
from stereopsis.scenes.rooms.paint import COLOURS, MATERIAL_WEIGHTS, MATERIALS
from stereopsis.scenes.rooms.shapes import Surface

MARGIN = 0.04
_MOST_FLOOR_COVERED = 0.4
_DOOR_CLEARANCE = 0.75
_ATTEMPTS = 40
_DEFAULT = RoomConfig()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """One object at its place.

    Attributes:
        category: its kind.
        colour: name of the main body colour.
        material: name of its texture.
        size: "small" or "large".
        quarter: rotation about z in quarter turns; the front looks along +x at 0, +y at 1.
        origin: [3] world position of the local origin (centre of the footprint, base), metres.
        scale: [3] factors on the unit model.
        triangles: [triangles, 3, 3] world corners, metres.
        roles: [triangles] see `shapes.Role`.
        surfaces: world rectangles that carry small items.
        support: index (in the layout) of the object underneath, or None.
    """

    category: Category
    colour: str
    material: str
    size: str
    quarter: int
    origin: Float[np.ndarray, "3"]
    scale: Float[np.ndarray, "3"]
    triangles: Float[np.ndarray, "triangles 3 3"]
    roles: UInt8[np.ndarray, "triangles"]
    surfaces: tuple[Surface, ...]
    support: int | None
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]

    @property
    def yaw(self) -> float | None:
        """Direction of the front, radians counter-clockwise from +x in (-pi, pi]; None without a front."""
        return (0.0, np.pi / 2, np.pi, -np.pi / 2)[self.quarter] if self.category.front else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A furnished room: x in [0, size[0]], y in [0, size[1]], z in [0, size[2]], metres."""

    seed: int
    size: tuple[float, float, float]
    objects: tuple[Placed, ...]


@dataclasses.dataclass(kw_only=True)
class _Draft:
    """A layout in the making."""

    rng: np.random.Generator
    size: tuple[float, float, float]
    objects: list[Placed]
    low: Float[np.ndarray, "boxes 3"]
    high: Float[np.ndarray, "boxes 3"]
    covered: float = 0.0

    def block(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low = np.concatenate([self.low, low[None]])
        self.high = np.concatenate([self.high, high[None]])

    def fits(self, low: np.ndarray, high: np.ndarray, skip: int | None = None) -> np.ndarray:
        """Which of the candidate boxes [candidates, 3] keep clear of everything placed so far."""
        width, depth, height = self.size
        inside = (low[:, :2] >= -1e-9).all(1) & (high[:, :2] <= (width + 1e-9, depth + 1e-9)).all(1)
        pad = np.array([MARGIN, MARGIN, 0.0])
        hit = (low[:, None] < self.high[None] + pad) & (high[:, None] > self.low[None] - pad)
        clash = hit.all(axis=2)
        if skip is not None:
            clash[:, skip] = False
        return inside & (high[:, 2] < height) & ~clash.any(axis=1)


def rotate_quarter(points: np.ndarray, quarter: int) -> np.ndarray:
    """Rotate [..., 3] points about z by quarter turns, without rounding."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    x, y = ((x, y), (-y, x), (-x, -y), (y, -x))[quarter % 4]
    return np.stack([x, y, z], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Item:
    """A drawn but unplaced object."""

    category: Category
    size: str
    variant: int
    scale: Float[np.ndarray, "3"]
    half: Float[np.ndarray, "3"]

    def extent(self, quarter: int) -> np.ndarray:
        """Half extents along world x and y, and the full height."""
        x, y, z = self.half
        return np.array([x, y, z] if quarter % 2 == 0 else [y, x, z])


def _draw_item(rng: np.random.Generator, category: Category) -> _Item:
    size = SIZES[rng.integers(2)]
    variant = int(rng.integers(category.variants))
    base = np.array(category.small if size == "small" else category.large)
    scale = base * (1.0 if category.placement == "hung" else rng.uniform(0.96, 1.04, 3))
    triangles = unit_model(category.name, size, variant).triangles
    half = triangles.max(axis=(0, 1)) * scale
    return _Item(category=category, size=size, variant=variant, scale=scale, half=half)


def _place(draft: _Draft, item: _Item, origin: np.ndarray, quarter: int, support: int | None = None) -> Placed:
    rng = draft.rng
    colours = [name for name in COLOURS if support is None or name != draft.objects[support].colour]
    source = unit_model(item.category.name, item.size, item.variant)
    world = (rotate_quarter(source.triangles * item.scale, quarter) + origin).astype(np.float32)
    surfaces = []
    for s in source.surfaces:
        corners = np.array([[s.x0, s.y0, s.z], [s.x1, s.y1, s.z]]) * item.scale
        a, b = rotate_quarter(corners, quarter) + origin
        surfaces.append(Surface(x0=min(a[0], b[0]), x1=max(a[0], b[0]), y0=min(a[1], b[1]), y1=max(a[1], b[1]), z=a[2]))
    placed = Placed(
        category=item.category,
        colour=colours[rng.integers(len(colours))],
        material=MATERIALS[rng.choice(len(MATERIALS), p=MATERIAL_WEIGHTS)],
        size=item.size,
        quarter=quarter,
        origin=origin,
        scale=item.scale,
        triangles=world,
        roles=source.roles,
        surfaces=tuple(surfaces),
        support=support,
        low=world.min(axis=(0, 1)).astype(np.float64),
        high=world.max(axis=(0, 1)).astype(np.float64),
    )
    draft.objects.append(placed)
    draft.low = np.insert(draft.low, len(draft.objects) - 1, placed.low, axis=0)
    draft.high = np.insert(draft.high, len(draft.objects) - 1, placed.high, axis=0)
    return placed


def _wall_spots(
    draft: _Draft, item: _Item, count: int, gap: tuple[float, float], z: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Random origins [count, 3] with the back to a wall, and their quarters [count]."""
    rng, (width, depth, _) = draft.rng, draft.size
    hx, hy, _ = item.half
    walls = rng.integers(0, 4, count)
    length = np.where(walls % 2 == 0, depth, width)
    along = hy + 0.03 + rng.random(count) * np.maximum(length - 2 * hy - 0.06, 0.0)
    off = hx + rng.uniform(*gap, count)
    x = np.select([walls == 0, walls == 2], [off, width - off], along)
    y = np.select([walls == 1, walls == 3], [off, depth - off], along)
    return np.stack([x, y, np.full(count, z)], axis=1), walls


def _first_fit(
    draft: _Draft, item: _Item, origins: np.ndarray, quarters: np.ndarray, support: int | None = None
) -> Placed | None:
    odd = (quarters % 2 == 1)[:, None]
    half = np.where(odd, item.half[[1, 0]], item.half[[0, 1]])
    low = np.concatenate([origins[:, :2] - half, origins[:, 2:]], axis=1)
    high = np.concatenate([origins[:, :2] + half, origins[:, 2:] + item.half[2]], axis=1)
    good = np.flatnonzero(draft.fits(low, high, skip=support))
    if len(good) == 0:
        return None
    return _place(draft, item, origins[good[0]], int(quarters[good[0]]), support)


def _hang(draft: _Draft) -> None:
    """Hang one or two doors, up to two windows and up to two pictures in the walls."""
    rng = draft.rng
    counts = {
        "door": 1 + int(rng.random() < 0.35),
        "window": int(rng.integers(0, 3)),
        "picture": int(rng.integers(0, 3)),
    }
    for category in HUNG:
        for _ in range(counts[category.name]):
            item = _draw_item(rng, category)
            z = {"door": 0.0, "window": rng.uniform(0.9, 1.0), "picture": rng.uniform(1.2, 1.4)}[category.name]
            placed = _first_fit(draft, item, *_wall_spots(draft, item, 24, (0.0, 0.0), z))
            if placed is not None and category.name == "door":
                reach = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])[placed.quarter] * _DOOR_CLEARANCE
                draft.block(np.minimum(placed.low, placed.low + reach), np.maximum(placed.high, placed.high + reach))


def _stand(draft: _Draft, item: _Item) -> Placed | None:
    """Stand an item on the floor."""
    rng, (width, depth, _) = draft.rng, draft.size
    if draft.covered + 4 * item.half[0] * item.half[1] > _MOST_FLOOR_COVERED * width * depth:
        return None
    name = item.category.name
    if item.category.placement == "wall" or (
        name in ("stool", "trash can", "plant", "lamp", "box") and rng.random() < 0.4
    ):
        origins, quarters = _wall_spots(draft, item, 48, (0.02, 0.06))
    else:
        quarters = rng.integers(0, 4, 48)
        span = np.array([width, depth]) - 2 * max(item.half[0], item.half[1]) - 0.1
        centre = 0.5 * np.array([width, depth])
        origins = np.zeros((48, 3))
        origins[:, :2] = centre + (rng.random((48, 2)) - 0.5) * span
        if name in ("chair", "stool") and rng.random() < 0.65:
            near, turned = _seats(draft, item, 16)
            origins, quarters = np.concatenate([near, origins]), np.concatenate([turned, quarters])
    placed = _first_fit(draft, item, origins, quarters)
    if placed is not None:
        draft.covered += float(np.prod((placed.high - placed.low)[:2]))
    return placed


def _seats(draft: _Draft, item: _Item, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places beside tables and in front of desks, facing them: origins [n, 3] and quarters [n]."""
    rng = draft.rng
    hosts = [o for o in draft.objects if o.category.name in ("table", "desk")]
    origins, quarters = [], []
    for _ in range(count if hosts else 0):
        host = hosts[rng.integers(len(hosts))]
        facing = (host.quarter + 2) % 4 if host.category.name == "desk" else int(rng.integers(4))
        forward = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])[facing]
        centre, half = (host.low + host.high)[:2] / 2, (host.high - host.low)[:2] / 2
        back = np.abs(forward) @ half + item.half[0] + MARGIN + rng.uniform(0.01, 0.1)
        side = np.abs(forward[::-1]) @ half * rng.uniform(-0.6, 0.6)
        spot = centre - forward * back + np.abs(forward[::-1]) * side
        origins.append([spot[0], spot[1], 0.0])
        quarters.append(facing)
    return np.array(origins).reshape(-1, 3), np.array(quarters, dtype=np.int64)


def _toward_middle(draft: _Draft, host: Placed) -> int:
    """The quarter turn that looks from the host most nearly at the middle of the room: screens are seen."""
    x, y = np.array(draft.size[:2]) / 2 - (host.low + host.high)[:2] / 2
    if abs(x) >= abs(y):
        return 0 if x >= 0 else 2
    return 1 if y >= 0 else 3


def _put_on(draft: _Draft, item: _Item) -> Placed | None:
    """Put an item on a piece of furniture that is there already."""
    rng = draft.rng
    taken = {o.support for o in draft.objects if item.category.front and o.category is item.category}
    hosts = [i for i, o in enumerate(draft.objects) if o.category.name in item.category.supports]
    hosts = [i for i in hosts if i not in taken]  # one screen of a kind on each
    for index in rng.permutation(hosts).astype(int):
        host = draft.objects[index]
        surface = host.surfaces[0]
        quarters = rng.integers(0, 4, 24)
        if item.category.name == "pillow" or (item.category.front and host.category.front):
            quarters[:] = host.quarter
        elif item.category.front:
            quarters[:] = _toward_middle(draft, host)
        half = np.where((quarters % 2 == 1)[:, None], item.half[[1, 0]], item.half[[0, 1]])
        low = np.array([surface.x0, surface.y0]) + half
        room = np.array([surface.x1, surface.y1]) - half - low
        origins = np.full((24, 3), surface.z)
        origins[:, :2] = low + rng.random((24, 2)) * room
        usable = (room > 0).all(axis=1)
        placed = _first_fit(draft, item, origins[usable], quarters[usable], support=int(index))
        if placed is not None:
            return placed
    return None


def _wish_list(rng: np.random.Generator, config: RoomConfig) -> list[Category]:
    """Draw what the room shall hold: categories uniformly, then one to several of each."""
    target = int(rng.integers(config.min_objects, config.max_objects + 1))
    wishes: list[Category] = []
    for index in rng.permutation(len(FURNITURE)):
        category = FURNITURE[index]
        present = {wish.name for wish in wishes}
        if category.placement == "top" and not present & set(category.supports):
            wishes.append(BY_NAME[category.supports[rng.integers(len(category.supports))]])
        weights = np.array([0.45, 0.27, 0.17, 0.11])[: category.most]
        count = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
        wishes += [category] * count
        if len(wishes) >= target:
            break
    return wishes[:target]


def _furnish(rng: np.random.Generator, config: RoomConfig, size: tuple[float, float, float]) -> list[Placed]:
    draft = _Draft(rng=rng, size=size, objects=[], low=np.zeros((0, 3)), high=np.zeros((0, 3)))
    _hang(draft)
    items = [_draw_item(rng, category) for category in _wish_list(rng, config)]
    order = {"wall": 0, "free": 1, "top": 2}
    items.sort(key=lambda i: (order[i.category.placement], bool(i.category.supports), -i.half[0] * i.half[1]))
    for item in items:
        placed = None
        on_furniture = item.category.placement == "top"
        if item.category.supports and item.size == "small":
            on_furniture |= bool(rng.random() < 0.8)
        if on_furniture:
            placed = _put_on(draft, item)
        if placed is None and item.category.placement != "top":
            _stand(draft, item)
    return draft.objects


def make_layout(seed: int, config: RoomConfig = _DEFAULT) -> Layout:
    """Draw and furnish a room, without rendering it.

    Args:
        seed: any non-negative integer; the same seed gives the same room.
        config: limits on the content.

    Raises:
        SceneError: the seed is negative, or no layout with enough objects was found.
    """
    if seed < 0:
        raise SceneError(f"room seed is {seed}, expected a non-negative integer")
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt, 1])
        size = (
            *(config.min_side + (config.max_side - config.min_side) * rng.beta(1.3, 1.8, 2)).tolist(),
            float(rng.uniform(2.4, 2.8)),
        )
        objects = _furnish(rng, config, size)
        if sum(o.category.placement != "hung" for o in objects) >= config.min_objects and any(
            o.category.name == "door" for o in objects
        ):
            return Layout(seed=seed, size=size, objects=tuple(objects))
    raise SceneError(
        f"no room with at least {config.min_objects} objects for seed {seed} after {_ATTEMPTS} attempts; "
        "lower RoomConfig.min_objects or raise RoomConfig.max_objects or RoomConfig.min_side"
    )
