"""How much a chat template may take: it is a program, and it comes with other people's models."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from stereopsis.errors import CheckpointError

MOST_SECONDS = 10.0
MOST_BYTES = 512 * 1024**2
"""Real templates take milliseconds and kilobytes."""


class _TookTooLongError(Exception):
    pass


@contextlib.contextmanager
def guarded_template(seconds: float = MOST_SECONDS, most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Run a chat template inside: transformers gives it no way out of its sandbox, this bounds time and memory.

    Raises:
        CheckpointError: it took too long or too much, tried what the sandbox forbids, or is wrong in itself.
    """
    until = time.monotonic() + seconds

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > until:
            raise _TookTooLongError(f"it ran for more than {seconds:g} s")
        return watch

    before = sys.gettrace()
    try:
        with _less_memory(most_bytes):
            sys.settrace(before or watch)  # a debugger, or what measures coverage, stays in place
            try:
                yield
            finally:
                sys.settrace(before)
    except CheckpointError:
        raise
    except Exception as error:  # a template can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"the tokenizer's chat template cannot be used ({type(error).__name__}: {reason}); take the one of the "
            "model's own release"
        ) from error


@contextlib.contextmanager
def _less_memory(most_bytes: int) -> Iterator[None]:
    """No more than so much memory beside what the process has; where the system cannot say, no bound."""
    try:
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):
        yield
        return
    limit = held + most_bytes if soft == resource.RLIM_INFINITY else min(soft, held + most_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
