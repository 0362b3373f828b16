"""Time scene preparation against straightforward code for the published procedures, and check that both agree.

The references do what the papers' code and text say, vectorised per frame, in float64, at full resolution:
  coverage    world points of every pixel, rounded to voxels of 0.1 m, unique rows as a set of tuples per frame;
              then, 32 times, the frame whose set adds most to those taken (Video-3D-LLM)
  bird's eye  world points of all frames in one array; of each pixel the highest point, by sorting (Ross3D)
  patches     world points of every pixel, resized (nearest) to 384, cropped to 378, averaged over 27 x 27
              (Video-3D-LLM); pixels without depth count as the camera's position there
Images are decoded before the clock starts: that costs both the same.

Run: OMP_NUM_THREADS=1 python perf/prepare.py [--quick] [--scene FOLDER] [--output FILE.json]
"""

import argparse
import dataclasses
import datetime
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from stereopsis.geometry import (
    BirdsEyeView,
    Intrinsics,
    ceiling_height,
    depth_patch_coordinates,
    depth_voxels,
    greedy_coverage,
    patch_coordinates,
    splat_birdseye,
    unproject,
)
from stereopsis.scenes.alignment import align_scene, scene_points
from stereopsis.scenes.formats import open_scene
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import uniform_indices

VOXEL, PICKS, SIDE, CELLS, BEV = 0.1, 32, 384, 14, 432


def held(array: np.ndarray) -> np.ndarray:
    return array


def load(path: Path | None, frames: int) -> Scene:
    """A scene whose images are in memory: a folder, or a procedural room seen from 640 x 480 views."""
    if path is None:
        from stereopsis.scenes.rooms import RoomConfig, make_room

        return make_room(0, RoomConfig(views=frames, width=640, height=480))
    scene = align_scene(open_scene(path)).scene
    chosen = [scene.frames[index] for index in uniform_indices(len(scene.frames), frames)]
    return scene.replace(
        frames=tuple(
            dataclasses.replace(
                frame,
                load_colour=functools.partial(held, frame.colour()),
                load_depth=functools.partial(held, frame.depth()),
            )
            for frame in chosen
        ),
        objects=(),
    )


def world_points(depth: np.ndarray, K: Intrinsics, T: np.ndarray) -> np.ndarray:
    """The reference's unprojection: homogeneous camera points of all pixels times the pose."""
    v, u = np.mgrid[: K.height, : K.width] + 0.5
    z = depth.astype(np.float64)
    camera = np.stack([(u - K.cx) / K.fx * z, (v - K.cy) / K.fy * z, z, np.ones_like(z)], axis=-1)
    return (camera.reshape(-1, 4) @ T.T)[:, :3].reshape(*depth.shape, 3)


def reference_sets(views: list[tuple]) -> list[set[tuple[int, int, int]]]:
    sets = []
    for depth, K, T in views:
        points = world_points(depth, K, T)[depth > 0]
        voxels = np.unique(np.round(points / VOXEL).astype(np.int64), axis=0)
        sets.append({tuple(voxel) for voxel in voxels.tolist()})
    return sets


def reference_greedy(sets: list[set]) -> list[int]:
    left, covered, order = list(range(len(sets))), set(), []
    while left and len(order) < PICKS:
        most, pick = -1, -1
        for index in left:
            adds = len(sets[index] - covered)
            if adds > most:
                most, pick = adds, index
        order.append(pick)
        covered |= sets[pick]
        left.remove(pick)
    return order


def our_sets(views: list[tuple]) -> list[np.ndarray]:
    return [depth_voxels(depth, K, T, VOXEL) for depth, K, T in views]


def our_greedy(sets: list[np.ndarray]) -> list[int]:
    return greedy_coverage(sets, limit=PICKS).order.tolist()


