"""Chat completions in OpenAI's form: a room id or inline images are what the question is about."""

import base64
import binascii
import functools
import hashlib
import io
import time
from typing import Any

import numpy as np
from PIL import Image

from stereopsis.geometry.camera import Intrinsics
from stereopsis.reading import check_pixels
from stereopsis.scenes.scene import Frame, Scene
from stereopsis.serve.bodies import Chat
from stereopsis.serve.engine import Engine, Question, Reply
from stereopsis.serve.failures import NotReadyError, RequestError, TooLargeError, UnknownRoomError

MOST_IMAGES = 32
MOST_WORDS = 4000
_KINDS = ("JPEG", "PNG", "WEBP")
_SHOWN_SIDE = 1024
_KINDS_OF_PARTS = "text and image_url"


def name_of(engine: Engine) -> str:
    """The model's name for clients."""
    return "loading" if engine.opened is None else engine.opened.name


def models(engine: Engine) -> dict[str, Any]:
    """The list that clients ask for first."""
    own = name_of(engine)
    ids = [own, *(f"{own}/{entry.id}" for entry in engine.rooms.listed())] if engine.state != "none" else []
    return {"object": "list", "data": [{"id": id, "object": "model", "created": 0, "owned_by": "here"} for id in ids]}


def _parts(body: Chat) -> tuple[str, list[str]]:
    """The last user message: its words, and the addresses of all images that users sent before or with it."""
    asked = [message for message in body.messages if message.role == "user"]
    if not asked:
        raise RequestError("the chat holds no message of a user; nothing is asked")
    images, words = [], ""
    for message in asked:
        words = message.content if isinstance(message.content, str) else ""
        for part in message.content if isinstance(message.content, list) else ():
            if part.get("type") == "text" and isinstance(part.get("text"), str):
                words = f"{words} {part['text']}".strip()
            elif part.get("type") == "image_url":
                given = part.get("image_url")
                url = given.get("url") if isinstance(given, dict) else given
                images.append(url if isinstance(url, str) else "")
            else:
                raise RequestError(f"a message holds a part of kind '{part.get('type')}'; expected {_KINDS_OF_PARTS}")
    if not words.strip():
        raise RequestError("the last message of the user holds no words; nothing is asked")
    return words, images


def question_of(body: Chat) -> Question:
    """What is asked; each question stands for itself, as the model was trained."""
    words, _ = _parts(body)
    if len(words) > MOST_WORDS:
        raise TooLargeError(f"the question has {len(words)} characters, more than {MOST_WORDS}")
    return Question(kind="ask", text=words, max_new_tokens=body.max_completion_tokens or body.max_tokens or 24)


def room_of(engine: Engine, body: Chat) -> str:
    """Which room is asked about; inline images become one that nobody lists.

    Raises:
        RequestError: neither is given, or an image is none.
        UnknownRoomError: there is no such room.
    """
    _, images = _parts(body)
    if images:
        if body.room is not None:
            raise RequestError("the chat names a room and brings images; give one of them")
        return _room_of_images(engine, images)
    room = body.room or body.model.partition("/")[2]
    if not room:
        listed = [entry.id for entry in engine.rooms.listed()]
        if len(listed) != 1:
            raise UnknownRoomError(
                f"which room? Say it as \"room\" (extra_body={{'room': ...}}), or as model '{name_of(engine)}/ROOM'; "
                f"the rooms are: {', '.join(listed) or 'none'}"
            )
        room = listed[0]
    return engine.rooms[room].id


def _room_of_images(engine: Engine, urls: list[str]) -> str:
    if len(urls) > MOST_IMAGES:
        raise TooLargeError(f"the chat brings {len(urls)} images, more than {MOST_IMAGES}")
    data = [_bytes_of(url) for url in urls]
    id = f"images-{hashlib.sha256(b'|'.join(hashlib.sha256(each).digest() for each in data)).hexdigest()[:24]}"
    try:
        return engine.rooms[id].id
    except UnknownRoomError:
        pass
    frames = tuple(_frame(number, image) for number, image in enumerate(map(_decoded, data)))
    engine.rooms.add_open(Scene(id=id, frames=frames, provenance={"format": "images"}), hidden=True)
    return id


def _bytes_of(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64") or not comma:
        raise RequestError("an image must come inline, as data:image/png;base64,...; this server fetches nothing")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("an inline image is no base64; encode it again") from error


def _decoded(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=_KINDS) as image:
            check_pixels(*image.size)
            if image.format == "JPEG":
                image.draft("RGB", (_SHOWN_SIDE, _SHOWN_SIDE))
            shown = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RequestError(f"an inline image cannot be read ({error}); send a {', '.join(_KINDS)} picture") from error
    shown.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    return np.asarray(shown)


def _frame(number: int, pixels: np.ndarray) -> Frame:
    height, width = pixels.shape[:2]
    camera = Intrinsics(
        fx=float(width), fy=float(width), cx=width / 2, cy=height / 2, width=width, height=height
    )  # of no consequence: without depth no pixel has a place
    return Frame(
        name=f"image-{number}",
        T_world_camera=np.eye(4),
        intrinsics=camera,
        load_colour=functools.partial(np.copy, pixels),
    )


def finish(body: Chat, reply: Reply) -> str:
    """Why the answer ends."""
    return "length" if reply.value.tokens >= (body.max_completion_tokens or body.max_tokens or 24) else "stop"


def completion(engine: Engine, body: Chat, reply: Reply) -> dict[str, Any]:
    """The whole answer."""
    if engine.opened is None:
        raise NotReadyError("the model is still being loaded; ask again in a few seconds")
    message = {"role": "assistant", "content": reply.value.text, "refusal": None}
    return {
        "id": f"chatcmpl-{hashlib.sha256(repr((time.time_ns(), id(reply))).encode()).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name_of(engine),
        "choices": [{"index": 0, "message": message, "finish_reason": finish(body, reply), "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": reply.value.tokens, "total_tokens": reply.value.tokens},
        "views": list(reply.views),
    }


def chunk(engine: Engine, id: str, delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
    """A piece of a streamed answer."""
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": name_of(engine),
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
    }
