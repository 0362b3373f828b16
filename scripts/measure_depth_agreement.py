"""How well the check of depth against poses tells right captures from wrong ones.

Rooms from the generator and, where given, folders of real captures, each read rightly and with every usual mistake.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from stereopsis.scenes import Scene, open_scene
from stereopsis.scenes.agreement import DepthAgreement, depth_agreement
from stereopsis.scenes.conventions import Conventions
from stereopsis.scenes.rooms import make_room

MISTAKES: dict[str, dict] = {
    "OpenGL axes": {"axes": "opengl"},
    "inverse poses": {"pose": "world-to-camera"},
    "quaternions wxyz": {"quaternion": "wxyz"},
    "depth 5 times too small": {"depth_scale": 1000.0},
    "depth 5 times too large": {"depth_scale": 5000.0},
    "depth 6.5 times too large": {"depth_scale": 6553.5},
    "depth 1000 times too small": {"depth_scale": 1.0},
    "depth 1000 times too large": {"depth_scale": 1000.0},
    "OpenGL axes and inverse poses": {"axes": "opengl", "pose": "world-to-camera"},
    "inverse poses, depth 5 times too large": {"pose": "world-to-camera", "depth_scale": 5000.0},
}
READ_WITH = {"depth 5 times too small": 5000.0, "depth 1000 times too large": 1.0}
"""Units per metre by which depth is read; 1000 otherwise."""


def scaled(load: Callable[[], np.ndarray], factor: float) -> np.ndarray:
    return load() * np.float32(factor)


def noisy(load: Callable[[], np.ndarray], share: float, seed: int) -> np.ndarray:
    """Depth with relative noise, and a tenth of it lost."""
    generator, depth = np.random.default_rng(seed), load()
    depth = depth * (1 + share * generator.standard_normal(depth.shape))
    return (depth * (generator.random(depth.shape) > 0.1)).astype(np.float32)


def misread(scene: Scene, mistake: str) -> Scene:
    """The scene as it comes out where its files follow other conventions than they are read by."""
    read = Conventions(quaternion="xyzw", depth_scale=READ_WITH.get(mistake, 1000.0))
    true = dataclasses.replace(read, **MISTAKES.get(mistake, {}))
    frames = tuple(
        dataclasses.replace(
            frame,
            T_world_camera=true.reread(frame.T_world_camera, read),
            load_depth=functools.partial(scaled, frame.load_depth, true.depth_scale / read.depth_scale),
        )
        for frame in scene.frames
    )
    return scene.replace(frames=frames, provenance=read.record())


def with_noise(scene: Scene, share: float) -> Scene:
    frames = tuple(
        dataclasses.replace(frame, load_depth=functools.partial(noisy, frame.load_depth, share, seed))
        for seed, frame in enumerate(scene.frames)
    )
    return scene.replace(frames=frames)


def with_pose_noise(scene: Scene, metres: float, degrees: float) -> Scene:
    generator, frames = np.random.default_rng(0), []
    for frame in scene.frames:
        pose = frame.T_world_camera.copy()
        turn = Rotation.from_rotvec(np.radians(degrees) * generator.standard_normal(3) / np.sqrt(3))
        pose[:3, :3] = turn.as_matrix() @ pose[:3, :3]
        pose[:3, 3] += metres * generator.standard_normal(3) / np.sqrt(3)
        frames.append(dataclasses.replace(frame, T_world_camera=pose))
    return scene.replace(frames=tuple(frames))


def groups(rooms: int, folders: list[Path]) -> Iterator[tuple[str, list[Scene]]]:
    made = [make_room(1000 + seed) for seed in range(rooms)]
    yield "rooms", made
    yield "rooms, depth noise 2 %", [with_noise(room, 0.02) for room in made]
    yield "rooms, poses 2 cm and 1 degree off", [with_pose_noise(room, 0.02, 1.0) for room in made]
    for folder in folders:
        scene = open_scene(folder)
        count = len(scene.frames)
        parts = [scene.replace(frames=scene.frames[start : start + 12]) for start in range(0, count - 11, 12)]
        yield f"{folder.name}, {count} frames", [scene]
        yield f"{folder.name}, {len(parts)} parts of 12 frames", parts
        yield f"{folder.name}, every 12th frame", [scene.replace(frames=scene.frames[i::12]) for i in range(0, 12, 3)]
        yield f"{folder.name}, depth noise 2 %", [with_noise(scene, 0.02)]
        yield f"{folder.name}, poses 2 cm and 1 degree off", [with_pose_noise(scene, 0.02, 1.0)]


def row(found: list[DepthAgreement], option: str) -> dict:
    known = sorted(item.agreement for item in found if item.agreement is not None)
    return {
        "scenes": len(found),
        "lowest": round(known[0], 3) if known else None,
        "median": round(known[len(known) // 2], 3) if known else None,
        "highest": round(known[-1], 3) if known else None,
        **{verdict: sum(item.verdict == verdict for item in found) for verdict in ("agree", "contradict", "unknown")},
        "named": sum(bool(item.remedies) and item.remedies[0].options == option for item in found),
        "named otherwise": sum(bool(item.remedies) and item.remedies[0].options != option for item in found),
    }


def options_of(really: dict) -> str:
    words = {"axes": "--axes", "pose": "--pose", "quaternion": "--quaternion", "depth_scale": "--depth-scale"}
    return " ".join(f"{words[k]} {v:g}" if isinstance(v, float) else f"{words[k]} {v}" for k, v in really.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="real captures that are right")
    parser.add_argument("--rooms", type=int, default=24)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    table: dict[str, dict] = {}
    started, checks = time.perf_counter(), 0
    for name, scenes in groups(arguments.rooms, arguments.folders):
        table[name] = {}
        for mistake, really in {"right": {}, **MISTAKES}.items():
            found = [depth_agreement(misread(scene, mistake)) for scene in scenes]
            checks += len(found)
            table[name][mistake] = row(found, options_of(really))
            print(f"{name:40s} {mistake:40s} {json.dumps(table[name][mistake])}", flush=True)
    facts = {"command": "python " + " ".join(sys.argv), "seconds_per_check": (time.perf_counter() - started) / checks}
    if arguments.output:
        arguments.output.write_text(json.dumps({**facts, "groups": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
