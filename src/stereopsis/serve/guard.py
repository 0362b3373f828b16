"""What stands before every request: who may ask, from where, how much, and how slowly.

A server on this machine answers any page that the user's browser has open, unless it looks at Host and Origin: a
stranger's page can send requests to 127.0.0.1, and a stranger's name can be made to mean 127.0.0.1 (DNS rebinding).
"""

import asyncio
import dataclasses
import hmac
import json
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stereopsis.serve.failures import ForbiddenError, RequestError, TooLargeError, told

log = logging.getLogger("stereopsis.serve")
COOKIE = "stereopsis_token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class UnauthorizedError(RequestError):
    """No token, or a wrong one."""

    status, kind = 401, "unauthorized"


class SlowError(RequestError):
    """A body that does not arrive."""

    status, kind = 408, "slow"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may ask, and how much.

    Attributes:
        token: what every request must bring; None where only this machine is listened to.
        hosts: names under which the server is known, without ports; None takes any (a token protects it then).
        most_json: bytes of a JSON body.
        most_images: bytes of a chat with inline images.
        most_upload: bytes of an uploaded scene.
        body_seconds: a body must go on arriving at least this often.
        whole_seconds: and be there after so many.
    """

    token: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK
    most_json: int = 1 << 20
    most_images: int = 32 << 20
    most_upload: int = 1 << 30
    body_seconds: float = 15.0
    whole_seconds: float = 600.0

    def most_body(self, method: str, path: str) -> int:
        """How many bytes a request's body may have."""
        if method == "POST" and path == "/v1/rooms":
            return self.most_upload
        return self.most_images if path == "/v1/chat/completions" else self.most_json


def error_body(error: RequestError | Exception) -> dict[str, Any]:
    """The one form of all errors, OpenAI's."""
    ours = told(error)
    kind, status = getattr(ours, "kind", "invalid_request"), getattr(ours, "status", 422)
    return {"error": {"message": str(ours), "type": kind, "code": status}}


def host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    return (urllib.parse.urlsplit(f"//{header}").hostname or "").lower()


class Guard:
    """ASGI middleware that lets through what `Rules` allow, and turns whatever else happens into JSON.

    Args:
        app: what it stands before.
        rules: the rules.
    """

    def __init__(self, app: App, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_raw(HEADERS)]
            await send(message)

        try:
            self._admit(scope)
            if (entered := self._entry(scope)) is not None:
                await _respond(sending, 303, b"", entered)
                return
            await self.app(scope, _Body(self.rules, scope, receive), sending)
        except Exception as error:
            failure = told(error)
            if not isinstance(failure, RequestError) or failure.status == 500:
                log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            if started:
                raise
            content = json.dumps(error_body(failure)).encode()
            status = getattr(failure, "status", 422)
            headers = {"content-type": "application/json", "connection": "close"}
            if status == 401:
                headers["www-authenticate"] = "Bearer"
            await _respond(sending, status, content, headers)

    def _admit(self, scope: Scope) -> None:
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = host_of(headers.get("host", ""))
        if self.rules.hosts is not None and host not in self.rules.hosts:
            raise ForbiddenError(
                f"this server is not known as '{host[:80]}'; open it under one of {', '.join(self.rules.hosts)}"
            )
        origin = headers.get("origin")
        # Not the scheme: whoever puts https before this server lets it see http.
        if origin is not None and urllib.parse.urlsplit(origin.lower()).netloc != headers.get("host", "").lower():
            raise ForbiddenError(f"pages of '{origin[:80]}' may not ask this server; open its own page")
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            raise ForbiddenError("pages of other sites may not ask this server; open its own page")
        if self.rules.token is not None and not self._has_token(headers, scope):
            raise UnauthorizedError("this server wants its token: 'Authorization: Bearer TOKEN', or /?token=TOKEN once")
        length = headers.get("content-length", "0")
        most = self.rules.most_body(scope["method"], scope["path"])
        if length.isdigit() and int(length) > most:
            raise TooLargeError(f"the request has {int(length) / 1e6:.1f} MB, more than {most / 1e6:.1f} MB")

    def _has_token(self, headers: dict[str, str], scope: Scope) -> bool:
        token = self.rules.token or ""
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        return any(
            hmac.compare_digest(each.encode(), token.encode())
            for each in (given, cookies.get(COOKIE, ""), _asked_token(scope))
        )

    def _entry(self, scope: Scope) -> dict[str, str] | None:
        """The headers of a redirection that takes the token out of the address and into a cookie."""
        if self.rules.token is None or scope["path"] != "/" or not _asked_token(scope):
            return None
        return {"location": "/", "set-cookie": f"{COOKIE}={self.rules.token}; HttpOnly; SameSite=Strict; Path=/"}


def _asked_token(scope: Scope) -> str:
    if scope["path"] != "/":
        return ""
    return urllib.parse.parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]


class _Body:
    """The way in, which counts bytes and seconds.

    A request that goes on after its body was read listens for the asker's leaving, for as long as it likes.
    """

    def __init__(self, rules: Rules, scope: Scope, receive: Receive) -> None:
        self.rules, self.receive = rules, receive
        self.most = rules.most_body(scope["method"], scope["path"])
        self.seen, self.complete = 0, False
        self.end = asyncio.get_running_loop().time() + rules.whole_seconds

    async def __call__(self) -> MutableMapping[str, Any]:
        if self.complete:
            return await self.receive()
        left = min(self.rules.body_seconds, self.end - asyncio.get_running_loop().time())
        try:
            message = await asyncio.wait_for(self.receive(), max(left, 0.01))
        except asyncio.TimeoutError as error:
            raise SlowError("the request did not arrive in time; send it again, faster") from error
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
            if self.seen > self.most:
                raise TooLargeError(f"the request has more than {self.most / 1e6:.1f} MB")
        return message


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]


async def _respond(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    raw = _raw({**headers, "content-length": str(len(body))})
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
