"""Archives of scenes from strangers, unpacked within limits: no links, no ways out, no bombs."""

import dataclasses
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from stereopsis.errors import SceneError
from stereopsis.serve.failures import RequestError, TooLargeError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """How much an archive may hold.

    Attributes:
        files: how many.
        unpacked: bytes of all of them.
        depth: folders below each other.
        ratio: unpacked bytes per packed one; recordings are compressed already.
    """

    files: int = 20_000
    unpacked: int = 4 << 30
    depth: int = 12
    ratio: int = 200


def unpack(archive: Path, folder: Path, limits: UploadLimits = UploadLimits()) -> Path:
    """Unpack a zip or tar archive into a folder of its own.

    Args:
        archive: the file, of any name.
        folder: is made; removed again where anything is wrong.
        limits: how much it may hold.

    Returns:
        The folder with the scene: ``folder``, or the only folder in it.

    Raises:
        RequestError: it is no archive, or holds links, devices, absolute names or ``..``.
        TooLargeError: it unpacks to more than the limits.
    """
    folder.mkdir(parents=True)
    try:
        budget = _Budget(limits, archive.stat().st_size)
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    _write_all(_zip_members(opened, budget), folder, budget)
            else:
                with tarfile.open(archive, "r:*") as opened_tar:
                    _write_all(_tar_members(opened_tar, budget), folder, budget)
        except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
            raise RequestError(
                f"the upload cannot be unpacked ({error}); send a scene's folder as {', '.join(SUFFIXES)}"
            ) from error
        return _inner(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Budget:
    """What may still be unpacked; counts what is really written, whatever the archive says of itself."""

    def __init__(self, limits: UploadLimits, packed: int) -> None:
        self.limits, self.files, self.bytes = limits, 0, 0
        self.most = min(limits.unpacked, max(packed, 4096) * limits.ratio)

    def file(self) -> None:
        self.files += 1
        if self.files > self.limits.files:
            raise TooLargeError(f"the archive holds more than {self.limits.files} files")

    def add(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self.most:
            raise TooLargeError(f"the archive unpacks to more than {self.most / 1e6:.0f} MB")


Member = tuple[str, IO[bytes]]


def _zip_members(archive: zipfile.ZipFile, budget: _Budget) -> Iterator[Member]:
    for info in archive.infolist():
        budget.file()
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise RequestError(f"the archive holds a link or a device ('{info.filename[:80]}'); pack plain files only")
        if info.flag_bits & 1:
            raise RequestError("the archive is encrypted; pack it without a password")
        if not info.is_dir():
            with archive.open(info) as file:
                yield info.filename, file


def _tar_members(archive: tarfile.TarFile, budget: _Budget) -> Iterator[Member]:
    for member in archive:
        budget.file()
        if member.isdir():
            continue
        if not member.isfile():
            raise RequestError(f"the archive holds a link or a device ('{member.name[:80]}'); pack plain files only")
        file = archive.extractfile(member)
        if file is not None:
            with file:
                yield member.name, file


def _write_all(members: Iterator[Member], folder: Path, budget: _Budget) -> None:
    for name, file in members:
        target = folder.joinpath(*_safe(name, budget.limits.depth))
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as out:
            while piece := file.read(1 << 20):
                budget.add(len(piece))
                out.write(piece)


def _safe(name: str, depth: int) -> tuple[str, ...]:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    bad = (
        not parts
        or parts[0] == "/"
        or ".." in parts
        or any(":" in p or "\0" in p or len(p.encode()) > 200 for p in parts)
    )
    if bad or not all(part.isprintable() for part in parts):
        raise RequestError(
            f"the archive holds the name '{name[:80]!s}', which leads out of it; pack plain relative names"
        )
    if len(parts) > depth:
        raise TooLargeError(f"the archive has folders more than {depth} deep")
    return parts


def _inner(folder: Path) -> Path:
    inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
    if not inside:
        raise SceneError("the archive is empty; send a scene's folder")
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
