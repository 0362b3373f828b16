"""Time the geometry functions at the sizes of the papers; run: OMP_NUM_THREADS=1 python perf/geometry.py."""

import platform
import time
from collections.abc import Callable

import numpy as np

from stereopsis.geometry import (
    Intrinsics,
    discretise,
    estimate_alignment,
    estimate_normals,
    iou,
    patch_coordinates,
    splat_birdseye,
    unproject,
    voxel_groups,
)


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    rng = np.random.default_rng(0)
    K = Intrinsics(fx=585.0, fy=585.0, cx=320.0, cy=240.0, width=640, height=480)
    depth = rng.uniform(1, 4, (480, 640)).astype(np.float32)
    square = Intrinsics(fx=468.0, fy=468.0, cx=192.0, cy=192.0, width=384, height=384)
    small = unproject(np.full((384, 384), 2.0, dtype=np.float32), square, np.eye(4))
    view = unproject(depth, K, np.eye(4))
    cells = patch_coordinates(small.points, small.valid, 14, 14).coordinates
    cloud = rng.uniform([-3, -2, 0], [3, 2, 2.5], (64 * 480 * 640 // 4, 3)).astype(np.float32)
    colours = rng.integers(0, 256, cloud.shape, dtype=np.uint8)
    tokens = rng.uniform([-3, -2, 0], [3, 2, 2.5], (32 * 196, 3))
    boxes = rng.uniform(0.1, 3.0, (300, 6))
    room = cloud[:200_000].copy()
    axis = rng.integers(0, 3, len(room))
    room[np.arange(len(room)), axis] = 0
    facing = np.eye(3)[axis]
    rows = {
        "unproject 640x480": lambda: unproject(depth, K, np.eye(4)),
        "estimate_normals 640x480": lambda: estimate_normals(view.points, view.valid),
        "patch_coordinates 384x384 -> 14x14": lambda: patch_coordinates(small.points, small.valid, 14, 14),
        "discretise 14x14": lambda: discretise(cells),
        "voxel_groups 32 x 196 tokens": lambda: voxel_groups(tokens, 0.1),
        "iou 300 x 300": lambda: iou(boxes, boxes),
        f"splat_birdseye {len(cloud) / 1e6:.1f} M points -> 432": lambda: splat_birdseye(cloud, colours),
        "estimate_alignment 200 k points": lambda: estimate_alignment(room, facing),
    }
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}, median of 5")
    for name, call in rows.items():
        print(f"{name:45s} {1e3 * seconds(call):9.2f} ms")


if __name__ == "__main__":
    main()
