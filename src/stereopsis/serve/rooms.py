"""The rooms that a server holds: opened one after another in a thread of their own, with what a page draws of them."""

import dataclasses
import io
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from stereopsis.errors import StereopsisError
from stereopsis.geometry.birdseye import ceiling_height
from stereopsis.geometry.voxels import voxel_indices, voxel_keys
from stereopsis.scenes import open_scene
from stereopsis.scenes.alignment import scene_points
from stereopsis.scenes.draw import colour_depth, draw_boxes_in_view
from stereopsis.scenes.measuring import Survey
from stereopsis.scenes.prepare import PrepareSettings
from stereopsis.scenes.prepare.inspect import Verdict, verdict
from stereopsis.scenes.prepare.work import prepare_upright
from stereopsis.scenes.scene import Frame, Scene
from stereopsis.serve.failures import NotReadyError, RequestError, UnknownRoomError, told

log = logging.getLogger("stereopsis.serve")
MOST_POINTS = 300_000
MOST_ROOMS = 64
VIEW_SIDE = 640
"""Longer side of the pictures that a page gets, pixels."""
_CLOUD_FRAMES = 64
_MOST_HIDDEN = 16


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """What a page draws: points below and above the ceiling, thinned.

    Attributes:
        points: [n, 3] aligned frame, metres.
        colours: [n, 3].
        ceiling: its height; None where the capture shows none.
        spacing: of the points, metres.
    """

    points: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    ceiling: float | None
    spacing: float = 0.02

    @classmethod
    def of(cls, scene: Scene, most: int = MOST_POINTS) -> "Cloud":
        """A scene's points; empty where it has no depth."""
        if all(frame.load_depth is None for frame in scene.frames):
            return cls(points=np.zeros((0, 3), np.float32), colours=np.zeros((0, 3), np.uint8), ceiling=None)
        camera = scene.frames[0].depth_intrinsics or scene.frames[0].intrinsics
        found = scene_points(scene, max_frames=_CLOUD_FRAMES, stride=max(1, camera.width // 300))
        points, colours = found.points.astype(np.float32), found.colours
        points, colours, spacing = thinned(points, colours, most)
        ceiling = ceiling_height(points.astype(np.float64))
        return cls(points=points, colours=colours, ceiling=ceiling, spacing=spacing)

    def packed(self) -> bytes:
        """For the wire: b"SPC1", uint32 n, float32 origin [3], float32 step, int16 [n, 3], uint8 [n, 3]; little-endian.

        A coordinate is ``origin + step * value``.
        """
        if not len(self.points):
            return b"SPC1" + np.zeros(1, "<u4").tobytes() + np.zeros(4, "<f4").tobytes()
        low, high = self.points.min(0).astype(np.float64), self.points.max(0).astype(np.float64)
        origin = ((low + high) / 2).astype("<f4")
        step = np.float32(max(0.0005, float((high - low).max()) / 65_000))
        steps = np.clip(np.rint((self.points - origin) / step), -32768, 32767).astype("<i2")
        head = b"SPC1" + np.array([len(steps)], "<u4").tobytes() + origin.tobytes() + step.astype("<f4").tobytes()
        return head + steps.tobytes() + np.ascontiguousarray(self.colours).tobytes()


def thinned(
    points: Float[np.ndarray, "n 3"], colours: UInt8[np.ndarray, "n 3"], most: int
) -> tuple[Float[np.ndarray, "m 3"], UInt8[np.ndarray, "m 3"], float]:
    """One point per voxel, of voxels so large that at most so many are left; what many views saw is no denser.

    Returns:
        Points, colours and the voxels' side in metres.
    """
    side = 0.008
    while True:
        _, kept = np.unique(voxel_keys(voxel_indices(points, side)), return_index=True)
        if len(kept) <= most:
            return points[kept], colours[kept], side
        side *= max(1.15, (len(kept) / most) ** 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OpenRoom:
    """A room whose scene was read."""

    scene: Scene
    survey: Survey
    cloud: Cloud
    verdict: Verdict

    @classmethod
    def of(cls, scene: Scene) -> "OpenRoom":
        """Read what a page and measurements need of a scene."""
        return cls(scene=scene, survey=Survey(scene), cloud=Cloud.of(scene), verdict=verdict(scene))

    @property
    def boxes(self) -> list[dict[str, Any]]:
        """The candidates of `find`: detector's, or the objects' own boxes; with labels where these are known."""
        given: Any = self.scene.proposals or self.scene.objects
        return [
            {
                "index": number,
                "box": [round(float(v), 3) for v in item.box],
                "label": item.label,
                "score": round(float(getattr(item, "score", 1.0)), 3),
            }
            for number, item in enumerate(given)
        ]

    def frame(self, number: int) -> Frame:
        """One of its views.

        Raises:
            UnknownRoomError: it has fewer.
        """
        if not 0 <= number < len(self.scene.frames):
            raise UnknownRoomError(
                f"room '{self.scene.id}' has views 0 to {len(self.scene.frames) - 1}, there is no view {number}"
            )
        return self.scene.frames[number]

    def picture(self, number: int, *, kind: str = "colour", boxes: Sequence[Sequence[float]] = ()) -> bytes:
        """A view as JPEG, in colour or its depth, with boxes drawn in; the longer side has `VIEW_SIDE` pixels at most.

        Raises:
            UnknownRoomError: there is no such view.
            RequestError: it has no depth.
        """
        frame = self.frame(number)
        if kind == "depth":
            depth = frame.depth()
            if depth is None:
                raise RequestError(f"view {number} of room '{self.scene.id}' has no depth; ask for its colour")
            seen = depth[depth > 0]
            pixels = colour_depth(
                depth.astype(np.float64), furthest=float(np.percentile(seen, 98)) if seen.size else 1.0
            )
        else:
            pixels = frame.colour()
        drawn = [np.asarray(box, dtype=np.float64) for box in boxes]
        camera = frame.depth_intrinsics if kind == "depth" and frame.depth_intrinsics else frame.intrinsics
        image = draw_boxes_in_view(pixels, camera, self.scene.T_aligned_camera(frame), drawn)
        image.thumbnail((VIEW_SIDE, VIEW_SIDE))
        return encoded(image, "JPEG")

    def above(self) -> bytes | None:
        """The room from above as PNG, void transparent; None where nobody has drawn it."""
        view = self.scene.birdseye
        if view is None:
            return None
        alpha = np.where(view.void, 0, 255).astype(np.uint8)
        return encoded(Image.fromarray(np.dstack([view.image, alpha]), "RGBA"), "PNG")


def encoded(image: Image.Image, format: str) -> bytes:
    """A picture's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 86} if format == "JPEG" else {"optimize": True}))
    return buffer.getvalue()


@dataclasses.dataclass(kw_only=True, eq=False)
class RoomEntry:
    """One line of the book: a room that is waiting, being opened, open, or that cannot be opened.

    Attributes:
        id: in addresses.
        title: for people.
        load: makes the scene; slow.
        state: "waiting", "opening", "open" or "failed".
        room: once it is open.
        error: why it cannot be opened.
        hidden: not listed (pictures that came with one question).
        suggestions: what one may ask, where somebody knows what makes sense here.
    """

    id: str
    title: str
    load: Callable[[], Scene]
    state: str = "waiting"
    room: OpenRoom | None = None
    error: StereopsisError | None = None
    hidden: bool = False
    suggestions: tuple[str, ...] = ()

    def opened(self) -> OpenRoom:
        """The room.

        Raises:
            NotReadyError: it is not open yet.
            StereopsisError: it cannot be opened.
        """
        if self.error is not None:
            raise self.error
        if self.room is None:
            raise NotReadyError(f"room '{self.id}' is still being opened; ask again in a few seconds")
        return self.room

    @property
    def settled(self) -> bool:
        """Whether it is known if it opens."""
        return self.state in ("open", "failed")


class RoomBook:
    """The rooms of a server, each opened once, in a thread that nobody else waits for.

    Args:
        most: at most so many rooms.
    """

    def __init__(self, most: int = MOST_ROOMS) -> None:
        self.most = most
        self._entries: dict[str, RoomEntry] = {}
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[RoomEntry | None] = queue.SimpleQueue()
        self._told: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._open_all, name="rooms", daemon=True)
        self._thread.start()

    def on_change(self, tell: Callable[[], None]) -> None:
        """Call this whenever a room has been opened or has failed."""
        self._told.append(tell)

    def add(self, id: str, load: Callable[[], Scene], *, title: str = "", suggestions: Sequence[str] = ()) -> RoomEntry:
        """Put a room into the book; it will be opened after those before it.

        Raises:
            RequestError: there are as many as the server holds, or the name is taken.
        """
        with self._lock:
            if sum(not e.hidden for e in self._entries.values()) >= self.most:
                raise RequestError(f"the server holds {self.most} rooms already; restart it to begin anew")
            if id in self._entries:
                raise RequestError(f"there is a room '{id}' already; rename the scene")
            entry = RoomEntry(id=id, title=title or id, load=load, suggestions=tuple(suggestions))
            self._entries[id] = entry
        self._waiting.put(entry)
        return entry

    def add_open(self, scene: Scene, *, hidden: bool = False) -> RoomEntry:
        """Put a scene that is there already into the book; one that is hidden takes the place of its namesake."""
        room = OpenRoom.of(scene)
        entry = RoomEntry(id=scene.id, title=scene.id, load=lambda: scene, state="open", room=room, hidden=hidden)
        with self._lock:
            self._entries[scene.id] = entry
            old = [e.id for e in self._entries.values() if e.hidden][:-_MOST_HIDDEN]
            for id in old:
                del self._entries[id]
        return entry

    def __getitem__(self, id: str) -> RoomEntry:
        """The room of this id.

        Raises:
            UnknownRoomError: there is none.
        """
        entry = self._entries.get(id)
        if entry is None:
            known = ", ".join(e.id for e in self.listed()[:8]) or "none"
            raise UnknownRoomError(f"there is no room '{id[:80]}'; the rooms are: {known}")
        return entry

    def listed(self) -> list[RoomEntry]:
        """All that are not hidden, in the order in which they came."""
        return [entry for entry in list(self._entries.values()) if not entry.hidden]

    def wait(self, id: str, seconds: float = 600.0) -> OpenRoom:
        """The room, once it is open."""
        end = time.monotonic() + seconds
        while not self[id].settled and time.monotonic() < end:
            time.sleep(0.02)
        return self[id].opened()

    def close(self) -> None:
        """Open nothing more."""
        self._waiting.put(None)

    def _open_all(self) -> None:
        while (entry := self._waiting.get()) is not None:
            entry.state = "opening"
            try:
                entry.room = OpenRoom.of(entry.load())
                entry.state = "open"
            except Exception as error:
                log.warning(
                    "room %s cannot be opened: %s", entry.id, error, exc_info=not isinstance(error, StereopsisError)
                )
                entry.error, entry.state = told(error), "failed"
            for tell in self._told:
                tell()


def opened_scene(path: Path, *, rename: str | None = None) -> Scene:
    """A scene of any layout, made ready to be asked about: upright, seen from above, with candidate boxes.

    A prepared scene is taken as it is; bad frames of a capture are left out.
    """
    scene = open_scene(path)
    ready = scene.birdseye is not None and (scene.proposals or scene.objects)
    if not ready and any(frame.load_depth is not None for frame in scene.frames):
        scene = prepare_upright(scene, PrepareSettings(on_bad_frame="skip", min_agreement=0))
    return scene if rename is None else scene.replace(id=rename)


def facts_of(entry: RoomEntry) -> Mapping[str, Any]:
    """What the list of rooms says of one."""
    facts: dict[str, Any] = {"id": entry.id, "title": entry.title, "state": entry.state}
    if entry.room is not None:
        facts |= {"verdict": entry.room.verdict.words, "views": len(entry.room.scene.frames)}
    if entry.error is not None:
        facts["error"] = str(entry.error)
    return facts
