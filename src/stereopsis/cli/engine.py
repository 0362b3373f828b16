"""The command line's part for training on several processes: where accelerate's configuration files lie."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog='Example: accelerate launch --config_file "$(stereopsis engine fsdp2)" --num_processes 8 -m stereopsis '
        "train ross3d-7b -o runs/ross3d"
    )(engine)


def engine(name: Annotated[str, typer.Argument(help="ddp, fsdp2, zero2 or zero3.")]) -> None:
    """Print the path of a configuration file for 'accelerate launch', to train on several GPUs."""
    from stereopsis.training.engines import find_engine

    typer.echo(find_engine(name).resolve())
