"""The command line's part for agents: rooms as tools of the Model Context Protocol."""

import typer

from stereopsis.cli.serve import Places, Precision, Views, book_of, divided, opening_of
from stereopsis.cli.startup import quiet_libraries
from stereopsis.extras import require_extras


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        name="mcp",
        epilog="In an agent's settings: command 'stereopsis', arguments 'mcp', 'runs/first', 'data/mine/kitchen'",
    )(serve_agents)


def serve_agents(places: Places = None, precision: Precision = "auto", views: Views = None) -> None:
    """Let an agent see rooms: list_rooms, ask, find, describe, measure and view, over stdin and stdout (MCP).

    Without arguments: three procedural rooms and the shipped tiny model.
    """
    require_extras("A server for agents", "mcp")
    quiet_libraries()
    model, scenes = divided(places)
    from stereopsis.serve.agents import make_agents_server
    from stereopsis.serve.engine import Engine

    engine = Engine(book_of(scenes, rooms=True), opening_of(model, precision, views))
    try:
        make_agents_server(engine).run("stdio")
    finally:
        engine.close()
