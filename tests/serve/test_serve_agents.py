"""Agents' tools, asked by the official package's own client over stdin and stdout of a real process."""

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("mcp")
pytest.importorskip("anyio")

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

import stereopsis

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def words(result):
    assert not result.is_error, result.content
    return result.content[0].text


async def talk(session):
    await session.initialize()
    tools = {tool.name for tool in (await session.list_tools()).tools}
    assert tools == {"list_rooms", "ask", "find", "describe", "measure", "view"}
    room = json.loads(words(await session.call_tool("list_rooms", {})))[0]["id"]
    assert words(await session.call_tool("ask", {"room": room, "question": "is there a bed?"})) in ("yes", "no")
    found = json.loads(words(await session.call_tool("find", {"room": room, "expression": "the bed"})))
    assert len(found["ranked"][0]["box"]) == 6
    told = json.loads(words(await session.call_tool("describe", {"room": room, "at": found["ranked"][0]["box"]})))
    assert told["description"]
    apart = json.loads(words(await session.call_tool("measure", {"room": room, "a": [0, 0, 0], "b": [3, 4, 0]})))
    assert apart["distance"] == 5.0
    picture = await session.call_tool("view", {"room": room, "number": 0, "box": found["ranked"][0]["box"]})
    import base64

    assert Image.open(io.BytesIO(base64.b64decode(picture.content[0].data))).format == "JPEG"
    wrong = await session.call_tool("ask", {"room": "cellar", "question": "is there a bed?"})
    assert wrong.is_error
    assert "there is no room 'cellar'" in wrong.content[0].text


def test_an_agent_sees_a_room(tiny_rooms):
    room = sorted(path for path in tiny_rooms.iterdir() if path.is_dir())[0]
    ours = {"PYTHONPATH": str(Path(stereopsis.__file__).parents[1])}  # the client passes on nothing but the usual
    command = StdioServerParameters(command=sys.executable, args=["-m", "stereopsis", "mcp", str(room)], env=ours)

    async def main():
        with anyio.fail_after(120):
            async with stdio_client(command) as (reading, writing), ClientSession(reading, writing) as session:
                await talk(session)

    anyio.run(main)
