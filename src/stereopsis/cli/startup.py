"""What a command does first: say something within a second, then bring in the heavy libraries."""

import importlib
import os
import sys

from rich.console import Console

from stereopsis.progress import phase

HEAVY = ("torch", "transformers")


def quiet_libraries() -> None:
    """Keep the libraries that come later from talking over our own output; imports none of them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def load_libraries(console: Console | None, *modules: str) -> None:
    """Import modules of ours that bring torch and transformers along, which may take long after a fresh start.

    Args:
        console: where to say so; None = nowhere.
        modules: with their full names.
    """
    waiting = any(name not in sys.modules for name in HEAVY)
    with phase("Loading PyTorch and transformers", console=console if waiting else None):
        for name in modules:
            importlib.import_module(name)


def first_process() -> bool:
    """Whether this is the process that prints, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
