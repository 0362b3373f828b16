"""JSON that somebody else wrote: keys that stand twice are refused, and messages say what was found."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from stereopsis.errors import StereopsisError

SHOWN = 5
"""How many ids an error names."""


class DamagedError(StereopsisError):
    """Text that is not JSON."""


def parse_strictly(content: str, where: str) -> Any:
    """What a JSON text says.

    Raises:
        DamagedError: it is no JSON.
        StereopsisError: a key stands twice in one object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            refuse_repeated([key for key, _ in pairs], where)
        return found

    try:
        return json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where}: not valid JSON ({error}); write the file again") from error


def refuse_repeated(ids: Sequence[str], where: str) -> None:
    """Raise if an id occurs twice.

    Raises:
        StereopsisError: with how many, and which.
    """
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise StereopsisError(
            f"{where}: {len(repeated)} ids occur more than once ({some(repeated)}); a file that two runs appended to? "
            "Keep one prediction per sample"
        )


def some(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def shown(value: Any) -> str:
    """What was found, for a message."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
