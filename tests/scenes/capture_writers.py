"""Writers of the capture layouts, independent of the readers: what a scanner app or SLAM system would leave."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from stereopsis.scenes.readers.arkitscenes import read_arkitscenes
from stereopsis.scenes.readers.colmap import read_colmap
from stereopsis.scenes.readers.open3d_log import read_open3d_log
from stereopsis.scenes.readers.transforms_json import read_transforms_json
from stereopsis.scenes.readers.tum import read_tum
from stereopsis.scenes.scene import Frame, Scene

START = 1305031102.0  # seconds; TUM's timestamps look like this
GL = np.diag([1.0, -1.0, -1.0, 1.0])


def save_images(frame: Frame, colour: Path, depth: Path, units_per_metre: float = 1000) -> None:
    for file in (colour, depth):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame.colour()).save(colour, compress_level=1)
    units = np.rint(frame.depth().astype(np.float64) * units_per_metre)
    Image.fromarray(np.where(units < 65535, units, 0).astype(np.uint16)).save(depth, compress_level=1)


def quaternion(pose: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(pose[:3, :3]).as_quat()


def line(*values: object) -> str:
    return " ".join(str(value) for value in values) + "\n"


def write_tum(folder: Path, frames: Sequence[Frame]) -> Path:
    """Colour at 30 Hz, depth 7 ms later, poses at 30 Hz exactly at the colour images' times."""
    folder.mkdir(parents=True)
    rgb, depth, poses = ["# color images\n"], ["# depth maps\n"], ["# ground truth trajectory\n"]
    for index, frame in enumerate(frames):
        time, later = START + index / 30, START + index / 30 + 0.007
        save_images(frame, folder / f"rgb/{time:.6f}.png", folder / f"depth/{later:.6f}.png", 5000)
        rgb.append(f"{time:.6f} rgb/{time:.6f}.png\n")
        depth.append(f"{later:.6f} depth/{later:.6f}.png\n")
        poses.append(line(f"{time:.6f}", *frame.T_world_camera[:3, 3], *quaternion(frame.T_world_camera)))
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("".join(lines))
    camera = frames[0].intrinsics
    (folder / "camera.txt").write_text(line(camera.fx, camera.fy, camera.cx - 0.5, camera.cy - 0.5))
    return folder


def write_open3d(folder: Path, frames: Sequence[Frame]) -> Path:
    folder.mkdir(parents=True)
    log = []
    for index, frame in enumerate(frames):
        save_images(frame, folder / f"color/{index:05d}.png", folder / f"depth/{index:05d}.png")
        log.append(line(index, index, index + 1))
        log.extend(line(*row) for row in frame.T_world_camera)
    (folder / "trajectory.log").write_text("".join(log))
    camera = frames[0].intrinsics
    matrix = [camera.fx, 0, 0, 0, camera.fy, 0, camera.cx - 0.5, camera.cy - 0.5, 1]
    content = {"width": camera.width, "height": camera.height, "intrinsic_matrix": matrix}
    (folder / "intrinsic.json").write_text(json.dumps(content))
    return folder


def write_transforms_json(folder: Path, frames: Sequence[Frame]) -> Path:
    folder.mkdir(parents=True)
    camera = frames[0].intrinsics
    entries = []
    for index, frame in enumerate(frames):
        colour, depth = f"./images/frame_{index + 1:05d}.png", f"./depth/frame_{index + 1:05d}.png"
        save_images(frame, folder / colour, folder / depth)
        pose = frame.T_world_camera @ GL
        entries.append({"file_path": colour, "depth_file_path": depth, "transform_matrix": pose.tolist()})
    content = {
        "camera_model": "OPENCV",
        **{
            "fl_x": camera.fx,
            "fl_y": camera.fy,
            "cx": camera.cx,
            "cy": camera.cy,
            "w": camera.width,
            "h": camera.height,
        },
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "frames": entries[::-1],  # the order in the file is nobody's promise
    }
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def write_colmap(folder: Path, frames: Sequence[Frame]) -> Path:
    (folder / "sparse" / "0").mkdir(parents=True)
    camera = frames[0].intrinsics
    parameters = (camera.fx, camera.fy, camera.cx, camera.cy)
    head = "# Camera list with one line of data per camera:\n"
    cameras = head + line(7, "PINHOLE", camera.width, camera.height, *parameters)
    images = ["# Image list with two lines of data per image:\n"]
    for index, frame in enumerate(frames):
        save_images(frame, folder / f"images/{index:04d}.png", folder / f"depth/{index:04d}.png")
        inverse = np.linalg.inv(frame.T_world_camera)
        x, y, z, w = quaternion(inverse)
        images.append(line(index + 1, w, x, y, z, *inverse[:3, 3], 7, f"{index:04d}.png"))
        images.append("1.0 2.0 -1 3.5 4.5 17\n" if index % 2 else "\n")
    (folder / "sparse/0/cameras.txt").write_text(cameras)
    (folder / "sparse/0/images.txt").write_text("".join(images))
    return folder


def write_arkitscenes(folder: Path, frames: Sequence[Frame]) -> Path:
    """Stamps of the files and of the trajectory differ by up to 2 ms, as the real ones do."""
    video, wide = "41069021", folder / "lowres_wide_intrinsics"
    wide.mkdir(parents=True)
    trajectory = []
    for index, frame in enumerate(frames):
        stamp = 305.377 + index / 10
        save_images(
            frame,
            folder / f"lowres_wide/{video}_{stamp:.3f}.png",
            folder / f"lowres_depth/{video}_{stamp + 0.001 * (index % 2):.3f}.png",
        )
        camera = frame.intrinsics
        values = line(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        (wide / f"{video}_{stamp - 0.001 * (index % 2):.3f}.pincam").write_text(values)
        inverse = np.linalg.inv(frame.T_world_camera)
        rotation = Rotation.from_matrix(inverse[:3, :3]).as_rotvec()
        trajectory.append(line(stamp + 0.002 * (index % 3 == 1), *rotation, *inverse[:3, 3]))
    (folder / "lowres_wide.traj").write_text("".join(trajectory))
    return folder


WRITERS: dict[str, Callable[[Path, Sequence[Frame]], Path]] = {
    "tum": write_tum,
    "open3d": write_open3d,
    "transforms_json": write_transforms_json,
    "colmap": write_colmap,
    "arkitscenes": write_arkitscenes,
}
READERS: dict[str, Callable[..., Scene]] = {
    "tum": read_tum,
    "open3d": read_open3d_log,
    "transforms_json": read_transforms_json,
    "colmap": read_colmap,
    "arkitscenes": read_arkitscenes,
}
