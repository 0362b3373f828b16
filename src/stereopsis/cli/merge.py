"""The command line's part that turns adapters into a plain model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stereopsis.cli.startup import load_libraries
from stereopsis.errors import StereopsisError
from stereopsis.progress import phase

console = Console()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: stereopsis merge runs/lora models/mine")(merge)


def merge(
    source: Annotated[Path, typer.Argument(help="A run of a recipe with 'model.lora', or its model folder.")],
    output: Annotated[Path, typer.Argument(help="The folder to make.")],
) -> None:
    """Add a run's low-rank adapters to the weights of their base: a folder that needs neither peft nor the base.

    Evaluation does the same in memory, so that nothing has to be merged before it.
    """
    if not source.is_dir():
        raise StereopsisError(f"there is no folder {source}; name a run of a recipe with 'model.lora'")
    load_libraries(console, "stereopsis.models.lora", "stereopsis.models.storage")
    from stereopsis.files import replacing_folder
    from stereopsis.models.lora import base_of
    from stereopsis.models.storage import load_model, save_model

    folder = source / "model" if (source / "model").is_dir() else source
    if base_of(folder) is None:
        raise StereopsisError(f"{folder} holds no adapters (no adapter_config.json); there is nothing to merge")
    if output.exists() and any(output.iterdir()):
        raise StereopsisError(f"{output} is not empty; choose another folder")
    with phase("Adding adapters to their base", console=console), replacing_folder(output) as partial:
        save_model(load_model(folder), partial)
    console.print(f"Model: [bold]{output.resolve()}[/bold]", highlight=False, soft_wrap=True)
