"""Scenes for a recipe: procedural rooms (made once, then read from disk) or folders."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stereopsis.errors import SceneError
from stereopsis.scenes.alignment import align_scene, with_birdseye
from stereopsis.scenes.prepare import PrepareSettings, Room, find_captures, prepare
from stereopsis.scenes.rooms import GENERATOR_VERSION
from stereopsis.scenes.rooms.language import split_seeds
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import read_scene
from stereopsis.training.recipe import SourceSection


def made_rooms(seeds: Sequence[int], folder: Path, *, console: Console | None = None) -> list[Path]:
    """Folders of procedural rooms; those that are not there yet are made, on all CPUs.

    Raises:
        SceneError: a room could not be made, or something else lies in its place.
    """
    folders = [folder / Room(seed=seed).scene_id for seed in seeds]
    missing = [seed for seed, path in zip(seeds, folders, strict=True) if not (path / "scene.json").is_file()]
    report = prepare([Room(seed=seed) for seed in missing], folder, console=console) if missing else None
    for outcome in report.outcomes if report else ():
        if outcome.status == "failed":
            raise SceneError(f"{outcome.source}: {outcome.reason}")
    return folders


def scenes_of(source: SourceSection, cache: Path, *, console: Console | None = None) -> list[Scene]:
    """Open a source's scenes.

    Raises:
        SceneError: the path is neither a scene nor a folder of scenes.
    """
    if source.rooms is not None:
        seeds = split_seeds(source.split, source.rooms, source.offset)
        return [read_scene(path) for path in made_rooms(seeds, prepared_folder(source, cache), console=console)]
    assert source.path is not None
    return [_upright(scene) for scene in open_folder(source.path)]


def missing_rooms(source: SourceSection, cache: Path) -> int:
    """How many of a source's procedural rooms are not made yet."""
    if source.rooms is None:
        return 0
    folder = prepared_folder(source, cache)
    seeds = split_seeds(source.split, source.rooms, source.offset)
    return sum(not (folder / Room(seed=seed).scene_id / "scene.json").is_file() for seed in seeds)


def prepared_folder(source: SourceSection, cache: Path) -> Path:
    """Where a source's scenes lie on disk; rooms of another generator version never mix."""
    if source.path is not None:
        return source.path
    return cache / f"v{GENERATOR_VERSION}" / source.split


def open_folder(path: Path) -> list[Scene]:
    """One scene, or all scenes that lie in a folder.

    Raises:
        SceneError: nothing there is a scene, a folder in it holds none (what was lost there must not go
            unnoticed), or a scene cannot be read.
    """
    captures = find_captures(path)
    if captures[0].path != path:
        for inner in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
            if not any(capture.path.is_relative_to(inner) for capture in captures):
                find_captures(inner)  # says what is wrong with it
    return [capture.load(PrepareSettings()) for capture in captures]


def _upright(scene: Scene) -> Scene:
    """Aligned with gravity and walls, and seen from above, where its source says neither."""
    if scene.birdseye is not None:
        return scene
    return with_birdseye(align_scene(scene).scene, size=PrepareSettings().birdseye_size)
