"""A photographer's walk: eye-height poses in free floor space that together look all around the room."""

import dataclasses

import numpy as np
from jaxtyping import Float

from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.rooms.config import RoomConfig
from stereopsis.scenes.rooms.layout import Layout

_BODY_RADIUS = 0.22
_WALL_DISTANCE = 0.35
_STEP = (0.1, 1.0)
_CANDIDATES = 48
_WALKS = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """The camera path.

    Attributes:
        intrinsics: of every view.
        poses: [views, 4, 4] T_world_camera, metres, OpenCV axes.
    """

    intrinsics: Intrinsics
    poses: Float[np.ndarray, "views 4 4"]


def room_intrinsics(config: RoomConfig) -> Intrinsics:
    """Intrinsics with square pixels and a central principal point."""
    focal = config.width / 2 / np.tan(np.radians(config.horizontal_fov_degrees) / 2)
    return Intrinsics(
        fx=float(focal),
        fy=float(focal),
        cx=config.width / 2,
        cy=config.height / 2,
        width=config.width,
        height=config.height,
    )


def look(position: np.ndarray, yaw: float, pitch: float) -> Float[np.ndarray, "4 4"]:
    """T_world_camera of a level camera that looks along ``yaw`` and up by ``pitch`` (radians)."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def _free(points: np.ndarray, boxes: np.ndarray, size: tuple[float, float, float]) -> np.ndarray:
    """Which [n, 2] points a person can stand on; boxes are [k, 4] footprints x0 y0 x1 y1."""
    low, high = boxes[:, :2] - _BODY_RADIUS, boxes[:, 2:] + _BODY_RADIUS
    inside = (points[:, None] > low[None]) & (points[:, None] < high[None])
    blocked = np.any(np.all(inside, axis=2), axis=1)
    limits = np.array(size[:2]) - _WALL_DISTANCE
    return ~blocked & np.all((points > _WALL_DISTANCE) & (points < limits), axis=1)


def _clearance(points: np.ndarray, yaws: np.ndarray, boxes: np.ndarray, size: tuple[float, float, float]) -> np.ndarray:
    """Horizontal distance from each point along its yaw to the nearest tall box or wall, metres."""
    direction = np.stack([np.cos(yaws), np.sin(yaws)], axis=1)
    direction = np.where(np.abs(direction) < 1e-6, 1e-6, direction)
    to_wall = np.maximum(-points / direction, (np.array(size[:2]) - points) / direction).min(axis=1)
    if len(boxes) == 0:
        return to_wall
    a = (boxes[None, :, :2] - points[:, None]) / direction[:, None]
    b = (boxes[None, :, 2:] - points[:, None]) / direction[:, None]
    enter, leave = np.minimum(a, b).max(axis=2), np.maximum(a, b).min(axis=2)
    distance = np.where((enter < leave) & (leave > 0), np.maximum(enter, 0.0), np.inf)
    return np.minimum(to_wall, distance.min(axis=1))


def _seen(points: np.ndarray, yaws: np.ndarray, targets: np.ndarray, half_fov: float) -> np.ndarray:
    """[points, targets]: 1 for a target well in view, less if it is far, 0 outside (occlusion ignored)."""
    offset = targets[None] - points[:, None]
    distance = np.sqrt((offset**2).sum(axis=2))
    ahead = (offset[..., 0] * np.cos(yaws)[:, None] + offset[..., 1] * np.sin(yaws)[:, None]) / distance
    value = np.where(distance < 2.7, 1.0, 0.6)
    return value * ((ahead > np.cos(half_fov * 0.85)) & (distance > 0.7) & (distance < 4.0))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Floor:
    """What the planner knows of a room: footprints [n, 4] as x0 y0 x1 y1, object centres [n, 2], size."""

    boxes: Float[np.ndarray, "boxes 4"]
    tall: Float[np.ndarray, "tall 4"]
    targets: Float[np.ndarray, "targets 2"]
    size: tuple[float, float, float]


def _floor_plan(layout: Layout) -> _Floor:
    standing = [o for o in layout.objects if o.category.place != "hung"]
    footprints = np.array([[*o.low[:2], *o.high[:2]] for o in standing]).reshape(-1, 4)
    tall = np.array([o.high[2] > 1.2 for o in standing], dtype=bool)
    targets = np.array([(o.low + o.high)[:2] / 2 for o in layout.objects]).reshape(-1, 2)
    return _Floor(boxes=footprints, tall=footprints[tall], targets=targets, size=layout.size)


def _one_walk(rng: np.random.Generator, floor: _Floor, config: RoomConfig) -> tuple[float, list]:
    """One greedy walk: (score, [(x, y, yaw)]); the gaze sweeps around, faster or slower by what it sees."""
    half_fov = np.radians(config.horizontal_fov_degrees) / 2
    sweep = float(rng.choice([-1.0, 1.0])) * min(2 * np.pi / config.views, 1.2 * half_fov)
    seen = np.zeros(len(floor.targets))
    yaw, position = rng.uniform(-np.pi, np.pi), None
    total, stops = 0.0, []
    for _ in range(config.views):
        points = _next_points(rng, position, floor.boxes, floor.size)
        pace = rng.uniform(0.6, 1.3, len(points)) if position is not None else np.zeros(len(points))
        yaws = yaw + sweep * pace
        visible = _seen(points, yaws, floor.targets, half_fov)
        gain = (visible * np.where(seen < 0.9, 1.0, np.where(seen < 1.9, 0.6, 0.2))).sum(axis=1)
        clear = _clearance(
            np.tile(points, (3, 1)), np.concatenate([yaws - 0.4, yaws, yaws + 0.4]), floor.tall, floor.size
        )
        score = gain + 1.2 * np.minimum(clear.reshape(3, -1).min(axis=0), 2.4) + 0.5 * pace
        best = int(score.argmax())
        position, yaw = points[best], float(yaws[best])
        seen += visible[best]
        total += float(score[best])
        stops.append((float(position[0]), float(position[1]), yaw))
    return total, stops


def make_walk(layout: Layout, config: RoomConfig) -> Walk:
    """Plan the walk: of a few greedy ones, that with the best sight lines and the most objects in view."""
    rng = np.random.default_rng([layout.seed, 0, 2])
    floor = _floor_plan(layout)
    walks = [_one_walk(rng, floor, config) for _ in range(_WALKS)]
    stops = max(walks, key=lambda walk: walk[0])[1]
    eye = rng.uniform(1.35, 1.65)
    poses = []
    for x, y, yaw in stops:
        pitch = -np.radians(rng.uniform(12.0, 20.0))
        poses.append(look(np.array([x, y, eye + rng.uniform(-0.04, 0.04)]), yaw, pitch))
    return Walk(intrinsics=room_intrinsics(config), poses=np.stack(poses))


def _next_points(
    rng: np.random.Generator, position: np.ndarray | None, floor: np.ndarray, size: tuple[float, float, float]
) -> np.ndarray:
    """Free places within one step along a free straight line; anywhere free for the first view."""
    if position is None:
        for spread in (0.5, 1.0, 1.0, 1.0):
            points = np.array(size[:2]) * (0.5 + spread * (rng.random((2 * _CANDIDATES, 2)) - 0.5))
            points = points[_free(points, floor, size)]
            if len(points):
                return points
        return _any_free(floor, size)
    angle, length = rng.uniform(-np.pi, np.pi, _CANDIDATES), rng.uniform(*_STEP, _CANDIDATES)
    step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    on_the_way = position + np.array([0.33, 0.67, 1.0])[:, None, None] * step
    open_way = _free(on_the_way.reshape(-1, 2), floor, size).reshape(3, _CANDIDATES).all(axis=0)
    points = position + step[open_way]
    return points if len(points) else position[None]


def _any_free(floor: np.ndarray, size: tuple[float, float, float]) -> np.ndarray:
    """The free points of a fine grid (furniture covers less than half of the floor, so there are some)."""
    grid = np.stack(np.meshgrid(*(np.arange(0.36, side - 0.35, 0.07) for side in size[:2])), axis=-1).reshape(-1, 2)
    return grid[_free(grid, floor, size)]
