"""What every command says where it cannot go on: one sentence, exit code 1."""

import sys

from rich.console import Console
from rich.markup import escape

from stereopsis.errors import os_sentence

EXPECTED = (OSError, MemoryError, RecursionError)
"""What the system refuses, beside the errors of `stereopsis.errors`."""


def end_with(error: BaseException) -> None:
    """Say what went wrong and end the program."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has left
        sys.stderr.close()
        sys.exit(1)
    told = os_sentence(error) if isinstance(error, OSError) else str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        told = f"the memory does not suffice ({told}); take a smaller input, or a machine with more memory"
    Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(told)}", highlight=False, soft_wrap=True)
    sys.exit(1)
