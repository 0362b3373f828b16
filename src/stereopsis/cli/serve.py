"""The command line's part for a room that answers: a page, an API and a tool for agents."""

import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from stereopsis.cli.startup import quiet_libraries
from stereopsis.errors import StereopsisError
from stereopsis.extras import require_extras
from stereopsis.progress import say

if TYPE_CHECKING:
    from stereopsis.serve.opening import Opening
    from stereopsis.serve.rooms import RoomBook

console = Console()
Places = Annotated[
    list[Path] | None,
    typer.Argument(
        help="A model (run, model folder or converted checkpoint), then scenes or captures; any may be left out."
    ),
]
Precision = Annotated[str, typer.Option("--dtype", help="Of the model's numbers: auto, bf16 or fp32.")]
Views = Annotated[int | None, typer.Option(min=1, help="Views of a room that the model is shown (default: its own).")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis serve   |   stereopsis serve runs/first data/mine/kitchen   |   "
        "stereopsis serve models/ross3d data/scannet --host 0.0.0.0 --token SECRET"
    )(serve)


def divided(places: list[Path] | None) -> tuple[Path | None, list[Path]]:
    """The model and the scenes among what was named.

    Raises:
        StereopsisError: something is not there.
    """
    from stereopsis.training.run_folder import RECIPE_FILE

    named = list(places or [])
    for path in named:
        if not path.exists():
            raise StereopsisError(f"{path} does not exist; name a model's folder first (or leave it out), then scenes")
    first = named[0] if named else None
    if first is not None and ((first / "config.json").is_file() or (first / RECIPE_FILE).is_file()):
        return first, named[1:]
    return None, named


def opening_of(model: Path | None, precision: str, views: int | None) -> "Opening":
    """What opens the model later, in the engine's thread.

    Raises:
        StereopsisError: no such precision.
    """
    import functools

    from stereopsis.precision import parse_precision
    from stereopsis.serve.opening import open_model
    from stereopsis.serve.tiny import open_tiny

    parse_precision(precision)
    if model is None:
        return functools.partial(open_tiny, precision=precision, views=views)
    return functools.partial(open_model, model, precision=precision, views=views)


def book_of(scenes: list[Path], *, rooms: bool) -> "RoomBook":
    """The rooms: those that were named, or procedural ones."""
    from stereopsis.serve.rooms import RoomBook
    from stereopsis.serve.start import add_rooms, add_scenes

    book = RoomBook()
    if scenes:
        add_scenes(book, scenes)
    elif rooms:
        add_rooms(book)
    return book


def serve(
    places: Places = None,
    host: Annotated[str, typer.Option(help="Listen here; other machines only with --token.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8765, or the next free one.")] = None,
    token: Annotated[str | None, typer.Option(envvar="STEREOPSIS_TOKEN", help="What every request must bring.")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Another name of this machine that requests may use; may be repeated.")
    ] = None,
    memory: Annotated[float, typer.Option(min=0.01, help="GB of encoded rooms that are kept.")] = 2.0,
    waiting: Annotated[int, typer.Option(min=1, help="So many questions may wait; then askers are told 429.")] = 256,
    uploads: Annotated[bool, typer.Option(help="Let askers upload rooms.")] = False,
    precision: Precision = "auto",
    views: Views = None,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = False,
) -> None:
    """Open rooms in a browser and ask about them: a page, an HTTP API and OpenAI's chat form, at one address.

    Without arguments: three procedural rooms and the shipped tiny model, which knows such rooms only.
    """
    require_extras("A server", "serve")
    model, scenes = divided(places)
    from stereopsis.serve.start import PORT, Server, ServerSettings

    quiet_libraries()
    if model is None and scenes:
        say(console, "No model was named: the shipped tiny one answers. It knows procedural rooms, not photographs.")
    settings = ServerSettings(
        host=host,
        port=PORT if port is None else port,
        token=token,
        names=tuple(name or ()),
        memory=int(memory * 1e9),
        waiting=waiting,
        uploads=uploads,
    )
    server = Server(
        book_of(scenes, rooms=True), opening_of(model, precision, views), settings, search=port is None
    ).start()
    show(server.link, browser=browser)
    server.tell(lambda words: say(console, words))
    server.wait()
    raise StereopsisError("the server has ended by itself; its messages above say why")


def show(link: str, *, browser: bool) -> None:
    """Say where the page is, at once."""
    console.print(f"Open [bold]{escape(link)}[/bold]   (Ctrl-C ends the server)", highlight=False, soft_wrap=True)
    if browser and os.environ.get("DISPLAY", os.name != "posix"):
        webbrowser.open(link)
