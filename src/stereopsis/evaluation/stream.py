"""Records while they come: every process appends to a file of its own, and a kill loses at most the line in hand.

EVALUATION/
settings.json           what everything here was made with; written first
parts/part-RANK.jsonl   one line per answered question, in the order of answering
parts/failed-RANK.jsonl questions that got no usable answer in the newest attempt
records.jsonl, timings.jsonl, summary.json   when all is answered; parts/ is then removed
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from stereopsis.benchmarks.files.submissions import submissions
from stereopsis.errors import RunFolderError
from stereopsis.evaluation.questions import Key
from stereopsis.evaluation.records import RECORDS_FILE, SUMMARY_FILE, TIMINGS_FILE
from stereopsis.files import write_atomic
from stereopsis.reading import parse_json, read_bytes, read_json, read_text

SETTINGS_FILE = "settings.json"
PARTS_FOLDER = "parts"


class Part:
    """A process's own file of records, open for appending; no other process can hold it at the same time.

    Args:
        folder: the evaluation's.
        rank: the process's number.

    Raises:
        RunFolderError: another process holds it.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        parts = folder / PARTS_FOLDER
        parts.mkdir(parents=True, exist_ok=True)
        self.path, self.failures = parts / f"part-{rank:04d}.jsonl", parts / f"failed-{rank:04d}.jsonl"
        self._file = open(self.path, "ab")  # noqa: SIM115
        try:
            _lock(self._file)
        except OSError as error:
            self._file.close()
            raise RunFolderError(
                f"{folder} is being evaluated by another process; wait for it, or give another --output"
            ) from error
        self._cut_torn_line()

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write whole lines; once this returns, a kill cannot take them back."""
        self._file.write("".join(_line(record) for record in records).encode())
        self._file.flush()

    def fail(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Note questions that got no usable answer."""
        lines = "".join(_line(record) for record in records)
        if lines:
            with self.failures.open("a") as file:
                file.write(lines)

    def _cut_torn_line(self) -> None:
        content = read_bytes(self.path)
        whole = _whole(content)
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))


def _lock(file: BinaryIO) -> None:
    """Hold a file until this process ends, however it ends; where the system has no such locks, nothing is held."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _whole(content: bytes) -> bytes:
    """The content without a last line that was cut short."""
    whole = content[: content.rfind(b"\n") + 1]
    start = whole.rfind(b"\n", 0, len(whole) - 1) + 1
    try:
        parse_json(whole[start:] or b"null")
    except ValueError:
        return whole[:start]
    return whole


def read_parts(folder: Path) -> dict[Key, dict[str, Any]]:
    """Everything that was answered so far, by task and id, whoever wrote it; torn last lines are passed over.

    Raises:
        RunFolderError: another line is damaged, or a question was answered twice, with different results.
    """
    found: dict[Key, dict[str, Any]] = {}
    for path in sorted((folder / PARTS_FOLDER).glob("part-*.jsonl")):
        for number, line in enumerate(_whole(read_bytes(path)).splitlines(), start=1):
            try:
                record = parse_json(line)
                key = (record["task"], record["id"])
            except (ValueError, TypeError, KeyError) as error:
                raise RunFolderError(
                    f"{path}, line {number}: not a record ({error}); delete this line, its question is answered again"
                ) from error
            if key in found and _result(found[key]) != _result(record):
                raise RunFolderError(
                    f"{path}, line {number}: {key[0]} '{key[1]}' was answered before, differently; the files in "
                    f"{path.parent} come from different evaluations: start anew with --overwrite"
                )
            found.setdefault(key, record)
    return found


def _result(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


def read_failures(folder: Path) -> list[dict[str, Any]]:
    """Questions that got no usable answer in the newest attempt."""
    paths = sorted((folder / PARTS_FOLDER).glob("failed-*.jsonl"))
    return [parse_json(line) for path in paths for line in read_text(path).splitlines()]


def finished(folder: Path) -> bool:
    """Whether an evaluation is complete."""
    return all((folder / name).is_file() for name in (RECORDS_FILE, SUMMARY_FILE))


def claim(folder: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Make a folder ready for an evaluation with these settings, or for going on with it.

    Args:
        folder: the evaluation's.
        settings: plain values.
        overwrite: remove an evaluation that is there, whatever its settings.

    Raises:
        RunFolderError: it holds an evaluation with other settings; names what differs.
    """
    if overwrite:
        clear(folder)
    check(folder, settings)
    if not (folder / SETTINGS_FILE).is_file():
        clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(
            folder / SETTINGS_FILE, json.dumps(settings, indent=1, allow_nan=False) + "\n", error=RunFolderError
        )
    if finished(folder):  # a kill may have come between the last file and the removal of the parts
        shutil.rmtree(folder / PARTS_FOLDER, ignore_errors=True)
    for path in (folder / PARTS_FOLDER).glob("failed-*.jsonl"):
        path.unlink()


def check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds an evaluation with other settings.

    Raises:
        RunFolderError: names what differs.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        if finished(folder):
            raise RunFolderError(
                f"{folder} holds an evaluation that does not tell its settings (no {SETTINGS_FILE}); add "
                "--overwrite to replace it, or give another --output"
            )
        return
    try:
        there = read_json(file)
    except ValueError as error:
        raise RunFolderError(f"{file} is not valid JSON ({error}); start anew with --overwrite") from error
    differing = differences(there, json.loads(json.dumps(settings)))
    if differing:
        state = "a finished" if finished(folder) else "an unfinished"
        raise RunFolderError(
            f"{folder} holds {state} evaluation with other settings ({'; '.join(differing)}), and they must not mix; "
            "repeat those settings, add --overwrite to replace it, or give another --output"
        )


def clear(folder: Path) -> None:
    """Remove an evaluation; what makes it count as finished goes first."""
    for name in (SUMMARY_FILE, RECORDS_FILE, TIMINGS_FILE):
        (folder / name).unlink(missing_ok=True)
    for sent in submissions(folder):
        sent.unlink()
    if (folder / PARTS_FOLDER).is_dir():
        shutil.rmtree(folder / PARTS_FOLDER)
    (folder / SETTINGS_FILE).unlink(missing_ok=True)


def differences(there: Any, here: Any, key_path: str = "") -> list[str]:
    """What differs between two nested settings, in words: ``limit: 5 there, 10 now``."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        return [
            text
            for key in keys
            for text in differences(there.get(key), here.get(key), f"{key_path}.{key}" if key_path else key)
        ]
    return [] if there == here else [f"{key_path}: {_short(there)} there, {_short(here)} now"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:12]}..."
