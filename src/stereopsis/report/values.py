"""Values out of JSON files, checked: a report must say which file is damaged, and where."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis import reading
from stereopsis.benchmarks.scoring.statistics import Interval
from stereopsis.errors import RunFolderError


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunFolderError: the file cannot be read or is not JSON.
    """
    try:
        return reading.read_json(path)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); check the folder and its rights") from error
    except ValueError as error:
        raise RunFolderError(
            f"{path} is not valid JSON ({error}); the run that wrote it may have been cut short: repeat it"
        ) from error


def there(path: Path) -> bool:
    """Whether a plain file is there.

    Raises:
        RunFolderError: something else stands there.
    """
    try:
        return reading.is_file(path)
    except OSError as error:
        raise RunFolderError(f"{path}: {error.strerror}; remove it, or restore the file that belongs there") from error


def text_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8.

    Raises:
        RunFolderError: the file cannot be read.
    """
    try:
        return reading.read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{path} cannot be read ({reason}); restore the file, or repeat what wrote it") from error


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        RunFolderError: it is something else.
    """
    if not isinstance(value, dict):
        raise RunFolderError(f"{where} must be an object {{...}}, found {_short(value)}; write it anew")
    return value


def items(value: Any, where: str) -> list[Any]:
    """A JSON array.

    Raises:
        RunFolderError: it is something else.
    """
    if not isinstance(value, list):
        raise RunFolderError(f"{where} must be a list [...], found {_short(value)}; write it anew")
    return value


def text(record: Mapping[str, Any], key: str, where: str) -> str:
    """A string that has to be there.

    Raises:
        RunFolderError: it is absent or not a string.
    """
    if not isinstance(record.get(key), str):
        raise RunFolderError(f"{where} needs the text '{key}', found {_short(record.get(key))}; write it anew")
    return record[key]


def number(value: Any, where: str) -> float:
    """A number; null is NaN.

    Raises:
        RunFolderError: it is neither.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RunFolderError(f"{where} must be a number, found {_short(value)}; write it anew")
    return float(value)


def interval(value: Any, where: str) -> Interval:
    """``{"mean", "low", "high"}``, where bounds may be null, or a bare number without bounds.

    Raises:
        RunFolderError: it is neither.
    """
    if isinstance(value, dict):
        if "mean" not in value:
            raise RunFolderError(f"{where} needs 'mean' (and 'low', 'high'), found {_short(value)}; evaluate again")
        mean, low, high = (number(value.get(key), f"{where}.{key}") for key in ("mean", "low", "high"))
        return Interval(mean=mean, low=low, high=high)
    return Interval(mean=number(value, where), low=math.nan, high=math.nan)


def intervals(value: Any, where: str) -> dict[str, Interval]:
    """Metric name -> interval.

    Raises:
        RunFolderError: see `interval`.
    """
    return {name: interval(each, f"{where}.{name}") for name, each in mapping(value, where).items()}


def boxes(value: Any, where: str) -> Float[np.ndarray, "boxes 6"]:
    """A list of boxes cx cy cz dx dy dz, aligned frame, metres.

    Raises:
        RunFolderError: not a list of six numbers each.
    """
    try:
        array = np.array(value, dtype=np.float64).reshape(-1, 6)
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{where} must be a list of boxes [cx, cy, cz, dx, dy, dz]; evaluate again") from error
    if not np.isfinite(array).all():
        raise RunFolderError(f"{where} holds a box with NaN or inf; evaluate again")
    return array


def _short(value: Any) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
