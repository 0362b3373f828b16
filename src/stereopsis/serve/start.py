"""A server from start to end: the rooms it opens, the model it loads, the address it says at once."""

import dataclasses
import functools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stereopsis.errors import StereopsisError
from stereopsis.scenes.prepare import find_captures
from stereopsis.scenes.scene import Scene
from stereopsis.serve.engine import Engine
from stereopsis.serve.guard import LOOPBACK, Rules
from stereopsis.serve.opening import Opening
from stereopsis.serve.rooms import MOST_ROOMS, RoomBook, opened_scene
from stereopsis.serve.uploads import UploadLimits

PORT = 8765
SHOWN_SEEDS = (20_000_001, 20_000_006, 20_000_011)
"""Of the test split, which the shipped model has never seen."""
_PORTS_TRIED = 20


def shown_room(seed: int) -> Scene:
    """A procedural room for a page: more and larger views than the ones that models train on, with words about it."""
    from stereopsis.scenes.alignment import with_birdseye
    from stereopsis.scenes.rooms import RoomConfig, make_room
    from stereopsis.scenes.rooms.language import annotate

    words = annotate(make_room(seed), seed)
    room = make_room(seed, RoomConfig(views=16, width=320, height=320, min_visible_pixels=12))
    return with_birdseye(room.replace(annotations=words), size=400, fill_radius=2.0)


def add_rooms(rooms: RoomBook, seeds: Sequence[int] = SHOWN_SEEDS) -> None:
    """Put procedural rooms into a book."""
    for number, seed in enumerate(seeds, start=1):
        rooms.add(f"room-{seed:08d}", functools.partial(shown_room, seed), title=f"Room {number}")


def add_scenes(rooms: RoomBook, paths: Sequence[Path]) -> None:
    """Put captures, prepared scenes or folders of them into a book; they are opened one after another.

    Raises:
        SceneError: there is no scene at a path.
        StereopsisError: there are more than a server holds.
    """
    captures = [capture for path in paths for capture in find_captures(path)]
    if len(captures) > MOST_ROOMS:
        raise StereopsisError(f"{len(captures)} scenes were named, a server holds {MOST_ROOMS}; name fewer")
    taken: set[str] = set()
    for capture in captures:
        id = address_name(capture.scene_id or capture.path.name, taken)
        rooms.add(id, functools.partial(opened_scene, capture.path, rename=id), title=capture.scene_id or id)


def address_name(name: str, taken: set[str]) -> str:
    """A name for addresses that no other room has."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in name).strip("-.")[:80] or "room"
    id, number = plain, 1
    while id in taken:
        number += 1
        id = f"{plain}-{number}"
    taken.add(id)
    return id


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where a server listens, and to whom.

    Attributes:
        host: the address that it listens at; anything but this machine wants a token.
        port: 0 takes a free one.
        token: None makes none where only this machine is listened to, and one where others are.
        names: more names under which it may be asked for.
        memory: bytes of encoded rooms that are kept.
        waiting: the longest line of questions.
        uploads: whether rooms can be uploaded.
        most_upload: bytes of an upload.
        body_seconds: a request's body must go on arriving at least this often.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    token: str | None = None
    names: tuple[str, ...] = ()
    memory: int = 2 << 30
    waiting: int = 256
    uploads: bool = False
    most_upload: int = 1 << 30
    body_seconds: float = 15.0

    @property
    def local(self) -> bool:
        """Whether only this machine is listened to."""
        return self.host in LOOPBACK

    def rules(self) -> Rules:
        """Who may ask.

        Raises:
            StereopsisError: others are listened to without a token.
        """
        if not self.local and not self.token:
            raise StereopsisError(
                f"--host {self.host} lets other machines ask: give a --token that they must bring (for example "
                f"{secrets.token_urlsafe(18)}), or leave --host out"
            )
        hosts = (*LOOPBACK, *self.names) if self.local else None
        return Rules(token=self.token, hosts=hosts, most_upload=self.most_upload, body_seconds=self.body_seconds)


def bound(host: str, port: int, *, search: bool) -> socket.socket:
    """A socket that listens; where the port is taken, one of the next.

    Raises:
        StereopsisError: none of them is free, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tried = range(port, port + (_PORTS_TRIED if search and port else 1))
    failure: OSError | None = None
    for each in tried:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, each))
        except OSError as error:
            listening.close()
            failure = error
        else:
            return listening
    raise StereopsisError(f"cannot listen at {host}, port {port}: {failure}; choose another --port or --host")


class Server:
    """A server that runs in a thread of its own until it is closed.

    Args:
        rooms: what it shows.
        opening: opens its model; None for a page without one.
        settings: where it listens.
        title: of the page.
    """

    def __init__(
        self,
        rooms: RoomBook,
        opening: Opening | None,
        settings: ServerSettings | None = None,
        *,
        title: str = "Stereopsis",
        search: bool = False,
    ) -> None:
        import uvicorn

        from stereopsis.serve.api import make_app

        settings = settings or ServerSettings(port=0)
        rules = settings.rules()
        self.socket = bound(settings.host, settings.port, search=search)
        self.settings, self.title = settings, title
        self.engine = Engine(rooms, opening, memory=settings.memory, waiting=settings.waiting)
        app = make_app(self.engine, rules, uploads=UploadLimits() if settings.uploads else None, title=title)
        config = uvicorn.Config(
            app,
            log_level="error",
            timeout_keep_alive=30,
            loop="asyncio",
            http="h11",  # the only one that bounds a request's head; another that is installed would be taken instead
            h11_max_incomplete_event_size=65_536,
            lifespan="on",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    @property
    def address(self) -> str:
        """Where to find it."""
        host, port = self.socket.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    @property
    def link(self) -> str:
        """What a person opens."""
        return f"{self.address}/?token={self.settings.token}" if self.settings.token else f"{self.address}/"

    def _run(self) -> None:
        self._server.run(sockets=[self.socket])

    def start(self) -> "Server":
        """Begin to listen; returns once it does."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        return self

    def wait(self) -> None:
        """Until it ends; Ctrl-C gets through."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def tell(self, say: Callable[[str], None]) -> None:
        """Say, from a thread of its own, when each room and the model are ready, or what is wrong with them."""
        threading.Thread(target=_tell, args=(self.engine, say), name="tell", daemon=True).start()

    def close(self) -> None:
        """End; questions in the line are told so."""
        self._server.should_exit = True
        self.engine.close()
        self._thread.join(10.0)

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.close()


def _tell(engine: Engine, say: Callable[[str], None]) -> None:
    started, told, model_told = time.monotonic(), set[str](), engine.state == "none"
    while True:
        entries = engine.rooms.listed()
        for entry in entries:
            if entry.settled and entry.id not in told:
                told.add(entry.id)
                say(f"Room '{entry.id}' " + ("is open" if entry.error is None else f"cannot be opened: {entry.error}"))
        if not model_told and engine.state in ("ready", "failed"):
            model_told, seconds = True, time.monotonic() - started
            say(f"The model answers ({seconds:.0f} s)" if engine.failure is None else f"No model: {engine.failure}")
        if model_told and len(told) == len(entries):
            return
        time.sleep(0.1)
