"""Published rows, one question each, as Parquet, JSON lines or a JSON list."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereopsis.errors import MissingExtraError, StereopsisError
from stereopsis.reading import check_plain, parse_json, read_text


def rows(path: Path, *, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a ``.parquet`` file, of one with a JSON object in each line, or of a JSON list.

    Args:
        path: the file.
        without: columns of a Parquet file that are not read (pictures).

    Raises:
        StereopsisError: it is missing or damaged.
        MissingExtraError: a Parquet file, and no pyarrow.
    """
    try:
        if path.suffix == ".parquet":
            return _parquet(path, without)
        text = read_text(path)
        if text.lstrip().startswith("["):
            return list(parse_json(text))
        return [parse_json(line) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise StereopsisError(f"{path}: cannot be read ({error.strerror or error}); is this the path?") from error
    except (ValueError, RecursionError) as error:  # of text, of JSON and of pyarrow
        raise StereopsisError(f"{path}: is damaged or of another form ({error}); download it again") from error


def _parquet(path: Path, without: Sequence[str]) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "video", "reading Parquet files") from error
    check_plain(path)
    columns = [name for name in parquet.read_schema(path).names if name not in without]
    found: list[dict[str, Any]] = parquet.read_table(path, columns=columns).to_pylist()
    return found
