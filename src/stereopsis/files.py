"""Files that others see whole or not at all."""

import contextlib
import os
import secrets
import shutil
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


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of ``path`` when the block ends without an error.

    After an error nothing is left of it, and what was at ``path`` stays as it was.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.replaced")
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            os.replace(path, aside)
        os.replace(partial, path)
    except BaseException:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        raise
    finally:
        for folder in (partial, aside):
            shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that others see all of it or nothing."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
