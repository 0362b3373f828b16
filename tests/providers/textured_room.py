"""Views of a furnished, textured room, cast exactly, for geometry that is estimated from colours alone."""

import numpy as np
from scipy.ndimage import map_coordinates, zoom

from stereopsis.geometry.camera import Intrinsics

CAMERA = Intrinsics(fx=260.0, fy=260.0, cx=160.0, cy=120.0, width=320, height=240)
ROOM = (np.array([-2.0, -1.5, 0.0]), np.array([2.0, 1.5, 2.5]))
CHEST = (np.array([0.9, -0.6, 0.0]), np.array([1.6, 0.5, 0.9]))


def _texture(seed: int, side: int = 512) -> np.ndarray:
    """Blotches of several sizes, so that corners are found far and near."""
    rng = np.random.default_rng(seed)
    layers = [zoom(rng.uniform(0, 1, (n, n)), side / n, order=1) * w for n, w in ((16, 0.3), (64, 0.35), (170, 0.35))]
    return 30 + 200 * sum(layer[:side, :side] for layer in (np.pad(x, (0, 4), mode="edge") for x in layers))


TEXTURES = [_texture(seed) for seed in range(3)]


def pose(position, yaw: float, pitch: float = -24.0) -> np.ndarray:
    """Camera to world, looking along yaw and pitch, degrees; z is up."""
    yaw, pitch = np.radians(yaw), np.radians(pitch)
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2], T[:3, 3] = right, np.cross(forward, right), forward, position
    return T


def walk(count: int = 8) -> list[np.ndarray]:
    """Sideways through the room, looking at the chest."""
    return [pose([-1.2 + 0.04 * n, -0.7 + 0.17 * n, 1.45 + 0.02 * n], 22.0 - 5.0 * n) for n in range(count)]


def cast(T: np.ndarray, camera: Intrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 [height, width, 3] and z-depth [height, width], metres."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1) @ T[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays > 0, (ROOM[1] - T[:3, 3]) / rays, (ROOM[0] - T[:3, 3]) / rays).min(-1)
        near, far = (CHEST[0] - T[:3, 3]) / rays, (CHEST[1] - T[:3, 3]) / rays
    enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
    hit = (enter < leave) & (enter > 0)
    depth = np.where(hit, enter, depth)
    point = T[:3, 3] + rays * depth[..., None]
    low, high = np.where(hit[..., None], CHEST[0], ROOM[0]), np.where(hit[..., None], CHEST[1], ROOM[1])
    axis = np.minimum(np.abs(point - low), np.abs(point - high)).argmin(-1)
    across = np.stack([point[..., 1], point[..., 0], point[..., 0]], -1)
    up = np.stack([point[..., 2], point[..., 2], point[..., 1]], -1)
    grey = np.zeros(depth.shape)
    for n in range(3):
        place = np.stack([across[..., n], up[..., n]]) * 110 + 40 * n + np.where(hit, 77, 0)
        grey = np.where(axis == n, map_coordinates(TEXTURES[n], place, order=1, mode="wrap"), grey)
    tint = np.where(hit[..., None], [1.0, 0.8, 0.6], [0.9, 1.0, 1.0])
    return np.clip(grey[..., None] * tint, 0, 255).astype(np.uint8), depth.astype(np.float32)
