"""Scenes for a recipe: procedural rooms (made once, then read from disk) or folders."""

import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from stereopsis.errors import SceneError
from stereopsis.scenes.alignment import align_scene, with_birdseye
from stereopsis.scenes.bad_frames import verify_scene
from stereopsis.scenes.formats import detect_format, open_scene
from stereopsis.scenes.rooms import GENERATOR_VERSION, make_room
from stereopsis.scenes.rooms.language import annotate, split_seeds
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import read_scene, write_scene
from stereopsis.training.recipe import SourceSection, cpu_threads

CAPTURE_BIRDSEYE_SIZE = 432
"""Side of a capture's bird's-eye view, pixels, as in Ross3D."""

BIRDSEYE_SIZE = 128
"""Side of the rooms' bird's-eye views, pixels: about 5 cm a pixel, what 96-pixel views can tell."""

BIRDSEYE_FILL = 2.0
"""Holes between the splatted points of a room are filled up to this radius, pixels (recorded in the void mask)."""


def prepared_room(seed: int) -> Scene:
    """A procedural room with its annotations and bird's-eye view."""
    room = make_room(seed)
    return with_birdseye(room.replace(annotations=annotate(room, seed)), size=BIRDSEYE_SIZE, fill_radius=BIRDSEYE_FILL)


def _write_room(seed: int, folder: Path) -> Path:
    room = prepared_room(seed)
    return write_scene(room, folder / room.id)


def prepare_rooms(seeds: list[int], folder: Path, *, workers: int = 0, console: Console | None = None) -> list[Path]:
    """Write procedural rooms into a folder, one sub-folder each; rooms that are there already are kept.

    Args:
        seeds: which rooms.
        folder: where to.
        workers: processes; 0 = one per CPU.
        console: where to show progress; None = quiet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {seed: folder / f"room-{seed:08d}" for seed in seeds}
    missing = [seed for seed, path in known.items() if not (path / "scene.json").is_file()]
    if missing:
        # spawn: a fork of a process whose torch threads have run may hang
        with ProcessPoolExecutor(workers or cpu_threads(0), mp_context=get_context("spawn")) as pool:
            made = pool.map(partial(_write_room, folder=folder), missing, chunksize=8)
            for _ in track(
                made,
                f"making {len(missing)} rooms",
                total=len(missing),
                console=console,
                transient=True,
                disable=console is None,
            ):
                pass
    return list(known.values())


def scenes_of(source: SourceSection, cache: Path, *, console: Console | None = None) -> list[Scene]:
    """Open a source's scenes.

    Raises:
        SceneError: the path is neither a scene nor a folder of scenes.
    """
    if source.rooms is not None:
        seeds = split_seeds(source.split, source.rooms, source.offset)
        folder = prepared_folder(source, cache)
        return [read_scene(path) for path in prepare_rooms(list(seeds), folder, console=console)]
    assert source.path is not None
    return [_upright(scene) for scene in open_folder(source.path)]


def prepared_folder(source: SourceSection, cache: Path) -> Path:
    """Where a source's scenes lie on disk; rooms of another generator version never mix."""
    if source.path is not None:
        return source.path
    return cache / f"v{GENERATOR_VERSION}" / source.split


def open_folder(path: Path) -> list[Scene]:
    """One scene, or all scenes that lie in a folder.

    Raises:
        SceneError: nothing there is a scene.
    """
    try:
        detect_format(path)
    except SceneError:
        inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")) if path.is_dir() else []
        if not inner:
            raise
        return [open_scene(p) for p in inner]
    return [open_scene(path)]


def _upright(scene: Scene) -> Scene:
    """Aligned with gravity and walls, and seen from above, where its source says neither."""
    if scene.birdseye is not None:
        return scene
    return with_birdseye(align_scene(scene).scene, size=CAPTURE_BIRDSEYE_SIZE)


def room_seeds(split: str, count: int) -> list[int]:
    """Seeds of the first ``count`` rooms of a split."""
    return list(split_seeds(split, count))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCapture:
    """A capture that was prepared: where it lies, and what was found."""

    folder: Path
    scene: Scene

    def summary(self) -> str:
        """A few lines for people."""
        facts = self.scene.provenance
        lines = [f"{len(self.scene.frames)} frames of '{self.scene.id}' in {self.folder}"]
        lines.append(f"alignment: {json.dumps(facts.get('alignment', 'given'), default=str)}")
        skipped = facts.get("skipped") or {}
        lines.append(f"skipped frames: {len(skipped)}" + "".join(f"\n  {k}: {v}" for k, v in skipped.items()))
        if self.scene.birdseye is not None:
            lines.append(f"bird's-eye view: {1 - self.scene.birdseye.void.mean():.0%} seen")
        return "\n".join(lines)


def prepare_capture(
    path: Path, output: Path, *, on_bad_frame: Literal["raise", "skip"] = "raise", overwrite: bool = False
) -> PreparedCapture:
    """Read a capture, check every frame, align it with gravity, render it from above, and write it.

    Raises:
        SceneError: nothing readable there, a bad frame (or too many of them), or ``output`` is in the way.
    """
    scene = verify_scene(open_scene(path, on_bad_frame=on_bad_frame), on_bad_frame=on_bad_frame)
    upright = with_birdseye(align_scene(scene).scene, size=CAPTURE_BIRDSEYE_SIZE)
    folder = write_scene(upright, output / upright.id, overwrite=overwrite)
    return PreparedCapture(folder=folder, scene=upright)
