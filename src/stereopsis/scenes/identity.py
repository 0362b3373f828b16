"""When two scenes are the same: digests under which what was made of a scene is kept."""

import dataclasses
import functools
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.scenes.scene import Frame, Scene


def geometry_key(scene: Scene, schema: int) -> str:
    """Digest of where the frames of a scene stand and what they look through, not of their pixels.

    Args:
        scene: which.
        schema: version of whatever is kept under the key.
    """
    facts = {key: value for key, value in scene.provenance.items() if key != "path"}
    digest = hashlib.sha256(json.dumps([schema, scene.id, facts], sort_keys=True, default=str).encode())
    for frame in scene.frames:
        camera = frame.depth_intrinsics or frame.intrinsics
        digest.update(repr((frame.name, camera, frame.load_depth is None)).encode())
        digest.update(np.ascontiguousarray(scene.T_aligned_camera(frame), dtype=np.float64).tobytes())
    return digest.hexdigest()


def scene_key(scene: Scene, frames: Sequence[Frame]) -> str:
    """Digest of everything that decides how some frames of a scene look to a student.

    Pixels are known by what their loaders are given: checksums where the scene has them, the size and time of files.
    """
    facts = {key: value for key, value in scene.provenance.items() if key != "path"}
    parts = (scene.id, facts, scene.T_aligned_world, scene.objects, scene.proposals, scene.annotations)
    digest = hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode())
    for frame in frames:
        loaders = [_loader(load) for load in (frame.load_colour, frame.load_depth)]
        camera = (frame.name, frame.T_world_camera, frame.intrinsics, frame.depth_intrinsics, loaders)
        digest.update(json.dumps(plain(camera), sort_keys=True).encode())
    return digest.hexdigest()


def _loader(load: Any) -> list[Any]:
    """What a loader is given: plain values, and of files their size and time."""
    found: list[Any] = []
    while isinstance(load, functools.partial):
        for value in (*load.args, *load.keywords.values()):
            path = value if isinstance(value, Path) else getattr(value, "path", None)
            if isinstance(path, Path):
                state = path.stat() if path.exists() else None
                found.append(None if state is None else [state.st_size, state.st_mtime_ns])
            elif isinstance(value, np.ndarray):
                found.append(zlib.crc32(np.ascontiguousarray(value).data))
            elif isinstance(value, (str, int, float, tuple)):
                found.append(value)
        load = load.func
    return found


def plain(value: Any) -> Any:
    """Any of our plain dataclasses, arrays and containers as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
