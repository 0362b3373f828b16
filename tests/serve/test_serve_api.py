"""The HTTP API over a real socket, with httpx and with OpenAI's own client."""

import base64
import io
import json
import socket
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from stereopsis.client import Client
from stereopsis.errors import StereopsisError
from stereopsis.models.inference import enter_scene
from stereopsis.scenes.measuring import measure
from stereopsis.serve.asking import seen_in
from stereopsis.serve.rooms import OpenRoom

ROOM = "room-00000000"


@pytest.fixture
def server(serving):
    return serving()


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.address, timeout=60) as opened:
        yield opened


def error_of(reply, status):
    assert reply.status_code == status, reply.text
    content = reply.json()["error"]
    assert content["code"] == status
    return content["message"]


def test_the_client_asks_what_python_asks(server, rooms, tiny_model):
    entered = enter_scene(tiny_model, rooms[0], views=4)
    with Client(server.address) as ask:
        check_client(ask, rooms, entered)


def check_client(ask, rooms, entered):
    assert [room["id"] for room in ask.rooms()] == [room.id for room in rooms]
    assert ask.ask(ROOM, "is there a bed?") == entered.ask("is there a bed?")
    found = ask.find(ROOM, "the bed", ranked=3)
    assert found["box"] == entered.find("the bed")
    assert [c["score"] for c in found["ranked"]] == sorted((c["score"] for c in found["ranked"]), reverse=True)
    box = [float(v) for v in rooms[0].proposals[0].box]
    assert ask.describe(ROOM, box=box) == entered.describe(box)
    assert ask.measure(ROOM, [0.0, 0.0, 0.0], [3.0, 4.0, 0.0])["distance"] == 5.0
    other = [float(v) for v in rooms[0].proposals[1].box]
    assert ask.measure(ROOM, box, other)["distance"] == pytest.approx(measure(rooms[0], box, other).distance, abs=1e-4)
    with pytest.raises(StereopsisError, match="there is no room 'cellar'"):
        ask.ask("cellar", "is there a bed?")


def test_a_room_tells_what_a_page_needs(client, rooms):
    facts = client.get(f"/v1/rooms/{ROOM}").json()
    assert len(facts["views"]) == len(rooms[0].frames)
    assert np.allclose(facts["views"][1]["pose"], rooms[0].T_aligned_camera(rooms[0].frames[1]), atol=1e-4)
    assert facts["scale"]["known"] is True
    assert {each["kind"] for each in facts["suggestions"]} == {"ask", "find"}
    data = client.get(f"/v1/rooms/{ROOM}/cloud").content
    count = int(np.frombuffer(data[4:8], "<u4")[0])
    origin, step = np.frombuffer(data[8:20], "<f4"), float(np.frombuffer(data[20:24], "<f4")[0])
    points = origin + step * np.frombuffer(data[24 : 24 + 6 * count], "<i2").reshape(-1, 3)
    assert data[:4] == b"SPC1"
    assert len(data) == 24 + 9 * count
    assert (points.min(0) >= np.array(facts["extent"]["low"]) - 0.5).all()
    assert (points.max(0) <= np.array(facts["extent"]["high"]) + 0.5).all()


def test_a_pixel_has_the_place_that_its_depth_says(client, rooms):
    frame = rooms[0].frames[1]
    depth, camera = frame.depth(), frame.intrinsics
    row, column = 30, 20
    z = float(depth[row, column])
    u, v = column + 0.5, row + 0.5
    ray = np.array([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z, 1.0])
    expected = (rooms[0].T_aligned_camera(frame) @ ray)[:3]
    body = {"view": 1, "x": u / camera.width, "y": v / camera.height}
    assert client.post(f"/v1/rooms/{ROOM}/point", json=body).json()["point"] == pytest.approx(expected, abs=2e-4)


