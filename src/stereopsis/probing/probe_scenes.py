"""Probing a subject on scenes: figures per scene and layer, written whole."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from stereopsis.benchmarks.scoring.statistics import bootstrap_by_scene
from stereopsis.errors import RunFolderError, StereopsisError
from stereopsis.files import write_atomic
from stereopsis.probing.correspondence import Correspondence, correspondence, retrieval
from stereopsis.probing.readouts import RidgeProbe, cell_geometry
from stereopsis.probing.subjects import ProbeSubject, SceneFeatures
from stereopsis.progress import tracked
from stereopsis.reading import json_or
from stereopsis.scenes.scene import Scene
from stereopsis.training.train_run import environment

PROBE_FILE = "probe.json"
SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What is measured.

    Attributes:
        voxel: edge of a spot, metres.
        ks: of retrieval.
        readouts: whether linear readouts are fitted (from half of the scenes, read on the other half).
        penalty: of the readouts' ridge regression.
    """

    voxel: float = 0.1
    ks: tuple[int, ...] = (1, 5, 10)
    readouts: bool = True
    penalty: float = 1e-2

    def __post_init__(self) -> None:
        if self.voxel <= 0 or min(self.ks, default=0) < 1:
            raise StereopsisError(f"the voxel must be positive and every k at least 1, got {self.voxel} and {self.ks}")


def probe_scenes(
    subject: ProbeSubject,
    scenes: Sequence[Scene],
    settings: ProbeSettings | None = None,
    *,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a subject on some scenes.

    Returns:
        Plain data: ``subject``, ``settings``, ``environment``, and ``layers``: name -> ``score``, ``random``, ``gap``
        ({mean, low, high} over scenes), ``recall`` and ``chance`` by k, ``readouts`` by quantity, and ``scenes``:
        per scene its score, baseline, pairs and voxels.

    Raises:
        StereopsisError: no scene has two views of one spot.
    """
    settings = settings or ProbeSettings()
    gathered: dict[str, list[dict[str, Any]]] = {}
    probes: dict[str, RidgeProbe] = {}
    for number, scene in enumerate(tracked(scenes, f"Probing {subject.name}", "scenes", console=console)):
        seen = subject.features(scene)
        geometry = cell_geometry(seen.pack, seen.views, seen.points, seen.valid) if settings.readouts else None
        for name, features in seen.layers.items():
            gathered.setdefault(name, []).append(_scene_figures(scene.id, features, seen, settings))
            if geometry is not None:
                probe = probes.setdefault(name, RidgeProbe(features.shape[-1], penalty=settings.penalty))
                (probe.test if number % 2 else probe.train)(features, geometry)
    layers = {
        name: {
            **_means(per_scene, settings),
            "readouts": {k: dataclasses.asdict(v) for k, v in probes[name].results().items()} if name in probes else {},
            "scenes": per_scene,
        }
        for name, per_scene in gathered.items()
    }
    if not any(layer["score"] for layer in layers.values()):
        raise StereopsisError(
            f"no scene shows a spot of {settings.voxel} m in two views; take more views (--views), larger voxels "
            "(--voxel), or scenes with depth"
        )
    return {
        "schema": SCHEMA,
        "subject": {"name": subject.name, **subject.identity},
        "settings": dataclasses.asdict(settings),
        "environment": environment(),
        "layers": layers,
    }


def _scene_figures(scene_id: str, features: Any, seen: SceneFeatures, settings: ProbeSettings) -> dict[str, Any]:
    found: Correspondence = correspondence(features, seen.points, seen.valid, voxel=settings.voxel)
    recalled = retrieval(features, seen.points, seen.valid, voxel=settings.voxel, ks=settings.ks)
    return {
        "scene_id": scene_id,
        **dataclasses.asdict(found),
        "gap": found.gap,
        "recall": {} if recalled is None else {str(k): v for k, v in recalled.recall.items()},
        "chance": {} if recalled is None else {str(k): v for k, v in recalled.chance.items()},
        "queries": 0 if recalled is None else recalled.queries,
    }


def _means(per_scene: Sequence[Mapping[str, Any]], settings: ProbeSettings) -> dict[str, Any]:
    """Means over scenes with intervals from resampling them; None where no scene has the figure."""
    means: dict[str, Any] = {}
    for key in ("score", "random", "gap"):
        usable = [(s[key], s["scene_id"]) for s in per_scene if s["score"] is not None and s[key] is not None]
        means[key] = _interval(usable)
    for key in ("recall", "chance"):
        means[key] = {
            str(k): _interval([(s[key][str(k)], s["scene_id"]) for s in per_scene if s[key]]) for k in settings.ks
        }
    means["pairs"] = sum(s["pairs"] for s in per_scene)
    return means


def _interval(usable: Sequence[tuple[float, str]]) -> dict[str, float | None] | None:
    if not usable:
        return None
    found = bootstrap_by_scene(np.array([v for v, _ in usable]), [n for _, n in usable])
    return {k: None if np.isnan(v) else round(v, 6) for k, v in dataclasses.asdict(found).items()}


def write_probe(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``probe.json``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / PROBE_FILE, json.dumps(result, indent=1, allow_nan=False) + "\n", error=RunFolderError)
    return folder / PROBE_FILE


def read_probe(path: Path) -> dict[str, Any]:
    """Read ``probe.json`` (the file, or the folder that holds it).

    Raises:
        RunFolderError: there is none, it is damaged, or another version wrote it.
    """
    path = path / PROBE_FILE if path.is_dir() else path
    try:
        result = json_or(path, RunFolderError, "run 'stereopsis probe' again")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: no probe that can be read ({error}); run 'stereopsis probe' first") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise RunFolderError(f"{path} is no probe of this version (schema {SCHEMA}); run 'stereopsis probe' again")
    return result


def best_layer(result: Mapping[str, Any]) -> str:
    """The last layer of a model, or a teacher's only one: what tables show."""
    return list(result["layers"])[-1]
