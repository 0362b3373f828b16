"""Asking a server from Python: a few lines of httpx around `stereopsis serve`'s HTTP API."""

from typing import Any

from stereopsis.errors import MissingExtraError, StereopsisError


class Client:
    """Asks a server about its rooms.

    Args:
        address: of the server.
        token: where it wants one.
        timeout: seconds.
    """

    def __init__(self, address: str = "http://127.0.0.1:8765", *, token: str | None = None, timeout: float = 120.0):
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("httpx", "serve", "stereopsis.client") from error
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.close()

    def rooms(self) -> list[dict[str, Any]]:
        """The rooms, and whether each is open."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/rooms")["rooms"]
        return found

    def ask(self, room: str, question: str, **options: Any) -> str:
        """An answer in words."""
        return str(self.call(room, "ask", question=question, **options)["answer"])

    def find(self, room: str, expression: str, **options: Any) -> dict[str, Any]:
        """What was found: ``box``, or None in it, and the ``ranked`` candidates."""
        return self.call(room, "find", expression=expression, **options)

    def describe(self, room: str, **thing: Any) -> str:
        """What is in a ``box``, or at a ``point``."""
        return str(self.call(room, "describe", **thing)["answer"])

    def measure(self, room: str, a: Any, b: Any = None) -> dict[str, Any]:
        """Distance or size of points, boxes or things in words, metres."""
        return self.call(room, "measure", a=a, **({} if b is None else {"b": b}))

    def call(self, room: str, what: str, **body: Any) -> dict[str, Any]:
        """Any question of the API.

        Raises:
            StereopsisError: the server's own sentence.
        """
        return self._call("POST", f"/v1/rooms/{room}/{what}", json=body)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        reply = self._http.request(method, path, **options)
        if reply.is_error:
            raise StereopsisError(reply.json()["error"]["message"])
        content: dict[str, Any] = reply.json()
        return content
