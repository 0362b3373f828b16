"""Which views of a scene a model gets: spread evenly, or those that together see most of the room.

Uniform views are what Video-3D-LLM, Ross3D and 3DRS train with; maximum coverage is Video-3D-LLM's
alternative, which reaches a given share of the room with fewer views. Reading every candidate's depth image is
what costs time, so the order of a scene's views is worked out once and kept, in memory and, where a folder is
given, on disk. Any number of views and any share is a beginning of that one order.
"""

import json
import re
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stereopsis.errors import FrameError, SceneError
from stereopsis.files import mark_cache, write_atomic
from stereopsis.geometry.coverage import VOXEL, CoverageOrder, depth_voxels, greedy_coverage
from stereopsis.geometry.voxels import voxel_keys
from stereopsis.reading import read_json
from stereopsis.scenes.identity import geometry_key
from stereopsis.scenes.scene import Frame, Scene

ViewSelection = Literal["uniform", "coverage"]
MAX_CANDIDATES = 512
_SCHEMA = 1
_KNOWN: dict[str, CoverageOrder] = {}  # by fingerprint; an entry is a few kilobytes


def uniform_indices(frames: int, views: int | None) -> list[int]:
    """Video-3D-LLM's uniform choice: ``linspace(0, n - 1, V)`` cut to integers; all frames where V is None or >= n."""
    if views is None or views >= frames:
        return list(range(frames))
    return [int(i) for i in np.linspace(0, frames - 1, views)]


def select_views(
    scene: Scene,
    views: int | None,
    *,
    selection: ViewSelection = "uniform",
    coverage: float | None = None,
    cache: Path | None = None,
) -> list[int]:
    """Indices of the views to use, in capture order.

    Args:
        scene: with depth, for "coverage".
        views: at most this many; None = all (uniform), or as many as `coverage` needs.
        selection: "uniform", or "coverage": greedily those that add the most voxels of 0.1 m (see
            `coverage_order`; of equal gains the earlier frame).
        coverage: with "coverage", stop as soon as this share of all voxels that any candidate sees is
            covered; Video-3D-LLM uses 0.95 and 0.90. None or 1.0 goes on to `views`, or until nothing is new.
        cache: folder in which the order of each scene's views is kept; None keeps it in memory only.

    Raises:
        SceneError: no frames, an unknown selection, or no depth for "coverage".
        FrameError: a depth image cannot be used.
    """
    if not scene.frames:
        raise SceneError(f"scene '{scene.id}' has no frames; prepare it again from its source")
    if selection == "uniform":
        return uniform_indices(len(scene.frames), views)
    if selection != "coverage":
        raise SceneError(f"view selection '{selection}' is unknown; choose 'uniform' or 'coverage'")
    try:
        chosen = cached_coverage_order(scene, cache).first(views, 1.0 if coverage is None else coverage)
    except ValueError as error:
        raise SceneError(f"scene '{scene.id}': {error}; correct the number of views or the share to cover") from error
    return sorted(chosen)


