"""A server in this process, with the suite's tiny model and rooms."""

import threading

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from stereopsis.serve.engine import Engine
from stereopsis.serve.opening import OpenedModel
from stereopsis.serve.rooms import RoomBook
from stereopsis.serve.start import Server, ServerSettings


@pytest.fixture(scope="session")
def rooms(tiny_rooms):
    from stereopsis.training.sources import open_folder

    return open_folder(tiny_rooms)[:3]


@pytest.fixture(scope="session")
def tiny_model(tiny_base):
    from stereopsis.models.storage import load_model

    return load_model(tiny_base)


@pytest.fixture(scope="session")
def opened(tiny_model) -> OpenedModel:
    return OpenedModel(model=tiny_model, name="tiny", views=4, options={}, grounds=True, precision="fp32")


@pytest.fixture
def book(rooms) -> RoomBook:
    found = RoomBook()
    for room in rooms:
        found.add(room.id, lambda room=room: room)
    for room in rooms:
        found.wait(room.id)
    return found


@pytest.fixture
def engine(book, opened):
    made = Engine(book, lambda: opened)
    yield made
    made.close()


class Gate:
    """A model that opens when the test says so: until then every question waits."""

    def __init__(self, opened: OpenedModel) -> None:
        self.opened, self.open = opened, threading.Event()

    def __call__(self) -> OpenedModel:
        assert self.open.wait(30)
        return self.opened


@pytest.fixture
def gate(opened) -> Gate:
    return Gate(opened)


@pytest.fixture
def serving(book, opened):
    """A server on a free port: ``serving(uploads=True)``."""
    servers = []

    def start(opening=lambda: opened, **settings) -> Server:
        servers.append(Server(book, opening, ServerSettings(port=0, **settings)).start())
        return servers[-1]

    yield start
    for server in servers:
        server.close()
