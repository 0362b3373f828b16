"""What can go wrong for somebody who asks a server, each with the HTTP status that says so."""

from stereopsis.errors import StereopsisError, os_sentence


class RequestError(StereopsisError):
    """A request that cannot be met; ``status`` is HTTP's number for it, ``kind`` a word for programs."""

    status, kind = 400, "invalid_request"


class UnknownRoomError(RequestError):
    """There is no such room (or view of it)."""

    status, kind = 404, "not_found"


class BusyError(RequestError):
    """Too many questions wait already."""

    status, kind = 429, "busy"


class NotReadyError(RequestError):
    """The model or the room is still being opened, or cannot be."""

    status, kind = 503, "not_ready"


class CannotError(RequestError):
    """This model (or a page without one) cannot do what is asked."""

    status, kind = 422, "cannot"


class StoppedError(RequestError):
    """Whoever asked has left, or the server ends."""

    status, kind = 499, "stopped"


class TooLargeError(RequestError):
    """More bytes, files or pixels than the server takes."""

    status, kind = 413, "too_large"


class ForbiddenError(RequestError):
    """A foreign page, host or token."""

    status, kind = 403, "forbidden"


class InternalError(RequestError):
    """Something that nobody foresaw went wrong with one request; the others go on."""

    status, kind = 500, "internal"


def told(error: BaseException) -> StereopsisError:
    """Any failure as one of ours, with a sentence; never with a traceback or a path of this machine's packages."""
    if isinstance(error, StereopsisError):
        return error
    if isinstance(error, MemoryError):
        return NotReadyError(
            "the memory does not suffice for this; ask for less, or start the server with less --views"
        )
    if isinstance(error, OSError):
        return InternalError(os_sentence(error))
    return InternalError(
        f"the request failed ({type(error).__name__}); the server goes on, and its log says what happened"
    )
