"""Scenes for a recipe: procedural rooms (made once, then read from disk) or folders."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

from rich.console import Console

from stereopsis.benchmarks.files.processed import ProcessedFiles
from stereopsis.errors import SceneError
from stereopsis.files import is_cache, mark_cache
from stereopsis.scenes.alignment import align_scene, with_birdseye
from stereopsis.scenes.first_view import from_first_view
from stereopsis.scenes.prepare import Capture, PrepareSettings, Room, find_captures, prepare
from stereopsis.scenes.readers.video3dllm import Video3DLLMData
from stereopsis.scenes.rooms import GENERATOR_VERSION
from stereopsis.scenes.rooms.language import LANGUAGE_VERSION, split_seeds
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import read_scene
from stereopsis.training.sections import SourceSection


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


class SceneFolders(Sequence[Scene]):
    """Scenes that are opened when they are asked for and not kept."""

    def __init__(self, openers: Sequence[Callable[[], Scene]]) -> None:
        self.openers = tuple(openers)

    def __len__(self) -> int:
        return len(self.openers)

    def __iter__(self) -> Iterator[Scene]:
        return (opener() for opener in self.openers)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        if isinstance(index, slice):
            return [opener() for opener in self.openers[index]]
        return self.openers[index]()


def folders_of(source: SourceSection, cache: Path, *, console: Console | None = None) -> SceneFolders:
    """A source's scenes, opened one by one, in the frame that it asks for.

    Raises:
        SceneError: the path is neither a scene nor a folder of scenes; when iterated, a scene cannot be read.
    """
    openers = _openers(source, cache, console)
    if source.frame == "first_view":
        openers = [functools.partial(_from_first_view, opener) for opener in openers]
    return SceneFolders(openers)


def _openers(source: SourceSection, cache: Path, console: Console | None) -> list[Callable[[], Scene]]:
    if source.rooms is not None:
        seeds = split_seeds(source.split, source.rooms, source.offset)
        mark_cache(prepared_folder(source, cache).parent)
        made = made_rooms(seeds, prepared_folder(source, cache), console=console)
        return [functools.partial(read_scene, path) for path in made]
    assert source.path is not None
    if source.annotations:
        return annotated_scenes(source.path, source.annotations)
    return [functools.partial(_opened, capture) for capture in captures_in(source.path)]


def _from_first_view(opener: Callable[[], Scene]) -> Scene:
    return from_first_view(opener())


def scenes_of(source: SourceSection, cache: Path, *, console: Console | None = None) -> list[Scene]:
    """Open a source's scenes, all of them.

    Raises:
        SceneError: the path is neither a scene nor a folder of scenes, or a scene cannot be read.
    """
    return list(folders_of(source, cache, console=console))


def annotated_scenes(folder: Path, names: Sequence[str]) -> list[Callable[[], Scene]]:
    """The scenes of a Video-3D-LLM data folder that some of its processed files speak of, not opened yet.

    Args:
        folder: the data folder, or the project's folder that holds it.
        names: processed files, such as "BENCHMARK_train".

    Raises:
        SceneError: a file is absent or wrong; when opened, a scene has no frames here.
    """
    data = Video3DLLMData(folder)
    files = ProcessedFiles(data.root)
    wanted = sorted({record.annotation.scene_id for name in names for record in files.records(name)})
    return [functools.partial(_finished, data, files, scene_id, tuple(names)) for scene_id in wanted]


def missing_rooms(source: SourceSection, cache: Path) -> int:
    """How many of a source's procedural rooms are not made yet."""
    if source.rooms is None:
        return 0
    folder = prepared_folder(source, cache)
    seeds = split_seeds(source.split, source.rooms, source.offset)
    return sum(not (folder / Room(seed=seed).scene_id / "scene.json").is_file() for seed in seeds)


def prepared_folder(source: SourceSection, cache: Path) -> Path:
    """Where a source's scenes lie on disk; rooms of another version, or that speak of other things, never mix."""
    if source.path is not None:
        return source.path
    return cache / f"v{GENERATOR_VERSION}.{LANGUAGE_VERSION}" / source.split


def open_folder(path: Path) -> list[Scene]:
    """One scene, or all scenes that lie in a folder.

    Raises:
        SceneError: nothing there is a scene, a folder in it holds none (what was lost there must not go
            unnoticed), or a scene cannot be read.
    """
    return [capture.load(PrepareSettings()) for capture in captures_in(path)]


def captures_in(path: Path) -> list[Capture]:
    """One scene, or all scenes that lie in a folder, not opened yet.

    Raises:
        SceneError: nothing there is a scene, or a folder in it holds none.
    """
    captures = find_captures(path)
    if captures[0].path != path:
        for inner in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
            if not is_cache(inner) and not any(capture.path.is_relative_to(inner) for capture in captures):
                find_captures(inner)  # says what is wrong with it
    return captures


def _finished(data: Video3DLLMData, files: ProcessedFiles, scene_id: str, names: tuple[str, ...]) -> Scene:
    return _upright(data.scene(scene_id, records=files.of_scene(names, scene_id)))


def _opened(capture: Capture) -> Scene:
    return _upright(capture.load(PrepareSettings()))


def _upright(scene: Scene) -> Scene:
    """Aligned with gravity and walls, and seen from above, where its source says neither and there is depth."""
    if scene.birdseye is not None or not any(frame.load_depth for frame in scene.frames):
        return scene
    return with_birdseye(align_scene(scene).scene, size=PrepareSettings().birdseye_size)
