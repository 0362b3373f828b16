"""The command line's first command: three small models trained, compared and explained."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from stereopsis.cli.startup import load_libraries
from stereopsis.errors import StereopsisError
from stereopsis.progress import phase, say

console = Console()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: stereopsis demo --output demo")(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Override a recipe key, e.g. -s training.steps=50; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of training.")] = 0,
    processes: Annotated[int, typer.Option(help="Models trained at the same time; 0 = one per CPU.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Train models anew that are there.")] = False,
) -> None:
    """Train three small models on procedural rooms, compare them, and write a report to look at.

    The three: one that never looks (the language prior), one trained on words and grounding alone, and one that is
    also supervised at its visual tokens (Ross3D's reconstructions, 3DRS's alignment).
    """
    from stereopsis.training.preflight import check_extras, check_places, told_sources
    from stereopsis.training.recipe import load_recipe

    cache = f"data.cache={json.dumps(str(output / 'data'))}"
    plan = load_recipe("stereopsis-tiny", [cache, *(overrides or [])])
    check_places(plan)
    check_extras(plan, "The demo", "report", sources=[*plan.data.sources, *plan.evaluation.sources])
    told = f"trained on {told_sources(plan.data.sources)}, asked about {told_sources(plan.evaluation.sources)}"
    say(console, f"Three small models, {told}; everything goes into {output}")
    load_libraries(console, "stereopsis.experiment", "stereopsis.report")
    from stereopsis.experiment import COMPARISON_FILE, demo_arms
    from stereopsis.experiment import compare as run_comparison
    from stereopsis.experiment.comparison import at_once
    from stereopsis.experiment.estimate import estimate
    from stereopsis.report import text_table, write_report

    if output.exists() and any(output.iterdir()) and not (output / COMPARISON_FILE).is_file():
        unfinished = (output / "data").is_dir()
        if not unfinished:
            raise StereopsisError(f"{output} is not empty and holds no earlier demo; choose another --output")
    arms = demo_arms(seed, [cache, *(overrides or [])])
    say(console, estimate(arms, processes or at_once(len(arms))).sentence)
    run_comparison(
        arms,
        output,
        title="Demo on procedural rooms",
        processes=processes,
        overwrite=overwrite,
        console=console,
    )
    with phase("Writing the report", console=console):
        page = write_report(output)
    console.print(text_table(output))
    console.print(
        f"\nReport (open it in a browser): [bold]{escape(str(page.resolve()))}[/bold]", highlight=False, soft_wrap=True
    )
