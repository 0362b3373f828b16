"""How fast are the procedural rooms? Prints rooms/s in 1 and 2 processes, and where the time goes.

Run: python perf/rooms.py [--rooms 60] [--repeats 5]
"""

import argparse
import concurrent.futures
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from stereopsis.geometry.raycast import cast, embree_scene
from stereopsis.scenes.rooms import RoomConfig, make_layout, make_room
from stereopsis.scenes.rooms.render import build_mesh, camera_rays
from stereopsis.scenes.rooms.shading import shade
from stereopsis.scenes.rooms.walk import make_walk

CONFIG = RoomConfig()


def make_some(seeds: list[int]) -> float:
    """CPU seconds that these rooms take in this process."""
    start = time.process_time()
    for seed in seeds:
        make_room(seed, CONFIG)
    return time.process_time() - start


def rate(rooms: int, processes: int, repeats: int) -> list[tuple[float, float]]:
    """(rooms per second, rooms per CPU second) of each repeat; one repeat warms the pool first."""
    rates = []
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        for repeat in range(repeats + 1):
            seeds = list(range(repeat * rooms, (repeat + 1) * rooms))
            start = time.perf_counter()
            busy = sum(pool.map(make_some, [seeds[i::processes] for i in range(processes)]))
            rates.append((rooms / (time.perf_counter() - start), rooms / busy))
    return rates[1:]


def stages(seed: int) -> dict[str, float]:
    """CPU seconds in each stage of one room; "rest": what `make_room` does besides (objects, proposals)."""
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        seconds[name] = time.process_time() - start
        return result

    layout = timed("layout", lambda: make_layout(seed, CONFIG))
    walk = timed("walk", lambda: make_walk(layout, CONFIG))
    mesh, paint = timed("mesh", lambda: build_mesh(layout))
    scene = timed("BVH", lambda: embree_scene(mesh.triangles))
    origins, directions = timed("rays", lambda: camera_rays(walk))
    triangle, depth = timed("ray casting", lambda: cast(scene, origins, directions))
    points = (origins + directions * depth[:, None]).T.copy()
    timed("shading", lambda: shade(layout, mesh.triangles, paint, triangle, points, directions))
    start = time.process_time()
    make_room(seed, CONFIG)
    seconds["rest"] = max(time.process_time() - start - sum(seconds.values()), 0.0)
    seconds["triangles"] = len(mesh.triangles)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rooms", type=int, default=60, help="rooms per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    load = f"load average {os.getloadavg()[0]:.1f} before the start"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {load}")
    size = f"{CONFIG.views} views of {CONFIG.width}x{CONFIG.height}"
    print(f"{size}, {arguments.rooms} rooms x {arguments.repeats} repeats")
    print(f"\n{'processes':<12}{'rooms/s (median)':>18}{'lowest':>9}{'highest':>9}{'rooms/CPU second':>20}")
    for processes in (1, 2):
        wall, busy = zip(*rate(arguments.rooms, processes, arguments.repeats), strict=True)
        row = f"{processes:<12}{statistics.median(wall):>18.1f}{min(wall):>9.1f}{max(wall):>9.1f}"
        print(f"{row}{statistics.median(busy):>20.1f}")
    stages(0)
    samples = [stages(seed) for seed in range(arguments.rooms)]
    median = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
    triangles = median.pop("triangles")
    total = sum(median.values())
    print(f"\n{'stage':<14}{'CPU ms (median)':>16}{'share':>8}")
    for name, seconds in median.items():
        print(f"{name:<14}{1000 * seconds:>16.1f}{100 * seconds / total:>7.0f}%")
    print(f"\ntriangles per room (median): {triangles:.0f}")


if __name__ == "__main__":
    main()
