"""One source to one prepared scene, in whatever process: the outcome says what happened, and never raises."""

import dataclasses
import hashlib
import json
import time
import traceback
from pathlib import Path
from typing import Any, Literal

from stereopsis.errors import SceneError, StereopsisError
from stereopsis.files import locked
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.scenes.agreement import KEY, depth_agreement, with_depth_agreement
from stereopsis.scenes.alignment import align_scene, with_birdseye, with_mesh_birdseye
from stereopsis.scenes.bad_frames import keep_frames, verify_scene
from stereopsis.scenes.detections import read_detections
from stereopsis.scenes.prepare.inspect import verdict
from stereopsis.scenes.prepare.remarks import scene_warnings
from stereopsis.scenes.prepare.settings import PrepareSettings
from stereopsis.scenes.prepare.sources import Source
from stereopsis.scenes.proposals import geometric_proposals, with_proposals
from stereopsis.scenes.readers.front3d import front3d_mesh
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.selection import select_views
from stereopsis.scenes.stored import is_stored, read_scene, write_scene
from stereopsis.scenes.surfaces.fusion import fuse_scene
from stereopsis.scenes.surfaces.meshes import read_mesh

ROOMS = "rooms"
Status = Literal["done", "kept", "failed", "busy"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one source.

    Attributes:
        source: its name.
        status: "done", "kept" (it was there already, prepared from the same source with the same settings), "failed",
            or "busy" (another process is at it).
        folder: where the prepared scene lies; None where it failed.
        reason: why it failed, in words.
        trace: where an error that nobody foresaw came from.
        seconds: how long it took.
        frames: how many frames the scene has.
        skipped: frames that were left out, and why.
        warnings: what may be wrong with the scene all the same.
        notes: what a user should know: how well its views agree, how well it was aligned, how much of it is seen from
            above.
        usable: whether it can be trained on or asked about as it is.
        verdict: that, in a sentence; empty where it failed.
    """

    source: str
    status: Status
    folder: Path | None = None
    reason: str = ""
    trace: str = ""
    seconds: float = 0.0
    frames: int = 0
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    usable: bool = False
    verdict: str = ""

    @property
    def noteworthy(self) -> bool:
        """Whether a person should hear of it: failed, frames left out, or perhaps wrong."""
        return self.status == "failed" or bool(self.skipped or self.warnings)

    def record(self) -> dict[str, Any]:
        """As plain values, for a file."""
        return {**dataclasses.asdict(self), "folder": None if self.folder is None else str(self.folder)}


def prepare_source(
    source: Source, output: Path, settings: PrepareSettings, overwrite: bool = False, wait: bool = False
) -> Outcome:
    """Read one source, check every frame, stand it upright, render it from above, and write it into ``output``.

    Whatever goes wrong is told in the outcome: one bad scene must not stop a thousand. A source that another process
    is preparing into the same folder is "busy", or (``wait``) waited for.
    """
    started = time.monotonic()
    lock = output / f".{hashlib.sha256(source.name.encode()).hexdigest()[:16]}.lock"
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(lock, wait=wait):
            outcome = _prepare(source, output, settings, overwrite)
    except BlockingIOError:
        outcome = Outcome(source=source.name, status="busy")
    except (StereopsisError, OSError) as error:
        outcome = Outcome(source=source.name, status="failed", reason=str(error))
    except Exception as error:
        reason = f"unforeseen {type(error).__name__}: {error}; please report it, with the trace in the summary file"
        outcome = Outcome(source=source.name, status="failed", reason=reason, trace=traceback.format_exc())
    return dataclasses.replace(outcome, seconds=time.monotonic() - started)


def _prepare(source: Source, output: Path, settings: PrepareSettings, overwrite: bool) -> Outcome:
    if source.scene_id is not None and not overwrite and (kept := _kept(source, output / source.scene_id, settings)):
        return kept
    scene = source.load(settings)
    folder = output / scene.id
    if not overwrite and (kept := _kept(source, folder, settings)):
        return kept
    scene = prepare_upright(scene, settings)
    mark = {"source": source.name, "settings": source.made_with(settings)}
    scene = scene.replace(provenance={**scene.provenance, "prepared": mark})
    write_scene(scene, folder, overwrite=overwrite)
    return _told(source, scene, folder, "done")


def prepare_upright(scene: Scene, settings: PrepareSettings) -> Scene:
    """Check frames, alone and against each other, stand the scene upright, draw it, choose its views and boxes.

    What a source brings with it (alignment, view from above, proposals) is kept. The view from above and the
    proposals are made from all frames, before views are chosen.

    Raises:
        SceneError: too many bad frames, views that contradict each other, nothing to see, or a detector's file that
            does not fit.
        FrameError: a frame is bad and the settings say "raise".
    """
    scene = verify_scene(scene, on_bad_frame=settings.on_bad_frame, max_bad_fraction=settings.max_bad_fraction)
    if scene.provenance.get("format") != ROOMS:  # whose depth is exact by construction
        scene = _with_agreement(scene, settings)
    if scene.birdseye is None:
        scene = _seen_from_above(align_scene(scene).scene, settings)
    return _with_views(_with_candidates(scene, settings), settings)


def _with_agreement(scene: Scene, settings: PrepareSettings) -> Scene:
    found = depth_agreement(scene)
    least = settings.min_agreement
    if found.remedies and least is None:
        raise SceneError(
            f"scene '{scene.id}': {found}; add that option, or --min-agreement 0 to prepare the scene as it is"
        )
    if least is not None and found.agreement is not None and found.agreement < least:
        raise SceneError(f"scene '{scene.id}': {found}; the least that was asked for is {least:.0%} (--min-agreement)")
    return with_depth_agreement(scene, found)


def _seen_from_above(scene: Scene, settings: PrepareSettings) -> Scene:
    size, fill = settings.birdseye_size, settings.birdseye_fill
    mesh = source_mesh(scene) if settings.surface in ("auto", "mesh") else None
    if settings.surface == "fused":
        mesh = fuse_scene(scene)
    if mesh is not None:
        return with_mesh_birdseye(scene, mesh, size=size, fill_radius=fill)
    if settings.surface == "mesh":
        raise SceneError(f"scene '{scene.id}' brings no mesh; choose the surface 'depth' or 'fused'")
    return with_birdseye(scene, size=size, fill_radius=fill)


def source_mesh(scene: Scene) -> TriangleMesh | None:
    """The mesh that a scene's source brings, in the world of its frames; None where it brings none.

    Raises:
        SceneError: it cannot be read.
    """
    if scene.provenance.get("format") == "front3d":
        return front3d_mesh(scene)
    path = scene.provenance.get("mesh")
    return None if path is None else read_mesh(path)


def _with_candidates(scene: Scene, settings: PrepareSettings) -> Scene:
    if settings.proposals not in ("none", "geometry"):
        found = read_detections(settings.proposals, scene.id)
        return with_proposals(scene, found.proposals, settings.proposals)
    if settings.proposals == "none" or scene.objects or scene.proposals:
        return scene
    return with_proposals(scene, geometric_proposals(scene), "geometry")


def _with_views(scene: Scene, settings: PrepareSettings) -> Scene:
    if settings.views is None and settings.selection == "uniform":
        return scene
    kept = select_views(scene, settings.views, selection=settings.selection, coverage=settings.coverage)
    facts = {"of": len(scene.frames), "kept": len(kept), "selection": settings.selection}
    return keep_frames(scene.replace(provenance={**scene.provenance, "views": facts}), kept)


def _kept(source: Source, folder: Path, settings: PrepareSettings) -> Outcome | None:
    """The outcome if the very same is there already.

    Raises:
        SceneError: something else is there.
    """
    if not is_stored(folder):
        return None
    scene = read_scene(folder)
    mark = scene.provenance.get("prepared") or {}
    if mark.get("source") != source.name:
        raise SceneError(
            f"{folder}: holds a scene made from {mark.get('source', 'another source')}, not from {source.name}; "
            "choose another output folder, or allow overwriting"
        )
    now = json.loads(json.dumps(source.made_with(settings)))
    if mark.get("settings") != now:
        theirs = mark.get("settings") or {}
        both = {**now, **theirs}
        changed = ", ".join(
            f"{k}: {theirs.get(k)} there, {now.get(k)} now" for k in both if theirs.get(k) != now.get(k)
        )
        raise SceneError(f"{folder}: was prepared with other settings ({changed}); overwrite it, or use those settings")
    return _told(source, scene, folder, "kept")


def _told(source: Source, scene: Scene, folder: Path, status: Status) -> Outcome:
    told = (KEY, "alignment", "views", "proposals")
    notes = {name: scene.provenance[name] for name in told if name in scene.provenance}
    if scene.birdseye is not None:
        notes["seen_from_above"] = round(float(1 - scene.birdseye.void.mean()), 3)
    found = verdict(scene)
    return Outcome(
        source=source.name,
        status=status,
        folder=folder,
        frames=len(scene.frames),
        skipped=dict(scene.provenance.get("skipped") or {}),
        warnings=tuple(scene_warnings(scene)),
        notes=notes,
        usable=found.usable,
        verdict=found.words,
    )
