"""What the readers of annotation files share: JSON with places, fields with types, ids that are unique."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis import reading
from stereopsis.annotations import AnnotationRecord, Box
from stereopsis.errors import StereopsisError

Alignments = Mapping[str, Float[np.ndarray, "4 4"]]
"""Scene id -> axis-alignment matrix (raw ScanNet frame to aligned frame)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotationFile:
    """A file that a benchmark is to read.

    Attributes:
        path: the file.
        split: which split it holds, where that is known; "train" also gives every wording of a question.
        alignments: the scenes' axis alignments, where they are known.
    """

    path: Path
    split: str | None = None
    alignments: Alignments | None = None

    @functools.cached_property
    def content(self) -> Any:
        """The content of a JSON file, read once.

        Raises:
            StereopsisError: see `read_json`.
        """
        return read_json(self.path)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        StereopsisError: the file is missing, no text, or no JSON (cut off, damaged).
    """
    try:
        return reading.read_json(path)
    except OSError as error:
        raise StereopsisError(f"{path}: cannot be read ({error.strerror or error}); is this the path?") from error
    except UnicodeDecodeError as error:
        raise StereopsisError(f"{path}: is no UTF-8 text (byte {error.start}); download the file again") from error
    except json.JSONDecodeError as error:
        raise StereopsisError(
            f"{path}: is no valid JSON: {error.msg} in line {error.lineno}, column {error.colno}; the file may be cut "
            "off or damaged, download it again"
        ) from error
    except ValueError as error:
        raise StereopsisError(f"{path}: {error}; download the file again") from error
    except RecursionError as error:
        raise StereopsisError(f"{path}: is nested too deeply for an annotation file; download it again") from error


@dataclasses.dataclass(frozen=True)
class Entry:
    """One JSON object of a file, with its place for error messages.

    Attributes:
        place: such as "FILE: entry 17" (counted from 0).
        content: the object.
    """

    place: str
    content: dict[str, Any]

    def wrong(self, key: str, expected: str) -> StereopsisError:
        """The error that `key` does not hold what was expected."""
        found = repr(self.content[key]) if key in self.content else "no such key"
        shown = found if len(found) <= 80 else f"{found[:77]}..."
        return StereopsisError(f"{self.place}: '{key}' must be {expected}, found {shown}")

    def text(self, key: str) -> str:
        """A string with a character in it that is no space.

        Raises:
            StereopsisError: it is absent or something else.
        """
        value = self.content.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "a text that is not empty")
        return value

    def name(self, key: str) -> str:
        """An id, written as a string or as an integer.

        Raises:
            StereopsisError: it is absent or something else.
        """
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise self.wrong(key, "an id (a text or a whole number)")
        return str(value).strip()

    def number(self, key: str) -> float:
        """A finite number.

        Raises:
            StereopsisError: it is absent or something else.
        """
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def integer(self, key: str) -> int:
        """A whole number >= 0, also one that is written as a string.

        Raises:
            StereopsisError: it is absent or something else.
        """
        number = _whole(self.content.get(key))
        if number is None:
            raise self.wrong(key, "a whole number >= 0")
        return number

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers >= 0, perhaps empty.

        Raises:
            StereopsisError: it is absent or something else.
        """
        value = self.content.get(key)
        numbers = [_whole(each) for each in value] if isinstance(value, list) else [None]
        if any(number is None for number in numbers):
            raise self.wrong(key, "a list of whole numbers >= 0")
        return tuple(number for number in numbers if number is not None)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, at least one of which is not empty.

        Raises:
            StereopsisError: it is absent or something else.
        """
        value = self.content.get(key)
        if (
            not isinstance(value, list)
            or not all(isinstance(each, str) for each in value)
            or not any(each.strip() for each in value)
        ):
            raise self.wrong(key, "a list of texts, not all of them empty")
        return tuple(value)

    def child(self, key: str) -> "Entry":
        """A JSON object within this one.

        Raises:
            StereopsisError: it is absent or something else.
        """
        value = self.content.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object {...}")
        return Entry(f"{self.place}: {key}", value)

    def children(self, key: str) -> list["Entry"]:
        """A list of JSON objects within this one.

        Raises:
            StereopsisError: it is absent or something else.
        """
        if not isinstance(self.content.get(key), list):
            raise self.wrong(key, "a list [...]")
        return entries(self.content[key], f"{self.place}: {key}")

    def box(self, key: str) -> Box | None:
        """A box cx cy cz dx dy dz, metres; None where the key is absent or null.

        Raises:
            StereopsisError: it is something else.
        """
        if self.content.get(key) is None:
            return None
        return self._box(key, self.content[key])

    def boxes(self, key: str) -> tuple[Box, ...] | None:
        """A list of boxes cx cy cz dx dy dz, metres; None where the key is absent or null.

        Raises:
            StereopsisError: it is something else.
        """
        value = self.content.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(key, "a list of boxes [cx, cy, cz, dx, dy, dz]")
        return tuple(self._box(key, each) for each in value)

    def _box(self, key: str, value: Any) -> Box:
        numbers = value if isinstance(value, list) else []
        if (
            len(numbers) != 6
            or not all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
            or min(numbers[3:]) < 0
        ):
            raise self.wrong(key, "six finite numbers cx cy cz dx dy dz with sizes >= 0 (metres)")
        x, y, z, dx, dy, dz = (float(n) for n in numbers)
        return x, y, z, dx, dy, dz


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def entries(content: Any, where: str) -> list[Entry]:
    """The objects of a JSON list.

    Raises:
        StereopsisError: it is no list, it is empty, or it holds something else than objects.
    """
    if not isinstance(content, list) or not content:
        raise StereopsisError(f"{where}: must be a list of annotations [{{...}}, ...] with at least one entry")
    for index, each in enumerate(content):
        if not isinstance(each, dict):
            raise StereopsisError(f"{where}: entry {index} must be an object {{...}}, found {str(each)[:60]!r}")
    return [Entry(f"{where}: entry {index}", each) for index, each in enumerate(content)]


def without_duplicates(placed: Iterable[tuple[str, AnnotationRecord]]) -> tuple[AnnotationRecord, ...]:
    """The records, if all ids differ.

    Args:
        placed: each record with the place that it was read from.

    Raises:
        StereopsisError: two records have the same id.
    """
    seen: dict[str, str] = {}
    records = []
    for place, record in placed:
        key = record.annotation.id
        if key in seen:
            raise StereopsisError(
                f"{place}: {record.annotation.task} '{key}' is there twice (first: {seen[key].rsplit(': ', 1)[-1]}); "
                "a duplicate would count double, remove it"
            )
        seen[key] = place
        records.append(record)
    return tuple(records)


def unknown_format(task: str, where: str, found: dict[str, Any], expected: str) -> StereopsisError:
    """The error for a file that is none of the forms a reader knows."""
    return StereopsisError(
        f"{where}: is no {task} annotation file known here: its first entry has the keys "
        f"{', '.join(sorted(found)) or '(none)'}; expected {expected}"
    )
