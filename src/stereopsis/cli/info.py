"""The command line's part that tells what is here and what a recipe will cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stereopsis.errors import StereopsisError

SHARDINGS = ("none", "zero2", "zero3")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis info   |   stereopsis info stereopsis-tiny   |   stereopsis info data/room/SCENE"
        "   |   stereopsis info ross3d-7b --gpu A100-80 --processes 8 --sharding zero3"
    )(info)


def info(
    what: Annotated[str | None, typer.Argument(help="A recipe, a scene folder or a run folder.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Override a recipe key, e.g. -s training.steps=50; may be repeated."),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Recipes: predict for this GPU, e.g. H100, A6000-48, RTX4090.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Recipes: GPUs that share the work.")] = 1,
    sharding: Annotated[str, typer.Option(help="Recipes: what they divide: none, zero2, zero3 (FSDP).")] = "none",
    utilisation: Annotated[float, typer.Option(help="Recipes: share of the GPU's peak that is reached.")] = 0.4,
    question_tokens: Annotated[int, typer.Option(help="Recipes: tokens of an average question.")] = 40,
    answer_tokens: Annotated[int, typer.Option(help="Recipes: tokens of an average answer.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain data.")] = False,
) -> None:
    """Tell about this installation, a scene, a run, or a recipe: what it will cost, and where it fits.

    A recipe's base need not be downloaded: sizes of the bases that shipped recipes name are known.
    """
    from stereopsis.experiment import describe
    from stereopsis.training.cost import Assumptions, predict
    from stereopsis.training.recipe import load_recipe

    if sharding not in SHARDINGS:
        raise StereopsisError(f"--sharding must be one of {', '.join(SHARDINGS)}, found '{sharding}'")
    assumptions = Assumptions(
        question=question_tokens,
        answer=answer_tokens,
        utilisation=utilisation,
        processes=processes,
        sharding=cast(Any, sharding),
    )
    if as_json and what is not None and not Path(what).is_dir():
        found = predict(load_recipe(what, overrides or []), assumptions).to_json()
        typer.echo(json.dumps(found, indent=1))
        return
    facts = describe(what, overrides or [], assumptions=assumptions, gpu=gpu)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, default=str))
        return
    show_facts(facts)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        plain = value if isinstance(value, str) else json.dumps(value, default=str)
        table.add_row(f"[bold]{escape(key)}[/bold]", escape(plain))
    Console().print(table)
