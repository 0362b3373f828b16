"""Which files belong to a folder, how large they are and what their checksums are: what is damaged is told by name.

``manifest.json`` is written last, when everything else is there. It protects against what disks, copies and slips of
the hand do, not against somebody who means harm: who can change the files can change the manifest.
"""

import hashlib
import json
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stereopsis.errors import CheckpointError
from stereopsis.files import write_atomic
from stereopsis.reading import open_plain, read_json

MANIFEST_FILE = "manifest.json"
SCHEMA = 1
_CHUNK = 2**22


def write_manifest(folder: Path, **facts: Any) -> None:
    """List all files of a folder, and plain facts about them.

    Args:
        folder: that holds everything already.
        facts: plain values, such as the step of a checkpoint.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name != MANIFEST_FILE and not name.endswith(".md")]
    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(lambda name: _checksum(folder / name), names))
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": found}
        for name, found in zip(names, sums, strict=True)
    }
    write_atomic(
        folder / MANIFEST_FILE,
        json.dumps({"schema": SCHEMA, **facts, "files": files}, indent=1) + "\n",
        error=CheckpointError,
    )


def check_manifest(folder: Path, remedy: str, *, passed_over: Container[str] = ()) -> Mapping[str, Any] | None:
    """Compare every listed file with what the manifest says of it.

    Args:
        folder: that may hold a manifest.
        remedy: what to do about a damaged file, for messages.
        passed_over: names of files that the caller will not read.

    Returns:
        The manifest's facts; None where there is no manifest.

    Raises:
        CheckpointError: a file is missing, of another size or of another content; the first one is named.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    content = _read(path, remedy)
    listed: Mapping[str, Mapping[str, Any]] = content.pop("files")
    files = {name: facts for name, facts in listed.items() if name not in passed_over}
    for name, facts in files.items():  # sizes first: they cost nothing
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing ({MANIFEST_FILE} lists it); {remedy}")
        if file.stat().st_size != facts["bytes"]:
            raise CheckpointError(
                f"{file} has {file.stat().st_size} bytes, {MANIFEST_FILE} says {facts['bytes']}: it was cut short or "
                f"changed; {remedy}"
            )
    with ThreadPoolExecutor(4) as pool:
        for name, found in zip(files, pool.map(lambda name: _checksum(folder / name), files), strict=True):
            if found != files[name]["sha256"]:
                raise CheckpointError(
                    f"{folder / name} is not what was written (its checksum differs from {MANIFEST_FILE}'s); {remedy}; "
                    f"if you changed it on purpose, delete {path}"
                )
    return content


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = read_json(path)
        plain = all(
            isinstance(name, str) and isinstance(facts["bytes"], int) and isinstance(facts["sha256"], str)
            for name, facts in content["files"].items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}); {remedy}") from error
    if not plain or content.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} is no manifest of schema {SCHEMA}; {remedy}")
    return content


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_plain(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); copy the folder again") from error
    return digest.hexdigest()