def test_similarity_has_a_cell_of_its_own_and_a_value_for_every_other(client, rooms):
    reply = client.post(f"/v1/rooms/{ROOM}/similar", json={"pick": {"view": 0, "x": 0.5, "y": 0.6}})
    assert reply.status_code == 200, reply.text
    reply = reply.json()
    heat = np.array(reply["similarity"])
    assert heat.shape == (4, 3, 3)
    assert heat[tuple(reply["cell"])] == pytest.approx(1.0, abs=1e-3)
    assert heat.max() <= 1.001


def test_pictures(client, rooms):
    best = seen_in(OpenRoom.of(rooms[0]), rooms[0].proposals[0].box)[0]
    colour = client.get(f"/v1/rooms/{ROOM}/views/{best}")
    boxed = client.get(
        f"/v1/rooms/{ROOM}/views/{best}", params={"box": ",".join(str(v) for v in rooms[0].proposals[0].box)}
    )
    assert colour.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(colour.content)).size == (48, 48)
    assert colour.content != boxed.content
    assert Image.open(io.BytesIO(client.get(f"/v1/rooms/{ROOM}/above").content)).mode == "RGBA"
    assert "views 0 to 3" in error_of(client.get(f"/v1/rooms/{ROOM}/views/9"), 404)
    assert "6 numbers" in error_of(client.get(f"/v1/rooms/{ROOM}/views/0?box=1,2"), 400)


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("ask", b"{", 400, "no JSON|JSON"),
        ("ask", b"[" * 200_000, 400, "nested too deep|JSON"),
        ("ask", b'{"question": ""}', 400, "question"),
        ("ask", b'{"question": "a?", "temperature": 1}', 400, "temperature"),
        ("ask", b'{"question": "a?", "max_new_tokens": 100000}', 400, "max_new_tokens"),
        ("measure", b'{"a": [1, 2]}', 400, "a"),
        ("measure", b'{"a": [NaN, 0, 0]}', 400, "finite|JSON"),
        ("measure", b'{"a": [1, 2, 3, -1, 1, 1]}', 422, "not negative"),
        ("describe", b"{}", 400, "either a box or a point"),
        ("point", b'{"view": 99, "x": 0, "y": 0}', 404, "there is no view 99"),
    ],
)
def test_bad_requests_are_told_in_a_sentence(client, path, content, status, words):
    import re

    reply = client.post(f"/v1/rooms/{ROOM}/{path}", content=content, headers={"content-type": "application/json"})
    assert re.search(words, error_of(reply, status))


def test_no_path_leads_out(client):
    for path in (
        "/assets/..%2F__init__.py",
        "/assets/%2Fetc%2Fpasswd",
        "/v1/rooms/..%2F..%2Fetc",
        "/assets/index.html%00",
    ):
        assert client.get(path).status_code == 404


def test_a_hundred_megabytes_are_refused_before_they_are_read(client):
    reply = client.post(f"/v1/rooms/{ROOM}/ask", content=(b"x" * 1_000_000 for _ in range(100)))
    assert "more than 1.0 MB" in error_of(reply, 413)
    assert client.post(f"/v1/rooms/{ROOM}/ask", json={"question": "is there a bed?"}).status_code == 200


def test_a_slow_body_does_not_hold_the_server(serving):
    server = serving(body_seconds=0.3)
    host, port = server.socket.getsockname()[:2]
    with socket.create_connection((host, port)) as slow:
        lines = [f"POST /v1/rooms/{ROOM}/ask HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        head = "\r\n".join([*lines, "Content-Length: 50", "", ""])
        slow.sendall(head.encode())
        begun = time.monotonic()
        answer = slow.recv(4096)
    assert b"408" in answer.split(b"\r\n")[0]
    assert time.monotonic() - begun < 5


def test_openai_client(server, rooms, tiny_model):
    import openai

    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        check_openai(openai, client, rooms, tiny_model)


def check_openai(openai, client, rooms, tiny_model):
    entered = enter_scene(tiny_model, rooms[1], views=4)
    expected = entered.ask("is there a bed?", max_new_tokens=12)
    messages = [{"role": "user", "content": "is there a bed?"}]
    names = [model.id for model in client.models.list()]
    assert names == ["tiny", *(f"tiny/{room.id}" for room in rooms)]
    plain = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=12, extra_body={"room": rooms[1].id}
    )
    assert plain.choices[0].message.content == expected
    stream = client.chat.completions.create(
        model=f"tiny/{rooms[1].id}", messages=messages, max_completion_tokens=12, stream=True
    )
    pieces = [piece.choices[0] for piece in stream]
    assert "".join(piece.delta.content or "" for piece in pieces) == expected
    assert pieces[-1].finish_reason in ("stop", "length")
    with pytest.raises(openai.NotFoundError, match="which room"):
        client.chat.completions.create(model="tiny", messages=messages)


