"""The HTTP API: rooms and what can be asked about them, an upload, a chat as OpenAI's clients know it, and the page."""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from stereopsis import __version__
from stereopsis.errors import StereopsisError
from stereopsis.serve import asking, bodies, chat
from stereopsis.serve.engine import Engine, Question, Reply, Ticket
from stereopsis.serve.failures import RequestError, StoppedError, UnknownRoomError
from stereopsis.serve.guard import Guard, Rules, error_body
from stereopsis.serve.page import asset, docs_page, index
from stereopsis.serve.room_facts import room_facts
from stereopsis.serve.rooms import facts_of, opened_scene
from stereopsis.serve.uploads import UploadLimits, unpack

log = logging.getLogger("stereopsis.serve")
_LISTEN = 0.25
"""Seconds between two looks whether the asker has left."""


async def answered(request: Request, ticket: Ticket) -> Reply:
    """Wait for an answer; the question leaves the line as soon as the asker does."""
    future = asyncio.wrap_future(ticket.future)
    try:
        while not future.done():
            await asyncio.wait([future], timeout=_LISTEN)
            if not future.done() and await request.is_disconnected():
                raise StoppedError("the asker has left")
        return future.result()
    finally:
        ticket.cancel()


def make_app(
    engine: Engine, rules: Rules | None = None, *, uploads: UploadLimits | None = None, title: str = "Stereopsis"
) -> Guard:
    """The whole server as an ASGI application.

    Args:
        engine: what answers.
        rules: who may ask.
        uploads: how much an uploaded archive may hold; None takes no uploads.
        title: of the page.
    """
    folder = Path(tempfile.mkdtemp(prefix="stereopsis-uploads-"))

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            engine.close()
            shutil.rmtree(folder, ignore_errors=True)

    app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    _handle_errors(app)
    _add_rooms(app, engine)
    _add_questions(app, engine)
    _add_chat(app, engine)
    _add_upload(app, engine, folder, uploads)
    _add_page(app, engine, title)
    return Guard(app, rules or Rules())


def _handle_errors(app: FastAPI) -> None:
    async def ours(_: Request, error: Exception) -> JSONResponse:
        content = error_body(error)
        headers = {"retry-after": "2"} if content["error"]["code"] in (429, 503) else None
        return JSONResponse(content, status_code=content["error"]["code"], headers=headers)

    async def unfit(_: Request, error: Exception) -> JSONResponse:
        problems = error.errors() if isinstance(error, RequestValidationError) else ()
        return JSONResponse(error_body(RequestError(bodies.in_words(problems))), status_code=400)

    async def http(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error.__cause__, RequestError):  # of the guard, while the body was being read
            return await ours(request, error.__cause__)
        status = getattr(error, "status_code", 500)
        if status == 405:
            words = "this address does not take that method; see /docs"
        elif status == 404:
            words = "there is nothing at this address; see /docs"
        else:
            words = "the request's body cannot be read: it is no JSON, or is nested too deep"
        kind = "not_found" if status == 404 else "invalid_request"
        return JSONResponse({"error": {"message": words, "type": kind, "code": status}}, status_code=status)

    app.add_exception_handler(StereopsisError, ours)
    app.add_exception_handler(RequestValidationError, unfit)
    app.add_exception_handler(HTTPException, http)


