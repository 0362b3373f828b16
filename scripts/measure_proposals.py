"""How many objects do the geometric proposals find? Recall on procedural rooms, and on a ScanNet mesh.

Run: python scripts/measure_proposals.py [--rooms 20] [--scannet SCENE_FOLDER] [--output FILE.json]

Rooms come from seeds that no split uses. A ScanNet folder holds ``*_vh_clean_2.ply``, ``axis_align_matrix.txt``, and
``boxes_scannet18.json`` (``names`` and ``boxes_aligned_cxcyczdxdydz``); its vertices stand in for depth images.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from stereopsis.geometry import iou
from stereopsis.geometry.clusters import ClusterConfig, propose_boxes
from stereopsis.scenes.proposals import geometric_proposals
from stereopsis.scenes.rooms import RoomConfig, make_room

FLAT = ("door", "window", "picture")
"""Categories that lie flat in or on a wall: no shape of their own to find."""

FIRST_SEED = 900_000_000


def best_overlaps(boxes: np.ndarray, truth: np.ndarray) -> list[float]:
    return [float(value) for value in iou(truth, boxes.reshape(-1, 6)).max(axis=1, initial=0.0)]


def rooms(count: int, views: int, size: int) -> dict[str, Any]:
    labels: list[str] = []
    best: list[float] = []
    numbers, seconds = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        room = make_room(seed, RoomConfig(views=views, width=size, height=size))
        start = time.process_time()
        found = geometric_proposals(room)
        seconds.append(time.process_time() - start)
        numbers.append(len(found))
        labels += [item.label for item in room.objects]
        boxes = np.array([item.box for item in found])
        best += best_overlaps(boxes, np.stack([item.box for item in room.objects]))
    source = f"{count} procedural rooms, {views} views of {size} px"
    return summary(source, labels, best, FLAT, float(np.mean(numbers)), float(np.median(seconds)))


def scannet(folder: Path, proposals: int) -> dict[str, Any]:
    import trimesh

    (mesh_file,) = folder.glob("*_vh_clean_2.ply")
    T = np.loadtxt(folder / "axis_align_matrix.txt")
    vertices = np.asarray(trimesh.load(mesh_file, process=False).vertices) @ T[:3, :3].T + T[:3, 3]
    content = json.loads((folder / "boxes_scannet18.json").read_text())
    truth = np.array(content["boxes_aligned_cxcyczdxdydz"])
    start = time.process_time()
    found = propose_boxes(vertices, ClusterConfig(max_proposals=proposals))
    seconds = time.process_time() - start
    best = best_overlaps(found.boxes, truth)
    source = f"ScanNet {folder.name}, at most {proposals} proposals"
    return summary(source, content["names"], best, (*FLAT, "curtain"), len(found.boxes), seconds)


def summary(
    source: str, labels: list[str], best: list[float], flat: tuple[str, ...], proposals: float, seconds: float
) -> dict[str, Any]:
    overlap, upright = np.array(best), np.array([label not in flat for label in labels])
    by_label = {
        label: {
            "objects": int(chosen.sum()),
            "recall@0.25": round(float((overlap[chosen] >= 0.25).mean()), 3),
            "recall@0.5": round(float((overlap[chosen] >= 0.5).mean()), 3),
        }
        for label in sorted(set(labels))
        for chosen in [np.array(labels) == label]
    }
    shares = {
        f"{name}recall@{threshold}": round(float((overlap[chosen] >= threshold).mean()), 3)
        for name, chosen in (("", upright | ~upright), ("standing: ", upright))
        for threshold in (0.25, 0.5)
    }
    return {
        "source": source,
        "objects": len(labels),
        "standing": int(upright.sum()),
        **shares,
        "proposals per scene": round(proposals, 1),
        "CPU seconds per scene": round(seconds, 2),
        "by label": by_label,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rooms", type=int, default=20, help="procedural rooms; 0 leaves them out")
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--size", type=int, default=192, help="side of the rooms' views, pixels")
    parser.add_argument("--scannet", type=Path, help="a ScanNet scene's folder")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    results = [rooms(arguments.rooms, arguments.views, arguments.size)] if arguments.rooms else []
    if arguments.scannet:
        results += [scannet(arguments.scannet, count) for count in (50, 100, 200)]
    for result in results:
        print(f"\n{result['source']}")
        for key, value in result.items():
            if key not in ("source", "by label"):
                print(f"  {key:<24}{value}")
        for label, values in result["by label"].items():
            print(f"    {label:<18}{values['objects']:>4}{values['recall@0.25']:>8.2f}{values['recall@0.5']:>8.2f}")
    if arguments.output:
        facts = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": " ".join(sys.argv),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "results": results,
        }
        arguments.output.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