def reference_birdseye(views: list[tuple], colours: list[np.ndarray]) -> BirdsEyeView:
    """Rounded to float32 as depth images are, so that equal heights tie in both programs."""
    points = np.concatenate([world_points(*view)[view[0] > 0].astype(np.float32) for view in views])
    colour = np.concatenate([image[view[0] > 0] for view, image in zip(views, colours, strict=True)])
    ceiling = ceiling_height(points)
    if ceiling is not None:
        below = points[:, 2] <= ceiling - 0.2
        points, colour = points[below], colour[below]
    ordered = np.sort(points[:, :2], axis=0).astype(np.float64)
    last = len(points) - 1
    low = ordered[int(np.floor(last * 0.001))] - 0.1
    high = ordered[int(np.ceil(last * 0.999))] + 0.1
    side = float((high - low).max())
    left, back = (low[0] + high[0] - side) / 2, (low[1] + high[1] + side) / 2
    u, v = (points[:, 0] - left) / (side / BEV), (back - points[:, 1].astype(np.float64)) / (side / BEV)
    inside = (u >= 0) & (u <= BEV) & (v >= 0) & (v <= BEV)
    column, row = (np.minimum(np.floor(axis[inside]), BEV - 1).astype(np.int64) for axis in (u, v))
    cell = row * BEV + column
    order = np.lexsort((points[inside, 2], cell))  # stable: of equal heights the last comes last
    highest = order[np.flatnonzero(np.diff(cell[order], append=-1))]
    image, void = np.zeros((BEV * BEV, 3), dtype=np.uint8), np.ones(BEV * BEV, dtype=bool)
    image[cell[highest]], void[cell[highest]] = colour[inside][highest], False
    return BirdsEyeView(
        image=image.reshape(BEV, BEV, 3),
        void=void.reshape(BEV, BEV),
        origin=(float(left), float(back)),
        metres_per_pixel=side / BEV,
    )


def our_birdseye(scene: Scene) -> BirdsEyeView:
    cloud = scene_points(scene)
    return splat_birdseye(cloud.points, cloud.colours, size=BEV)


@dataclasses.dataclass(frozen=True)
class Square:
    """Which pixels of a full image make up the square one, and its intrinsics."""

    rows: np.ndarray
    cols: np.ndarray
    K: Intrinsics


def square_of(K: Intrinsics) -> Square:
    width = round(K.width * SIDE / K.height)
    left = (width - SIDE) // 2
    rows = ((np.arange(SIDE) + 0.5) * K.height / SIDE).astype(np.int64)
    cols = ((np.arange(left, left + SIDE) + 0.5) * K.width / width).astype(np.int64)
    return Square(rows=rows, cols=cols, K=K.resized(width, SIDE).cropped(left, 0, SIDE, SIDE))


def reference_patches(views: list[tuple], square: Square) -> np.ndarray:
    """Unprojected with the square image's rays, as in this package: each sampled pixel has its own cell's ray."""
    cell = SIDE // CELLS
    used = cell * CELLS
    found = []
    for depth, K, T in views:
        points = full_points(depth, K, T, square)
        small = points[square.rows][:, square.cols][:used, :used]
        found.append(small.reshape(CELLS, cell, CELLS, cell, 3).mean(axis=(1, 3)))
    return np.stack(found)


def full_points(depth: np.ndarray, K: Intrinsics, T: np.ndarray, square: Square) -> np.ndarray:
    """World points of all pixels; those that the square image samples lie on its pixels' rays."""
    u, v = np.arange(K.width) + 0.5, np.arange(K.height) + 0.5
    x, y = (u - K.cx) / K.fx, (v - K.cy) / K.fy
    x[square.cols] = (np.arange(SIDE) + 0.5 - square.K.cx) / square.K.fx
    y[square.rows] = (np.arange(SIDE) + 0.5 - square.K.cy) / square.K.fy
    z = depth.astype(np.float64)
    camera = np.stack([x * z, y[:, None] * z, z, np.ones_like(z)], axis=-1)
    return (camera.reshape(-1, 4) @ T.T)[:, :3].reshape(*depth.shape, 3)


def our_patches(views: list[tuple], square: Square) -> np.ndarray:
    pixels = np.ix_(square.rows, square.cols)
    found = [depth_patch_coordinates(depth[pixels], square.K, T, CELLS, CELLS, holes="camera") for depth, _, T in views]
    return np.stack([each.coordinates for each in found])


