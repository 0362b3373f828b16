"""A tool for agents: rooms over the Model Context Protocol, with the official package, over stdin and stdout."""

import base64
import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from stereopsis.errors import StereopsisError
from stereopsis.serve import asking
from stereopsis.serve.engine import Engine, Question
from stereopsis.serve.room_facts import room_facts
from stereopsis.serve.rooms import facts_of

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

WAIT = 600.0
"""Seconds that a tool waits for the model and the room."""
ABOUT = (
    "Scanned rooms that can be asked. Boxes are [cx, cy, cz, dx, dy, dz] and points [x, y, z] in metres, z up, the "
    "floor near 0. Begin with list_rooms."
)
Thing = Annotated[
    list[float] | str, pydantic.Field(description="words ('the chair by the window'), a point [3] or a box [6]")
]


def _telling(tool: Callable[..., Any]) -> Callable[..., Any]:
    """A tool whose failures reach the agent as sentences."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return tool(*args, **options)
        except StereopsisError as error:
            raise ToolError(str(error)) from error

    return run


def make_agents_server(engine: Engine) -> "MCPServer":
    """The server with its tools: list_rooms, ask, find, describe, measure, view.

    Args:
        engine: what answers.
    """
    from mcp.server.mcpserver import Image, MCPServer

    server = MCPServer("stereopsis", instructions=ABOUT, log_level="ERROR")

    def opened(room: str) -> Any:
        return engine.rooms.wait(room, WAIT)

    @server.tool()
    @_telling
    def list_rooms() -> str:
        """The rooms: id, title, how many views, size in metres, whether lengths are known."""
        rows = []
        for entry in engine.rooms.listed():
            row = dict(facts_of(entry))
            if entry.room is not None:
                facts = room_facts(entry)
                row |= {"facts": facts["facts"], "scale_known": facts["scale"]["known"], "extent": facts["extent"]}
            rows.append(row)
        return json.dumps(rows)

    @server.tool()
    @_telling
    def ask(room: str, question: str) -> str:
        """Ask a question about a room; the answer is a word or a phrase."""
        opened(room)
        return str(engine.ask(room, Question(kind="ask", text=question), timeout=WAIT).value.text)

    @server.tool()
    @_telling
    def find(room: str, expression: str) -> str:
        """Find the object that an expression means: its box, the runners-up with scores, the views that show it."""
        reply = engine.ask(room, Question(kind="find", text=expression), timeout=WAIT)
        return json.dumps(asking.found(reply, opened(room), 5))

    @server.tool()
    @_telling
    def describe(room: str, at: list[float]) -> str:
        """Describe what is at a point [3] or in a box [6]."""
        if len(at) not in (3, 6):
            raise StereopsisError(f"'at' must be a point [x, y, z] or a box of 6 numbers, found {len(at)}")
        box, point = (at, None) if len(at) == 6 else (None, at)
        thing, question = asking.described(opened(room), box, point)
        reply = engine.ask(room, question, timeout=WAIT)
        return json.dumps({"description": reply.value.text, "box": thing["box"], "label": thing["label"]})

    @server.tool()
    @_telling
    def measure(room: str, a: Thing, b: Thing | None = None) -> str:
        """Distance of two things, or the size of one, in metres with an uncertainty."""
        opened(room)
        return json.dumps(asking.measured(engine, room, a, b))

    @server.tool()
    @_telling
    def view(room: str, number: int, box: list[float] | None = None) -> Image:
        """One of the captured views as a picture, with a box drawn in."""
        return Image(data=opened(room).picture(number, boxes=[box] if box else []), format="jpeg")

    return server


def data_address(picture: bytes, kind: str) -> str:
    """A picture as part of a page."""
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
