"""Files that others see whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stereopsis.errors import StereopsisError


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


@contextlib.contextmanager
def writing(path: Path, *, error: type[StereopsisError] = StereopsisError) -> Iterator[BinaryIO]:
    """An open file whose content takes the place of ``path`` when the block ends without an error; folders are made.

    Args:
        path: the file.
        error: what is raised where it cannot be written.

    Raises:
        StereopsisError: no space, no permission; nothing half-written is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("xb") as file:
            yield file
    except OSError as failure:
        raise error(write_failure(path, failure)) from failure


def write_atomic(path: Path, data: bytes | str, *, error: type[StereopsisError] = StereopsisError) -> Path:
    """Write a file so that readers see the old content or the new one, never a part; text is UTF-8 (see `writing`)."""
    with writing(path, error=error) as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return path


def write_failure(path: Path, error: OSError) -> str:
    """The message for a failed write: the path, the system's reason and the remedy."""
    reason = error.strerror or str(error)
    return (
        f"{path}: cannot be written ({reason}); nothing half-written was left behind; "
        "free some space or choose a folder that you may write to, then run the same command again"
    )


CACHE_TAG = "CACHEDIR.TAG"
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"


def cache_folder() -> Path:
    """Where this user's caches lie: ``stereopsis`` in XDG_CACHE_HOME, or in ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "stereopsis"


def mark_cache(folder: Path, *, error: type[StereopsisError] = StereopsisError) -> Path:
    """Make a folder, and say in it that what it holds can be made again.

    The mark is that of the Cache Directory Tagging Specification (bford.info/cachedir): backup programs leave such
    folders out, and so does whoever looks for scenes.
    """
    tag = folder / CACHE_TAG
    if not tag.is_file():
        content = f"{_SIGNATURE}\n# Made by stereopsis; it can be deleted, and is made again when it is needed.\n"
        write_atomic(tag, content, error=error)
    return folder


def is_cache(folder: str | Path) -> bool:
    """Whether a folder is marked as a cache, by whatever program."""
    try:
        with open(os.path.join(folder, CACHE_TAG), encoding="utf-8", errors="replace") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
