"""ScanNet files made by hand, byte by byte, without the package's own writer."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SCAN = "scene9999_00"
COLOUR_SIZE = (6, 4)
DEPTH_SIZE = (4, 3)
COLOUR_K = np.array([[5.0, 0, 3.0, 0], [0, 5.5, 2.0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
DEPTH_K = np.array([[3.5, 0, 2.0, 0], [0, 3.75, 1.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
LOST = np.full((4, 4), -np.inf)
ALIGNMENT = np.array([[0.0, 1, 0, -5], [-1, 0, 0, 3], [0, 0, 1, 0.25], [0, 0, 0, 1]])
"""A quarter turn clockwise seen from above, then a shift; exact in binary."""


def pose_of(index: int) -> np.ndarray:
    """Moved along x by eighths of a metre; exact in float32."""
    pose = np.eye(4)
    pose[0, 3] = index / 8
    return pose


def colour_of(index: int) -> np.ndarray:
    """[4, 6, 3]: row, column and frame number are readable from a pixel."""
    rows, columns = np.mgrid[0 : COLOUR_SIZE[1], 0 : COLOUR_SIZE[0]]
    return np.stack([rows, columns, np.full_like(rows, index)], axis=-1).astype(np.uint8)


def depth_of(index: int) -> np.ndarray:
    """[3, 4] millimetres: thousands are 1 + row, hundreds the frame, ones the column; one of each invalid mark."""
    rows, columns = np.mgrid[0 : DEPTH_SIZE[1], 0 : DEPTH_SIZE[0]]
    units = (1000 * (1 + rows) + 100 * index + columns).astype(np.uint16)
    units[0, 0], units[0, 1] = 0, 65535
    return units


def frame_bytes(pose: np.ndarray, colour: bytes, depth: bytes, times: tuple[int, int] = (11, 22)) -> bytes:
    header = struct.pack("<16f", *np.asarray(pose).ravel())
    header += struct.pack("<QQQQ", *times, len(colour), len(depth))
    return header + colour + depth


def sens_bytes(
    frames: Sequence[bytes],
    *,
    version: int = 4,
    name: bytes = b"hand",
    name_length: int | None = None,
    colour_code: int = 0,
    depth_code: int = 1,
    colour_size: tuple[int, int] = COLOUR_SIZE,
    depth_size: tuple[int, int] = DEPTH_SIZE,
    shift: float = 1000.0,
    count: int | None = None,
    extrinsics: np.ndarray | None = None,
) -> bytes:
    extrinsics = np.eye(4) if extrinsics is None else extrinsics
    data = struct.pack("<I", version)
    data += struct.pack("<Q", len(name) if name_length is None else name_length) + name
    for matrix in (COLOUR_K, extrinsics, DEPTH_K, np.eye(4)):
        data += struct.pack("<16f", *matrix.ravel())
    data += struct.pack("<ii", colour_code, depth_code)
    data += struct.pack("<IIII", *colour_size, *depth_size)
    data += struct.pack("<f", shift)
    data += struct.pack("<Q", len(frames) if count is None else count)
    return data + b"".join(frames)


def plain_frames(count: int = 3, poses: dict[int, np.ndarray] | None = None) -> list[bytes]:
    """Raw colour, depth compressed by zlib."""
    return [
        frame_bytes(
            (poses or {}).get(index, pose_of(index)),
            colour_of(index).tobytes(),
            zlib.compress(depth_of(index).astype("<u2").tobytes()),
        )
        for index in range(count)
    ]


def write_ply(path: Path, vertices: np.ndarray, triangles: np.ndarray) -> Path:
    """A mesh as text, with colours as ScanNet has them."""
    lines = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue", "alpha")]
    lines += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header"]
    lines += [" ".join(f"{value:.9g}" for value in vertex) + " 10 20 30 255" for vertex in vertices]
    lines += ["3 " + " ".join(map(str, triangle)) for triangle in triangles]
    path.write_text("\n".join(lines) + "\n")
    return path


WALL = np.array([[-9.0, -9, 2], [9, -9, 2], [9, 9, 2], [-9, 9, 2], [1.0, 0, 0], [1.5, 0, 0], [1, 2, 0], [1, 0, 3]])
"""Vertices: a wall across z = 2, and four corners of a thing of 0.5 x 2 x 3 m that has no triangles."""
WALL_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])
SEGMENTS = [5, 5, 5, 9, 7, 7, 8, 8]
GROUPS = [
    {"id": 0, "objectId": 3, "segments": [7, 8], "label": "tall thing"},
    {"id": 1, "objectId": 0, "segments": [5, 9], "label": "wall"},
]
TEXT = f"""axisAlignment = {" ".join(f"{value:f}" for value in ALIGNMENT.ravel())} 
colorHeight = 4
colorWidth = 6
depthHeight = 3
depthWidth = 4
fx_color = 5.000000
fx_depth = 3.500000
fy_color = 5.500000
fy_depth = 3.750000
mx_color = 3.000000
mx_depth = 2.000000
my_color = 2.000000
my_depth = 1.500000
sceneType = Closet
"""


def export(colour: Path, depth: Path, pose: Path, name: str, frames: int, kind: str) -> None:
    for folder in (colour, depth, pose):
        folder.mkdir(exist_ok=True)
    for index in range(frames):
        stem = name.format(index)
        Image.fromarray(colour_of(index)).save(colour / f"{stem}.jpg", quality=100, subsampling=0)
        np.savetxt(pose / f"{stem}.txt", pose_of(index))
        if kind == "posed with depth":
            Image.fromarray(depth_of(index)).save(depth / f"{stem}.png")
