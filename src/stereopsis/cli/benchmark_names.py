"""The names of benchmarks for the commands' help, which must appear before anything heavy is imported."""

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "benchmarks"


def declared_names() -> str:
    """The benchmarks that have a folder here, told by their cards; other packages may bring more."""
    return ", ".join(sorted(card.parent.name for card in _FOLDER.glob("*/card.md")))
