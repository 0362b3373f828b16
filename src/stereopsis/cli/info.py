"""The command line's part that tells what is here and what a recipe will cost."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stereopsis.cli.startup import load_libraries
from stereopsis.errors import StereopsisError

if TYPE_CHECKING:
    from stereopsis.scenes.prepare.inspect import Verdict

console = Console()
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
    processes: Annotated[int, typer.Option(min=1, help="Recipes: GPUs that share the work.")] = 1,
    sharding: Annotated[str, typer.Option(help="Recipes: what they divide: none, zero2, zero3 (FSDP).")] = "none",
    utilisation: Annotated[float, typer.Option(help="Recipes: share of the GPU's peak that is reached.")] = 0.4,
    question_tokens: Annotated[int, typer.Option(min=0, help="Recipes: tokens of an average question.")] = 40,
    answer_tokens: Annotated[int, typer.Option(min=0, help="Recipes: tokens of an average answer.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain data.")] = False,
) -> None:
    """Tell about this installation, a scene, a run, or a recipe: what it will cost, and where it fits.

    A recipe's base need not be downloaded: sizes of the bases that shipped recipes name are known.
    """
    if sharding not in SHARDINGS:
        raise StereopsisError(f"--sharding must be one of {', '.join(SHARDINGS)}, found '{sharding}'")
    path = None if what is None else Path(what)
    if path is not None and path.is_dir() and not (path / "recipe.yaml").is_file():
        _show_scene(path, as_json)
        return
    cost = {"question": question_tokens, "answer": answer_tokens, "utilisation": utilisation, "processes": processes}
    facts = describe(
        what,
        overrides or [],
        cost=cost | {"sharding": sharding},
        gpu=gpu,
        whole=as_json,
        console=None if as_json else console,
    )
    if as_json:
        typer.echo(json.dumps(facts, indent=1, default=str))
        return
    show_facts(facts)


def describe(
    what: str | None,
    overrides: Sequence[str],
    *,
    cost: Mapping[str, Any] | None = None,
    gpu: str | None = None,
    whole: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Facts about this installation, a run or a recipe.

    Args:
        what: a recipe or a run folder; None = this installation.
        overrides: of a recipe.
        cost: fields of `stereopsis.training.cost.Assumptions`, for the prediction of what a recipe will cost.
        gpu: predict for this one alone.
        whole: a recipe's prediction as programs want it.
        console: says that libraries are loaded.

    Raises:
        StereopsisError: it is none of them.
    """
    from stereopsis.training.recipe import load_recipe
    from stereopsis.training.run_folder import RECIPE_FILE, check_finished

    if what is None:
        load_libraries(console, "stereopsis.training.train_run")
        from stereopsis.training.train_run import environment

        return environment()
    path = Path(what)
    if (path / RECIPE_FILE).is_file():
        check_finished(path)
        load_libraries(console, "stereopsis.training.train_run")
        from stereopsis.training.build import count_parameters
        from stereopsis.training.train_run import open_run

        recipe, model = open_run(path)
        return {
            "run": str(path),
            "recipe": recipe.name,
            "objectives": ", ".join(recipe.objectives.active()),
            **dataclasses.asdict(count_parameters(model)),
        }
    recipe = load_recipe(what, overrides)
    load_libraries(console, "stereopsis.training.cost")
    from stereopsis.training.cost import Assumptions, predict
    from stereopsis.training.cost import facts as cost_facts

    prediction = predict(recipe, Assumptions(**(cost or {})))
    if whole:
        return prediction.to_json()
    return {
        "recipe": recipe.name,
        "base": recipe.model.base,
        "objectives": ", ".join(recipe.objectives.active()),
        **cost_facts(prediction, gpu),
    }


def _show_scene(folder: Path, as_json: bool) -> None:
    """What a scene holds and what it can be used for; neither torch nor a colour image is needed."""
    from stereopsis.scenes.agreement import checked
    from stereopsis.scenes.formats import open_scene
    from stereopsis.scenes.prepare.inspect import plain_facts, scene_table, verdict

    scene = checked(open_scene(folder))
    if as_json:
        typer.echo(json.dumps(plain_facts(scene), indent=1, default=str))
        return
    console.print(scene_table(scene))
    show_verdict(verdict(scene))


def show_verdict(found: "Verdict") -> None:
    """One line that says whether a scene can be used, then what to mind."""
    colour = "green" if found.usable else "yellow"
    console.print(f"[bold {colour}]{escape(found.words)}[/bold {colour}]", highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"  note: {escape(note)}", highlight=False, soft_wrap=True)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        plain = value if isinstance(value, str) else json.dumps(value, default=str)
        table.add_row(f"[bold]{escape(key)}[/bold]", escape(plain))
    Console().print(table)
