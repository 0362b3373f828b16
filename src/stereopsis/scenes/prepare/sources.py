"""What can be prepared: captures on disk, found by walking a folder, and procedural rooms, known by their seeds."""

import collections
import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stereopsis.errors import SceneError
from stereopsis.files import is_cache
from stereopsis.scenes.alignment import with_birdseye
from stereopsis.scenes.formats import FoundScenes, detect_format, open_scene, scene_id_at, scenes_at
from stereopsis.scenes.prepare.settings import PrepareSettings
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.scene import Scene

ROOM_BIRDSEYE_SIZE = 128
"""Side of the rooms' bird's-eye views, pixels: about 5 cm a pixel, what 96-pixel views can tell."""

ROOM_BIRDSEYE_FILL = 2.0
"""Holes between the splatted points of a room are filled up to this radius, pixels (recorded in the void mask)."""

MAX_DEPTH = 4
"""How many folders deep captures are looked for; 7-Scenes' heads/seq-01 and ScanNet's scans/SCENE lie within."""


@runtime_checkable
class Source(Protocol):
    """One scene that is still to be made or read; picklable, so that it can travel to another process."""

    @property
    def name(self) -> str:
        """What people call it in tables and messages."""

    @property
    def scene_id(self) -> str | None:
        """The id that its scene will have, where that is known before it is read."""

    def load(self, settings: PrepareSettings) -> Scene:
        """Open it; pixels may be read later."""

    def made_with(self, settings: PrepareSettings) -> dict[str, Any]:
        """What, besides the source itself, decides how the prepared scene looks; plain values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capture:
    """A scene folder of any known layout.

    Attributes:
        path: the folder.
        format: its layout's name; None detects it.
        rename: the id to give to the scene, where names alone would be ambiguous; None keeps the reader's.
        own_id: the reader's, where that is known.
    """

    path: Path
    format: str | None = None
    rename: str | None = None
    own_id: str | None = dataclasses.field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The folder, as given."""
        return str(self.path)

    @property
    def scene_id(self) -> str | None:
        """The chosen one, or the reader's where that is known."""
        return self.rename or self.own_id

    def load(self, settings: PrepareSettings) -> Scene:
        """Open the folder.

        Raises:
            SceneError: it cannot be read.
            FrameError: a frame is bad and the settings say "raise".
        """
        scene = open_scene(
            self.path,
            format=self.format,
            options=settings.options,
            on_bad_frame=settings.on_bad_frame,
            max_bad_fraction=settings.max_bad_fraction,
        )
        return scene if self.rename is None else scene.replace(id=self.rename)

    def made_with(self, settings: PrepareSettings) -> dict[str, Any]:
        """All the settings."""
        return settings.record()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """A procedural room."""

    seed: int

    @property
    def name(self) -> str:
        """As people name it in messages."""
        return f"room {self.seed}"

    @property
    def scene_id(self) -> str:
        """The id that the generator gives."""
        return f"room-{self.seed:08d}"

    def load(self, settings: PrepareSettings) -> Scene:
        """Make the room; it has a view from above of its own, whatever the settings say."""
        return prepared_room(self.seed)

    def made_with(self, settings: PrepareSettings) -> dict[str, Any]:
        """The versions of the generator and of what it says; the settings are for captures."""
        from stereopsis.scenes.rooms import GENERATOR_VERSION
        from stereopsis.scenes.rooms.language import LANGUAGE_VERSION

        return {"room_generator": GENERATOR_VERSION, "room_language": LANGUAGE_VERSION}


def prepared_room(seed: int) -> Scene:
    """A procedural room with its annotations and bird's-eye view."""
    from stereopsis.scenes.rooms import make_room
    from stereopsis.scenes.rooms.language import annotate

    room = make_room(seed)
    return with_birdseye(
        room.replace(annotations=annotate(room, seed)), size=ROOM_BIRDSEYE_SIZE, fill_radius=ROOM_BIRDSEYE_FILL
    )