def image_of(side, colour=(200, 30, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def chat(client, *urls, **options):
    parts = [{"type": "text", "text": "what is it?"}, *({"type": "image_url", "image_url": {"url": u}} for u in urls)]
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}], **options})


def test_inline_images_are_a_room_of_their_own(client):
    first = chat(client, image_of(64), image_of(64, (0, 0, 250)))
    assert first.status_code == 200, first.text
    assert first.json()["choices"][0]["message"]["role"] == "assistant"
    assert first.json()["views"] == ["image-0", "image-1"]
    assert all("images" not in room["id"] for room in client.get("/v1/rooms").json()["rooms"])
    assert "fetches nothing" in error_of(chat(client, "https://example.org/cat.png"), 400)
    assert "no base64" in error_of(chat(client, "data:image/png;base64,%%%"), 400)
    broken = "data:image/png;base64," + base64.b64encode(b"no picture at all").decode()
    assert "cannot be read" in error_of(chat(client, broken), 400)
    assert "more than 32" in error_of(chat(client, *[image_of(8)] * 33), 413)
    assert "give one of them" in error_of(chat(client, image_of(8), room=ROOM), 400)


def test_a_picture_that_claims_to_be_huge_is_refused(client):
    data = bytearray(base64.b64decode(image_of(8).partition(",")[2]))
    data[16:24] = (40_000).to_bytes(4, "big") * 2  # IHDR: width and height
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    url = "data:image/png;base64," + base64.b64encode(bytes(data)).decode()
    assert "pixels" in error_of(chat(client, url), 400)


def test_a_closed_stream_ends_its_question(serving, gate, opened):
    server = serving(opening=gate)
    body = {"model": f"tiny/{ROOM}", "messages": [{"role": "user", "content": "what is it?"}], "stream": True}
    with httpx.stream("POST", f"{server.address}/v1/chat/completions", json=body, timeout=30) as reply:
        assert next(reply.iter_lines()).startswith("data: ")
        assert server.engine.queued == 1
    deadline = time.monotonic() + 10
    ticket = server.engine._line[0]
    while not ticket.stopped and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ticket.stopped
    gate.open.set()
    with httpx.Client(base_url=server.address, timeout=60) as client:
        assert client.post(f"/v1/rooms/{ROOM}/ask", json={"question": "is there a bed?"}).status_code == 200


def test_a_full_line_says_429(serving, gate):
    server = serving(opening=gate, waiting=1)
    room = server.engine.rooms.listed()[0].id
    from stereopsis.serve.engine import Question

    server.engine.submit(room, Question(kind="ask", text="what is it?"))
    reply = httpx.post(f"{server.address}/v1/rooms/{room}/ask", json={"question": "is there a bed?"})
    assert "wait already" in error_of(reply, 429)
    assert reply.headers["retry-after"]
    gate.open.set()


def test_the_documentation_lists_every_address(client):
    page, schema = client.get("/docs").text, client.get("/openapi.json").json()
    assert {"/v1/rooms/{room}/ask", "/v1/chat/completions"} <= set(schema["paths"])
    assert all(path in page for path in schema["paths"])
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    json.dumps(schema)
