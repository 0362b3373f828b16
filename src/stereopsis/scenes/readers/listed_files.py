"""Files that a capture's lists name, found as they lie on the disk, and names of frames made of them.

Lists inside a capture (rgb.txt, transforms.json, images.txt) name files. They come from elsewhere, so a name that
leads out of the capture's folder is refused. Symbolic links that a person put into the folder are followed. Names were
often written on another system than the one that reads them: separators, upper and lower case, the composition of
accents, and a suffix that was left out are made to fit what lies there, where only one file fits.
"""

import collections
import functools
import hashlib
import ntpath
import os
import re
import time
import unicodedata
import urllib.parse
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from stereopsis.errors import FrameError
from stereopsis.scenes.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES, read_header
from stereopsis.scenes.stored_schema import is_name_character

_NAME_BYTES = 150
_SETTLED = 2.0
"""Seconds after which a folder's listing may be remembered: its time of change is then unambiguous."""


def given_name(path: Path) -> str:
    """The name of a folder as a person gave it: a link's own name, not its target's; never empty."""
    return os.path.basename(os.path.abspath(path)) or "scene"


def listed_file(folder: Path, name: object, where: str) -> Path:
    """The path of a file that a list inside the folder names.

    Args:
        folder: the capture's folder.
        name: as listed; relative to the folder, with "/" (or, where no such file exists, a backslash) between parts.
        where: the list and line, for messages.

    Returns:
        The file as it lies on the disk; where there is none, the path as listed.

    Raises:
        FrameError: no name, an absolute one, one that leads out of the folder, or one that fits several files.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise FrameError(f"{where}: found {name!r}, expected the name of a file inside {folder}; correct the entry")
    path = folder / _inside(folder, name, where)
    if os.path.lexists(path):
        return path
    if "\\" in name:
        path = folder / _inside(folder, name.replace("\\", "/"), where)
    return path if os.path.lexists(path) else _on_disk(folder, path, where)


def _inside(folder: Path, name: str, where: str) -> str:
    relative = os.path.normpath(name)
    if os.path.isabs(name) or ntpath.splitdrive(name)[0] or relative.split(os.sep)[0] == os.pardir:
        raise FrameError(
            f"{where}: the name '{name}' leads out of the scene's folder; expected a file inside {folder}, named "
            "relative to it; copy the file into the folder and correct the entry, or leave the frame out with "
            "on_bad_frame='skip'"
        )
    return relative


def _on_disk(folder: Path, path: Path, where: str) -> Path:
    """The one file that differs from the listed one in nothing but case, composition, or a suffix left out."""
    place = folder
    parts = path.relative_to(folder).parts
    for number, part in enumerate(parts):
        if os.path.lexists(place / part):
            place /= part
            continue
        entries = _entries(place)
        found = [entry for entry in entries if _plain(entry) == _plain(part)]
        if not found and number == len(parts) - 1 and not has_image_suffix(part):
            found = [entry for entry in entries if _plain(os.path.splitext(entry)[0]) == _plain(part)]
            found = [entry for entry in found if has_image_suffix(entry)]
        if len(found) > 1:
            raise FrameError(
                f"{where}: '{part}' fits {' and '.join(sorted(found)[:3])} in {place}; expected one file; name it as "
                "it "
                "lies there, or leave the frame out with on_bad_frame='skip'"
            )
        if not found:
            return path
        place /= found[0]
    return place


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as images of colour or depth do."""
    return os.path.splitext(name)[1].lower() in (*COLOUR_SUFFIXES, *DEPTH_SUFFIXES)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _entries(folder: Path) -> Collection[str]:
    try:
        changed = folder.stat().st_mtime_ns
        if time.time() - changed / 1e9 > _SETTLED:
            return _remembered(str(folder), changed)
        return os.listdir(folder)
    except OSError:
        return ()


@functools.lru_cache(maxsize=64)
def _remembered(folder: str, changed: int) -> tuple[str, ...]:
    return tuple(os.listdir(folder))


def images_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The images directly in a folder, by natural order of their names; none where there is no such folder.

    Args:
        folder: where to look.
        suffixes: of the files, with a dot, in lower case; upper case is found, too.
    """
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.suffix.lower() in suffixes and entry.name[0] != "."]
    return sorted(found, key=lambda entry: natural_key(entry.name))


def frame_names(files: Sequence[str]) -> list[str]:
    """Names for frames from their files' names: without folder and suffix where that tells them apart.

    Letters and digits of any script, blanks, ``_``, ``-`` and ``.`` stay as they are; everything else is written as in
    web addresses (``%3A``), so that a name can name a file again and the file's own name can be had back. Names that
    are too long keep their end, behind a checksum of the whole.
    """
    paths = [PurePosixPath(os.path.normpath(file.replace("\\", "/"))) for file in files]
    count = len(set(paths))
    ways = (
        [path.stem for path in paths],
        ["_".join(path.with_suffix("").parts) for path in paths],
        [str(path.with_suffix("")) for path in paths],
    )
    names = next((way for way in ways if len(set(way)) == count), [str(path) for path in paths])
    return [_as_name(name) for name in names]


def _as_name(text: str) -> str:
    """Reversible by `urllib.parse.unquote`, unless it was too long."""
    quoted = "".join(
        char if is_name_character(char) and char != "%" else urllib.parse.quote(char, safe="", errors="surrogateescape")
        for char in text
    )
    for position, char in ((0, "."), (0, " "), (-1, " ")):
        if quoted and quoted[position] == char:
            code = f"%{ord(char):02X}"
            quoted = code + quoted[1:] if position == 0 else quoted[:-1] + code
    if len(quoted.encode()) > _NAME_BYTES:
        digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
        tail = quoted.encode()[-_NAME_BYTES + 13 :].decode(errors="ignore")
        quoted = f"{digest}-{tail}"
    return quoted.removesuffix(".depth") + "%2Edepth" if quoted.endswith(".depth") else quoted or "frame"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key that puts 9.png before 10.png (and digits before letters, as usual)."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)


def common_size(folder: Path, names: Sequence[str], where: Sequence[str]) -> tuple[int, int]:
    """The (width, height) that most of up to nine evenly spread colour images have.

    Args:
        folder: the capture's folder.
        names: of the images, as its list gives them.
        where: the list and line of each, for messages.

    Raises:
        FrameError: none of them can be read; the first one's error.
    """
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    errors: list[FrameError] = []
    last = len(names) - 1
    for index in sorted({round(last * step / 8) for step in range(9)}):
        try:
            sizes[read_header(listed_file(folder, names[index], where[index])).size] += 1
        except FrameError as error:
            errors.append(error)
    if not sizes:
        raise errors[0]
    return sizes.most_common(1)[0][0]