def find_captures(root: str | Path, *, format: str | None = None) -> list[Capture]:
    """The scenes at or below a folder, sorted by path; a source that holds several gives each of them.

    A folder that is in a known layout is one scene and is not searched any further. Symbolic links are followed,
    a folder that was seen already is not entered again. Hidden folders and caches (`stereopsis.files.is_cache`) are
    left out.

    Args:
        root: a scene folder, or a folder of such folders (up to `MAX_DEPTH` deep).
        format: the layout's name: then ``root`` itself, or each folder directly in it, is taken to be in it.

    Raises:
        SceneError: nothing there is a scene; the message lists the known layouts.
    """
    root = Path(root)
    if format is not None:
        return _named(root, format)
    reasons: list[SceneError] = []
    found = _search(root, set(), 0, reasons)
    if not found:
        raise reasons[0]
    return _with_distinct_ids([_capture(path, source.format) for source in found for path in source.paths], root)


def _capture(path: Path, format: str) -> Capture:
    return Capture(path=path, format=format, own_id=scene_id_at(path, format=format))


def _with_distinct_ids(captures: list[Capture], root: Path) -> list[Capture]:
    """Scenes that would share an id get their path as id, and a checksum of it where even that is shared."""
    ids = collections.Counter(capture.own_id or capture.path.name for capture in captures)
    named = [
        capture
        if ids[capture.own_id or capture.path.name] == 1
        else dataclasses.replace(capture, rename=_distinct(capture.path, root))
        for capture in captures
    ]
    again = collections.Counter(capture.scene_id for capture in named)
    return [
        capture
        if capture.scene_id is None or again[capture.scene_id] == 1
        else dataclasses.replace(capture, rename=f"{_distinct(capture.path, root)}-{_checksum(capture.path)}")
        for capture in named
    ]


def _checksum(path: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:8]


def _search(folder: Path, seen: set[Path], depth: int, reasons: list[SceneError]) -> list[FoundScenes]:
    # os.path.realpath and isdir, as a link that leads to itself is then no folder and no error
    here = Path(os.path.realpath(folder))
    if here in seen:
        return []
    seen.add(here)
    try:
        return [scenes_at(folder)]
    except SceneError as error:
        reasons.append(error)
    if depth == MAX_DEPTH or not os.path.isdir(folder):
        return []
    try:
        inner = sorted(n for n in os.listdir(folder) if not n.startswith(".") and os.path.isdir(folder / n))
    except OSError as error:
        reasons.append(SceneError(f"{folder}: cannot be listed: {error}; check its permissions"))
        return []
    caches = [name for name in inner if is_cache(folder / name)]
    found = [
        source for name in inner if name not in caches for source in _search(folder / name, seen, depth + 1, reasons)
    ]
    if caches and not found and depth == 0:
        raise SceneError(
            f"{folder}: holds no scenes but those in caches ({', '.join(caches)}), which are passed over; name "
            "the folder in one of them, or prepare scenes of your own"
        )
    return found


def _named(root: Path, format: str) -> list[Capture]:
    """The root, if the layout's reader recognises it or nothing lies below it, else the folders in it."""
    if not root.is_dir():
        return [_capture(path, format) for path in scenes_at(root, format=format).paths]
    try:
        if detect_format(root) == format:
            return [_capture(path, format) for path in scenes_at(root, format=format).paths]
    except SceneError:
        pass
    inner = []
    for path in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and not is_cache(p)):
        try:
            if detect_format(path) == format:
                inner.append(path)
        except SceneError:
            continue
    return _with_distinct_ids([_capture(path, format) for path in inner or [root]], root)


def _distinct(path: Path, root: Path) -> str:
    """A scene id that tells apart folders of the same name: the path below the root, joined by dashes."""
    return re.sub(r"[^\w.-]", "-", "-".join(path.relative_to(root).parts)) or given_name(path)
