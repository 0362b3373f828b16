"""A photographer's walk: eye-height poses in free floor space that together look all around a room.

Procedural rooms and furnished meshes are photographed by the same walk; it knows a room only as a rectangle
with obstacles in it (`FloorPlan`).
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics

_STEP = (0.1, 1.0)
_CANDIDATES = 48
_WALKS = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FloorPlan:
    """What the photographer knows of a room: x in [0, size[0]], y in [0, size[1]], metres.

    Attributes:
        boxes: [boxes, 4] footprints x0 y0 x1 y1 of what nobody can stand in.
        tall: [tall, 4] those that block the view at eye height.
        targets: [targets, 2] centres of what is worth a picture.
        size: the rectangle's sides (and the room's height).
        body_radius: distance kept from the boxes.
        wall_distance: distance kept from the rectangle's sides.
    """

    boxes: Float[np.ndarray, "boxes 4"]
    tall: Float[np.ndarray, "tall 4"]
    targets: Float[np.ndarray, "targets 2"]
    size: tuple[float, float, float]
    body_radius: float = 0.22
    wall_distance: float = 0.35


def pinhole_intrinsics(width: int, height: int, horizontal_fov_degrees: float) -> Intrinsics:
    """Intrinsics with square pixels and a central principal point."""
    focal = width / 2 / np.tan(np.radians(horizontal_fov_degrees) / 2)
    return Intrinsics(fx=float(focal), fy=float(focal), cx=width / 2, cy=height / 2, width=width, height=height)


def look(position: np.ndarray, yaw: float, pitch: float) -> Float[np.ndarray, "4 4"]:
    """T_world_camera of a level camera that looks along ``yaw`` and up by ``pitch`` (radians)."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def free_positions(plan: FloorPlan) -> Float[np.ndarray, "positions 2"]:
    """The points of a grid of 7 cm on which a person can stand; possibly none."""
    near = plan.wall_distance
    grid = np.stack(np.meshgrid(*(np.arange(near + 0.01, side - near, 0.07) for side in plan.size[:2])), axis=-1)
    grid = grid.reshape(-1, 2)
    return grid[_free(grid, plan)]


def _free(points: np.ndarray, plan: FloorPlan) -> np.ndarray:
    """Which [n, 2] points a person can stand on."""
    low, high = plan.boxes[:, :2] - plan.body_radius, plan.boxes[:, 2:] + plan.body_radius
    inside = (points[:, None] > low[None]) & (points[:, None] < high[None])
    blocked = np.any(np.all(inside, axis=2), axis=1)
    limits = np.array(plan.size[:2]) - plan.wall_distance
    return ~blocked & np.all((points > plan.wall_distance) & (points < limits), axis=1)


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


def _one_walk(rng: np.random.Generator, plan: FloorPlan, views: int, fov: float) -> tuple[float, list]:
    """One greedy walk: (score, [(x, y, yaw)]); the gaze sweeps around, faster or slower by what it sees."""
    half_fov = np.radians(fov) / 2
    sweep = float(rng.choice([-1.0, 1.0])) * min(2 * np.pi / views, 1.2 * half_fov)
    seen = np.zeros(len(plan.targets))
    yaw, position = rng.uniform(-np.pi, np.pi), None
    total, stops = 0.0, []
    for _ in range(views):
        points = _next_points(rng, position, plan)
        pace = rng.uniform(0.6, 1.3, len(points)) if position is not None else np.zeros(len(points))
        yaws = yaw + sweep * pace
        visible = _seen(points, yaws, plan.targets, half_fov)
        gain = (visible * np.where(seen < 0.9, 1.0, np.where(seen < 1.9, 0.6, 0.2))).sum(axis=1)
        clear = _clearance(
            np.tile(points, (3, 1)), np.concatenate([yaws - 0.4, yaws, yaws + 0.4]), plan.tall, plan.size
        )
        score = gain + 1.2 * np.minimum(clear.reshape(3, -1).min(axis=0), 2.4) + 0.5 * pace
        best = int(score.argmax())
        position, yaw = points[best], float(yaws[best])
        seen += visible[best]
        total += float(score[best])
        stops.append((float(position[0]), float(position[1]), yaw))
    return total, stops


def _next_points(rng: np.random.Generator, position: np.ndarray | None, plan: FloorPlan) -> np.ndarray:
    """Free positions within one step along a free straight line; anywhere free for the first view."""
    if position is None:
        for spread in (0.5, 1.0, 1.0, 1.0):
            points = np.array(plan.size[:2]) * (0.5 + spread * (rng.random((2 * _CANDIDATES, 2)) - 0.5))
            points = points[_free(points, plan)]
            if len(points):
                return points
        points = free_positions(plan)
        if not len(points):
            raise SceneError(
                f"a floor of {plan.size[0]:.2f} x {plan.size[1]:.2f} m with {len(plan.boxes)} obstacles leaves no "
                "place to stand; expected some free floor; choose another room"
            )
        return points
    angle, length = rng.uniform(-np.pi, np.pi, _CANDIDATES), rng.uniform(*_STEP, _CANDIDATES)
    step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    on_the_way = position + np.array([0.33, 0.67, 1.0])[:, None, None] * step
    open_way = _free(on_the_way.reshape(-1, 2), plan).reshape(3, _CANDIDATES).all(axis=0)
    points = position + step[open_way]
    return points if len(points) else position[None]


def plan_walk(
    rng: np.random.Generator, plan: FloorPlan, *, views: int, horizontal_fov_degrees: float
) -> Float[np.ndarray, "{views} 4 4"]:
    """Plan the walk: of a few greedy ones, that with the best sight lines and the most objects in view.

    Args:
        rng: the same state gives the same walk.
        plan: the room.
        views: photographs along the walk.
        horizontal_fov_degrees: the camera's field of view.

    Returns:
        [views, 4, 4] camera to the plan's frame (floor at z = 0), OpenCV axes, metres.

    Raises:
        SceneError: there is no place to stand.
    """
    walks = [_one_walk(rng, plan, views, horizontal_fov_degrees) for _ in range(_WALKS)]
    stops = max(walks, key=lambda walk: walk[0])[1]
    eye = rng.uniform(1.35, 1.65)
    poses = []
    for x, y, yaw in stops:
        pitch = -np.radians(rng.uniform(12.0, 20.0))
        poses.append(look(np.array([x, y, eye + rng.uniform(-0.04, 0.04)]), yaw, pitch))
    return np.stack(poses)