def _add_rooms(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/rooms", tags=["rooms"])
    def rooms() -> dict[str, Any]:
        """The rooms, and whether each is open already."""
        return {"rooms": [facts_of(entry) for entry in engine.rooms.listed()]}

    @app.get("/v1/rooms/{room}", tags=["rooms"])
    def room_of(room: str) -> dict[str, Any]:
        """What is known about a room: verdict, scale, views with cameras, candidate boxes, what one may ask."""
        return room_facts(engine.rooms[room])

    @app.get("/v1/rooms/{room}/cloud", tags=["rooms"], response_class=Response)
    def cloud(room: str) -> Response:
        """Its points: b"SPC1", uint32 n, float32 origin [3], float32 step, int16 [n, 3], uint8 [n, 3]."""
        packed = engine.rooms[room].opened().cloud.packed()
        return Response(packed, media_type="application/octet-stream", headers=_kept())

    @app.get("/v1/rooms/{room}/views/{view}", tags=["rooms"], response_class=Response)
    def view_of(room: str, view: int, kind: str = "colour", box: str = "") -> Response:
        """One of its views as JPEG (kind: colour or depth), with a box cx,cy,cz,dx,dy,dz drawn in."""
        boxes = [_numbers(box, 6)] if box else []
        picture = engine.rooms[room].opened().picture(view, kind=kind, boxes=boxes)
        return Response(picture, media_type="image/jpeg", headers=_kept())

    @app.get("/v1/rooms/{room}/above", tags=["rooms"], response_class=Response)
    def above(room: str) -> Response:
        """The room from above as PNG."""
        picture = engine.rooms[room].opened().above()
        if picture is None:
            raise UnknownRoomError(f"room '{room}' has not been drawn from above")
        return Response(picture, media_type="image/png", headers=_kept())

    @app.get("/v1/status", tags=["server"])
    def status() -> dict[str, Any]:
        """The model, the line of questions, and what is kept in memory."""
        opened = engine.opened
        return {
            "state": engine.state,
            "error": None if engine.failure is None else str(engine.failure),
            "model": None if opened is None else opened.name,
            "grounds": opened is not None and opened.grounds,
            "views": None if opened is None else opened.views,
            "precision": None if opened is None else opened.precision,
            "queued": engine.queued,
            "answered": engine.answered,
            "passes": engine.passes,
            "encoded": engine.cached,
            "memory": engine.memory,
            "version": __version__,
        }


def _kept() -> dict[str, str]:
    return {"cache-control": "private, max-age=3600"}


def _numbers(text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(v) < 1e5 for v in values):
        raise RequestError(f"expected {count} numbers with commas between, found '{text[:80]}'")
    return values


def _add_questions(app: FastAPI, engine: Engine) -> None:
    @app.post("/v1/rooms/{room}/ask", tags=["questions"])
    async def ask(room: str, body: bodies.Ask, request: Request) -> dict[str, Any]:
        """Answer a question in words."""
        question = Question(kind="ask", text=body.question, max_new_tokens=body.max_new_tokens)
        return asking.asked(await answered(request, engine.submit(room, question)))

    @app.post("/v1/rooms/{room}/find", tags=["questions"])
    async def find(room: str, body: bodies.Find, request: Request) -> dict[str, Any]:
        """Find the thing that an expression means, rank the others, or say that there is none."""
        reply = await answered(request, engine.submit(room, Question(kind="find", text=body.expression)))
        opened = engine.rooms[room].opened()
        return await anyio.to_thread.run_sync(asking.found, reply, opened, body.ranked)

    @app.post("/v1/rooms/{room}/describe", tags=["questions"])
    async def describe(room: str, body: bodies.Describe, request: Request) -> dict[str, Any]:
        """Describe what is in a box, or at a point."""
        opened = engine.rooms[room].opened()
        thing, question = asking.described(opened, body.box, body.point, body.max_new_tokens)
        reply = await answered(request, engine.submit(room, question))
        seen = await anyio.to_thread.run_sync(asking.seen_in, opened, thing["box"])
        return {**asking.asked(reply), "thing": thing, "seen_in": seen}

    @app.post("/v1/rooms/{room}/measure", tags=["questions"])
    def measure(room: str, body: bodies.Measure) -> dict[str, Any]:
        """Distance of two things, or the size of one: points, boxes or words; metres, with an uncertainty."""
        return asking.measured(engine, room, body.a, body.b)

    @app.post("/v1/rooms/{room}/point", tags=["questions"])
    def point(room: str, body: bodies.Pick) -> dict[str, Any]:
        """The place that a pixel of a view shows."""
        return {"point": asking.point_at(engine.rooms[room].opened(), body.view, body.x, body.y)}

    @app.post("/v1/rooms/{room}/similar", tags=["questions"])
    async def similar(room: str, body: bodies.Similar, request: Request) -> dict[str, Any]:
        """What the model takes for the same as a place: a similarity for every cell of the views it was shown."""
        place = body.point
        if body.pick is not None:
            place = asking.point_at(engine.rooms[room].opened(), body.pick.view, body.pick.x, body.pick.y)
        if place is None:
            raise RequestError("give a point, or a pixel of a view")
        question = Question(kind="similar", point=tuple(place))
        return {"point": place, **asking.similar(await answered(request, engine.submit(room, question)))}


def _add_chat(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/models", tags=["chat"])
    def models() -> dict[str, Any]:
        """The model, alone (for inline images) and with each of its rooms: NAME/ROOM."""
        return chat.models(engine)

    @app.post("/v1/chat/completions", tags=["chat"], response_model=None)
    async def completions(body: bodies.Chat, request: Request) -> Response | dict[str, Any]:
        """What OpenAI's clients ask: the last user message, about a room or about inline images; may be streamed."""
        room = await anyio.to_thread.run_sync(chat.room_of, engine, body)
        question = chat.question_of(body)
        if not body.stream:
            return chat.completion(engine, body, await answered(request, engine.submit(room, question)))
        loop, words = asyncio.get_running_loop(), asyncio.Queue[str]()

        def listen(said: str) -> None:
            loop.call_soon_threadsafe(words.put_nowait, said)

        ticket = engine.submit(room, question, listen)
        return StreamingResponse(_streamed(engine, body, ticket, words), media_type="text/event-stream")


async def _streamed(
    engine: Engine, body: bodies.Chat, ticket: Ticket, words: "asyncio.Queue[str]"
) -> AsyncIterator[str]:
    """An answer as server-sent events; its question ends when the stream is closed."""
    id, said = f"chatcmpl-{secrets.token_hex(12)}", ""
    future = asyncio.wrap_future(ticket.future)

    def event(content: Any) -> str:
        return f"data: {json.dumps(content)}\n\n"

    try:
        yield event(chat.chunk(engine, id, {"role": "assistant", "content": ""}))
        while not future.done() or not words.empty():
            waiting: asyncio.Future[Any] = asyncio.ensure_future(words.get())
            await asyncio.wait([waiting, cast("asyncio.Future[Any]", future)], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                continue
            heard = waiting.result()
            if heard.startswith(said) and heard != said:
                yield event(chat.chunk(engine, id, {"content": heard[len(said) :]}))
                said = heard
        reply = future.result()
        if reply.value.text != said and reply.value.text.startswith(said):
            yield event(chat.chunk(engine, id, {"content": reply.value.text[len(said) :]}))
        yield event(chat.chunk(engine, id, {}, finish=chat.finish(body, reply)))
        yield "data: [DONE]\n\n"
    except StereopsisError as error:
        yield event(error_body(error))
    finally:
        ticket.cancel()


def _add_upload(app: FastAPI, engine: Engine, folder: Path, limits: UploadLimits | None) -> None:
    @app.post("/v1/rooms", tags=["rooms"], status_code=202)
    async def upload(request: Request, name: str = "upload") -> dict[str, Any]:
        """Add a room: the body is a zip or tar archive of a prepared scene or a capture; ``name`` is its title."""
        if limits is None:
            raise RequestError("this server takes no uploads; start it with --uploads")
        id = f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[:40].strip('-') or 'upload'}-{secrets.token_hex(3)}"
        packed = folder / f"{id}.archive"
        try:
            with packed.open("xb") as file:
                async for piece in request.stream():
                    await anyio.to_thread.run_sync(file.write, piece)
            scene = await anyio.to_thread.run_sync(unpack, packed, folder / id, limits)
        finally:
            packed.unlink(missing_ok=True)
        try:
            engine.rooms.add(id, lambda: opened_scene(scene, rename=id), title=name[:80])
        except StereopsisError:
            shutil.rmtree(folder / id, ignore_errors=True)
            raise
        return {"id": id, "state": "waiting"}


def _add_page(app: FastAPI, engine: Engine, title: str) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(index(title, model=engine.state != "none"), headers={"cache-control": "no-cache"})

    @app.get("/assets/{name}", include_in_schema=False)
    def assets(name: str) -> Response:
        found = asset(name)
        if found is None:
            raise UnknownRoomError("there is no such file")
        return Response(found.content, media_type=found.kind, headers={"cache-control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))
