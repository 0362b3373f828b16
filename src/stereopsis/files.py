"""Files that others see whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stereopsis.errors import StereopsisError

_UNWRITTEN = ("PytorchStreamWriter", "inline_container", "I/O error", "IoError", "os error", "iostream")
"""What torch's and safetensors' writers say of a full disk or a place that cannot be written."""


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


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file as a lock until the block or the process ends, however it ends; the file goes with the block.

    Where the system has no such locks, nothing is held.

    Args:
        path: the file; its folder is there.
        wait: until another process lets go; else that is an error.

    Raises:
        BlockingIOError: another process holds it.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    while True:
        file = open(path, "ab")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                    break  # else its holder has just removed it, and a new one may be there
        except BaseException:
            file.close()
            raise
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


@contextlib.contextmanager
def full_disks_told() -> Iterator[None]:
    """Let what libraries raise where they cannot write be the `OSError` that it is.

    Raises:
        OSError: safetensors or torch could not write.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # torch: RuntimeError of its zip writer; safetensors: an error of its own
        said = str(error)
        if any(sign in said for sign in _UNWRITTEN):
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, or the place cannot be written") from error
        raise


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
        tag = os.path.join(folder, CACHE_TAG)
        if not os.path.isfile(tag):  # also a pipe, which would never end
            return False
        with open(tag, encoding="utf-8", errors="replace") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
