"""An empty room seen from inside, cast exactly: colour, z-depth and camera-to-world poses; and files made of it."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.scene import Frame, Scene

LOW, HIGH = np.array([-2.0, -1.5, 0.0]), np.array([2.0, 1.5, 2.5])
CAMERA = Intrinsics(fx=50.0, fy=50.0, cx=32.0, cy=24.0, width=64, height=48)
GL = np.diag([1.0, -1.0, -1.0, 1.0])
K = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]])


def pose(index: int, step: float = 20.0, radius: float = 0.3) -> np.ndarray:
    """A camera that looks outwards and a little down while it goes round."""
    yaw, pitch = np.radians(step * index), np.radians(-22.0)
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2] = right, np.cross(forward, right), forward
    T[:3, 3] = [radius * np.cos(yaw + 2.0), radius * np.sin(yaw + 2.0), 1.4 + 0.03 * index]
    return T


def rays_of(camera: Intrinsics = CAMERA) -> np.ndarray:
    """[height, width, 3] directions through the pixel centres, z = 1."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    return np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)


def cast(T: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth along the camera's rays (z = 1, so that the distance IS the depth)."""
    world = rays @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        depth = np.where(world > 0, (HIGH - T[:3, 3]) / world, (LOW - T[:3, 3]) / world).min(-1)
    point = T[:3, 3] + world * depth[..., None]
    check = (np.floor(point / 0.25 + 1e-6).sum(-1) % 2)[..., None]
    return np.clip(60 + 120 * check + 15 * point, 0, 255).astype(np.uint8), depth.astype(np.float32)


def _colour(T: np.ndarray) -> np.ndarray:
    return cast(T, rays_of())[0]


def _depth(T: np.ndarray) -> np.ndarray:
    return cast(T, rays_of())[1]


def box_room(count: int = 6, **walk: float) -> Scene:
    """The room's views as a scene."""
    frames = tuple(
        Frame(
            name=f"{index:03d}",
            T_world_camera=pose(index, **walk),
            intrinsics=CAMERA,
            load_colour=functools.partial(_colour, pose(index, **walk)),
            load_depth=functools.partial(_depth, pose(index, **walk)),
        )
        for index in range(count)
    )
    return Scene(id="box", frames=frames)


def save_colour(path: Path, frame: Frame, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame.colour()).save(path, **options)


def save_depth(path: Path, depth: np.ndarray, scale: float = 1000.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(depth.astype(np.float64) * scale).astype(np.uint16)).save(path)


def save_text(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def table(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.9f}" for value in row) + "\n" for row in matrix)


def quaternion(pose: np.ndarray) -> np.ndarray:
    """x y z w."""
    return Rotation.from_matrix(pose[:3, :3]).as_quat()


def write_transforms(
    folder: Path,
    scene: Scene,
    *,
    colour: str = "images/{}.png",
    depth: str = "depth/{}.png",
    listed: Callable[[str], str] = str,
    **more: object,
) -> dict:
    """transforms.json with its images; returns its content, for changes."""
    entries = []
    for index, frame in enumerate(scene.frames):
        names = colour.format(index), depth.format(index)
        save_colour(folder / names[0], frame)
        if names[1].endswith(".npy"):
            (folder / names[1]).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / names[1], frame.depth())
        else:
            save_depth(folder / names[1], frame.depth())
        matrix = (frame.T_world_camera @ GL).tolist()
        entries.append({"file_path": listed(names[0]), "depth_file_path": listed(names[1]), "transform_matrix": matrix})
    camera = {"fl_x": CAMERA.fx, "fl_y": CAMERA.fy, "cx": CAMERA.cx, "cy": CAMERA.cy, "w": 64, "h": 48}
    content = {**camera, **more, "frames": entries}
    save_text(folder / "transforms.json", json.dumps(content))
    return content


def write_seven_scenes(folder: Path, scene: Scene, suffix: str = ".jpg") -> Path:
    for index, frame in enumerate(scene.frames):
        stem = f"frame-{index:06d}"
        save_colour(folder / f"{stem}.color{suffix}", frame)
        save_depth(folder / f"{stem}.depth.png", frame.depth())
        save_text(folder / f"{stem}.pose.txt", table(frame.T_world_camera))
    save_text(folder / "camera-intrinsics.txt", table(K))
    return folder


def write_scannet_export(
    folder: Path, scene: Scene, *, intrinsics: str = "intrinsic/intrinsic_{}.txt", pose: str = "pose"
) -> Path:
    for index, frame in enumerate(scene.frames):
        save_colour(folder / f"color/{index * 100:06d}.jpg", frame)
        save_depth(folder / f"depth/{index * 100:06d}.png", frame.depth())
        save_text(folder / pose / f"{index * 100:06d}.txt", table(frame.T_world_camera))
    matrix = np.eye(4)
    matrix[:3, :3] = K
    for kind in ("color", "depth"):
        save_text(folder / intrinsics.format(kind), table(matrix))
    return folder


def write_posed_images(folder: Path, scene: Scene) -> Path:
    for index, frame in enumerate(scene.frames):
        save_colour(folder / f"{index:05d}.jpg", frame)
        save_depth(folder / f"{index:05d}.png", frame.depth())
        save_text(folder / f"{index:05d}.txt", table(frame.T_world_camera))
    for name in ("intrinsic.txt", "depth_intrinsic.txt"):
        save_text(folder / name, table(K))
    return folder


def same_views(found: Scene, expected: Scene, *, metres: float = 1e-3) -> None:
    """Asserts equal poses and depth (colour may have gone through JPEG)."""
    assert len(found.frames) == len(expected.frames)
    for frame, original in zip(found.frames, expected.frames, strict=True):
        np.testing.assert_allclose(frame.T_world_camera, original.T_world_camera, atol=1e-6)
        np.testing.assert_allclose(
            dataclasses.astuple(frame.intrinsics), dataclasses.astuple(original.intrinsics), atol=1e-9
        )
        np.testing.assert_allclose(frame.depth(), original.depth(), atol=metres)