def coverage_order(
    scene: Scene,
    *,
    voxel: float = VOXEL,
    max_candidates: int | None = MAX_CANDIDATES,
    surface: Float[np.ndarray, "n 3"] | None = None,
) -> CoverageOrder:
    """All candidate views of a scene, each adding as much as possible to those before it.

    Every depth pixel counts, at full resolution, in the aligned frame, as in Video-3D-LLM's released code.
    There, candidates are every second of EmbodiedScan's frames, voxels without a point of the scanned mesh
    are left out (`surface`), and ties are broken at random; here the earlier frame wins, so that the same
    scene gives the same views.

    Args:
        scene: with depth in at least one frame; frames without depth cover nothing.
        voxel: edge length, metres.
        max_candidates: look at so many frames only, evenly spread; None looks at all.
        surface: [n, 3] points in the aligned frame (a mesh's vertices): only voxels that hold one count.

    Returns:
        Indices into ``scene.frames`` and their gains.

    Raises:
        SceneError: no frame has depth, or no depth pixel is valid.
        FrameError: a depth image cannot be used.
    """
    candidates = uniform_indices(len(scene.frames), max_candidates)
    if not any(scene.frames[index].load_depth for index in candidates):
        raise SceneError(
            f"scene '{scene.id}': none of its frames has depth; coverage is counted in voxels that depth images "
            "show; choose the selection 'uniform', or add depth images"
        )
    allowed = None if surface is None else np.unique(voxel_keys(np.rint(surface / voxel).astype(np.int64)))
    sets = []
    for index in candidates:
        seen = _frame_voxels(scene, scene.frames[index], voxel)
        sets.append(seen if allowed is None else seen[np.isin(seen, allowed, assume_unique=True)])
    found = greedy_coverage(sets)
    if not found.total:
        raise SceneError(
            f"scene '{scene.id}': no depth pixel of {len(candidates)} frames is valid"
            + ("" if surface is None else " and near the surface points")
            + "; check the depth images and their units, or choose the selection 'uniform'"
        )
    return CoverageOrder(order=np.array(candidates)[found.order], gains=found.gains, total=found.total)


def cached_coverage_order(scene: Scene, folder: Path | None = None) -> CoverageOrder:
    """`coverage_order` with its defaults, worked out once per scene.

    A scene is known again by its id, provenance, frame names, poses and intrinsics; should only pixels of
    its depth images change, delete the folder. A damaged entry is made again.

    Args:
        scene: see `coverage_order`.
        folder: where orders are kept as small JSON files; None: in memory only.

    Raises:
        SceneError: see `coverage_order`; or the folder cannot be written to.
        FrameError: a depth image cannot be used.
    """
    key = geometry_key(scene, _SCHEMA)
    path = None if folder is None else Path(folder) / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', scene.id)}-{key[:16]}.json"
    stored = None if path is None else _read(path, key, len(scene.frames))
    found = stored or _KNOWN.get(key) or coverage_order(scene)
    _KNOWN[key] = found
    if path is not None and stored is None:
        mark_cache(path.parent, error=SceneError)
        write_atomic(path, _json(key, scene, found), error=SceneError)
    return found


def _frame_voxels(scene: Scene, frame: Frame, voxel: float) -> Int[np.ndarray, "count"]:
    depth = frame.depth()
    if depth is None:
        return np.zeros(0, dtype=np.int64)
    try:
        camera = frame.depth_intrinsics or frame.intrinsics
        return depth_voxels(depth, camera, scene.T_aligned_camera(frame), voxel)
    except ValueError as error:
        raise FrameError(
            f"scene '{scene.id}', frame '{frame.name}': {error}; correct the frame, or leave it out with "
            "on_bad_frame='skip'"
        ) from error


def _json(key: str, scene: Scene, found: CoverageOrder) -> bytes:
    record = {
        "schema_version": _SCHEMA,
        "fingerprint": key,
        "scene": scene.id,
        "voxel": VOXEL,
        "total": found.total,
        "order": found.order.tolist(),
        "names": [scene.frames[index].name for index in found.order],
        "gains": found.gains.tolist(),
    }
    return json.dumps(record).encode()


def _read(path: Path, key: str, frames: int) -> CoverageOrder | None:
    """A stored order, or None where there is none, or none that can be used."""
    try:
        record = read_json(path)
        if record["fingerprint"] != key:
            return None
        order, gains = (np.array(record[name], dtype=np.int64) for name in ("order", "gains"))
        sound = order.shape == gains.shape == (min(frames, MAX_CANDIDATES),) and len(np.unique(order)) == len(order)
        sound = sound and order.min() >= 0 and order.max() < frames and int(gains.sum()) == record["total"] > 0
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return CoverageOrder(order=order, gains=gains, total=record["total"]) if sound else None
