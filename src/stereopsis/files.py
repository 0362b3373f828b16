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


CACHE_TAG = "CACHEDIR.TAG"
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"


def cache_folder() -> Path:
    """Where this user's caches lie: ``stereopsis`` in XDG_CACHE_HOME, or in ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "stereopsis"


def mark_cache(folder: Path) -> Path:
    """Make a folder, and say in it that what it holds can be made again.

    The mark is that of the Cache Directory Tagging Specification (bford.info/cachedir): backup programs leave such
    folders out, and so does whoever looks for scenes.
    """
    tag = folder / CACHE_TAG
    if not tag.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(
            tag, f"{_SIGNATURE}\n# Made by stereopsis; it can be deleted, and is made again when it is needed.\n"
        )
    return folder


def is_cache(folder: str | Path) -> bool:
    """Whether a folder is marked as a cache, by whatever program."""
    try:
        with open(os.path.join(folder, CACHE_TAG), encoding="utf-8", errors="replace") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
