"""The command line's part for looking at scenes without a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stereopsis.cli.serve import book_of, show
from stereopsis.errors import StereopsisError
from stereopsis.extras import require_extras
from stereopsis.progress import phase, say

console = Console()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis view data/mine/kitchen   |   stereopsis view ~/scans/kitchen --export kitchen.html"
    )(view)


def view(
    scenes: Annotated[list[Path] | None, typer.Argument(help="Scenes or captures; left out, procedural rooms.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the page as one file that needs no server, and end.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8765, or the next free one.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = False,
) -> None:
    """Look at scenes in a browser: points, cameras, views, boxes, measurements; the page of 'serve' without a model."""
    for path in scenes or ():
        if not path.exists():
            raise StereopsisError(f"{path} does not exist; name a scene or a capture")
    if export is None:
        require_extras("A page", "serve")
    book = book_of(list(scenes or ()), rooms=True)
    if export is not None:
        from stereopsis.serve.export import export_page

        with phase("Opening the scenes", console=console):
            for entry in book.listed():
                book.wait(entry.id)
        say(console, f"Wrote {export_page(export, book.listed())}")
        return
    from stereopsis.serve.start import PORT, Server, ServerSettings

    settings = ServerSettings(port=PORT if port is None else port)
    server = Server(book, None, settings, search=port is None).start()
    show(server.link, browser=browser)
    server.tell(lambda words: say(console, words))
    server.wait()
