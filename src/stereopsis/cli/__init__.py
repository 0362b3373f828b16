"""The command line: `commands` has what everybody meets first, its neighbours have a command or two each."""

from stereopsis.cli.commands import app, main

__all__ = ["app", "main"]