def our_patches_with_points(views: list[tuple], square: Square) -> np.ndarray:
    """Where the points of all 384 x 384 pixels are wanted as well; cells without their holes."""
    pixels = np.ix_(square.rows, square.cols)
    found = []
    for depth, _, T in views:
        cloud = unproject(depth[pixels], square.K, T)
        found.append(patch_coordinates(cloud.points, cloud.valid, CELLS, CELLS).coordinates)
    return np.stack(found)


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """(median seconds, last result)."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def compare(name: str, target: float | None, reference: Callable, ours: Callable, repeats: int) -> dict[str, Any]:
    """One row; the reference is repeated half as often."""
    slow, expected = timed(reference, -(-repeats // 2))
    fast, found = timed(ours, repeats)
    return {
        "name": name,
        "reference_seconds": slow,
        "seconds": fast,
        "ratio": slow / fast,
        "target": target,
        "expected": expected,
        "found": found,
    }


def measure(scene: Scene, repeats: int) -> list[dict[str, Any]]:
    views = [(f.depth(), f.depth_intrinsics or f.intrinsics, scene.T_aligned_camera(f)) for f in scene.frames]
    colours = [frame.colour() for frame in scene.frames]
    square = square_of(views[0][1])
    voxels = compare("  its voxels", None, lambda: reference_sets(views), lambda: our_sets(views), repeats)
    sets, keys = voxels["expected"], voxels["found"]
    picks = compare("  its picks", None, lambda: reference_greedy(sets), lambda: our_greedy(keys), repeats)
    whole = {
        **picks,
        "name": f"coverage: depth to {PICKS} picks",
        "target": 20,
        **{key: voxels[key] + picks[key] for key in ("reference_seconds", "seconds")},
    }
    whole["ratio"] = whole["reference_seconds"] / whole["seconds"]
    rows = [
        whole,
        voxels,
        picks,
        compare(
            f"bird's eye view, {BEV} px",
            5,
            lambda: reference_birdseye(views, colours),
            lambda: our_birdseye(scene),
            repeats,
        ),
        compare(
            "patch coordinates",
            5,
            lambda: reference_patches(views, square),
            lambda: our_patches(views, square),
            repeats,
        ),
        compare(
            "  with all points kept",
            None,
            lambda: reference_patches(views, square),
            lambda: our_patches_with_points(views, square),
            repeats,
        ),
    ]
    for row in rows:
        row["same"] = agreement(row.pop("expected"), row.pop("found"))
    rows[-1]["same"] = "-"  # holes are left out there, which the reference averages in
    return rows


def agreement(expected: Any, found: Any) -> str:
    """In words, how far two results agree."""
    if isinstance(expected, BirdsEyeView):
        same = (expected.image == found.image).all(axis=-1) & (expected.void == found.void)
        return f"{int((~same).sum())} of {same.size} pixels differ"
    if isinstance(expected, np.ndarray):
        return f"{1e6 * float(np.abs(expected - found).max()):.1f} um apart at most"
    if expected and isinstance(expected[0], set):
        return "same voxels" if [len(s) for s in expected] == [len(k) for k in found] else "DIFFERENT"
    return "same picks" if expected == found else f"DIFFERENT: {expected} and {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scene", type=Path, help="scene folder; left out, a procedural room")
    parser.add_argument("--frames", type=int, default=64, help="views, evenly spread")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="8 views, 2 repeats")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    frames, repeats = (8, 2) if arguments.quick else (arguments.frames, arguments.repeats)
    scene = load(arguments.scene, frames)
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "numpy": np.__version__,
        "scene": scene.id,
        "frames": len(scene.frames),
        "size": [scene.frames[0].intrinsics.width, scene.frames[0].intrinsics.height],
        "repeats": repeats,
    }
    print(", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("command", "date")))
    rows = measure(scene, repeats)
    print(f"\n{'median of the repeats':<30}{'reference s':>12}{'ours s':>9}{'ratio':>8}{'target':>8}  agreement")
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:g}"
        numbers = f"{row['reference_seconds']:>12.3f}{row['seconds']:>9.3f}{row['ratio']:>8.1f}{target:>8}"
        print(f"{row['name']:<30}{numbers}  {row['same']}")
    if arguments.output:
        arguments.output.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
