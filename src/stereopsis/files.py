"""Files that others see whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; the file there takes the place of ``path`` when the block ends without an error.

    It lies in the same folder under a name of its own, so that several processes may write at once: the last one
    wins. After an error, or in a process that dies, the old file stays as it was. Nothing is flushed to the disk
    itself (no fsync): after a power failure the file may be short.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that others see all of it or nothing."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
