"""The command line's part for official checkpoints."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stereopsis.cli.startup import load_libraries
from stereopsis.errors import StereopsisError
from stereopsis.progress import phase, say

console = Console()
FORMS = ("stereopsis", "released")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis convert LLaVA-Video-7B-Qwen2 models/LLaVA-Video-7B-Qwen2   |   "
        "stereopsis convert ross3d-checkpoint models/ross3d   |   stereopsis convert llava-lora models/mine --base "
        "LLaVA-Video-7B-Qwen2   |   stereopsis convert runs/mine/model out --to released"
    )(convert)


def convert(
    source: Annotated[Path, typer.Argument(help="The checkpoint folder.")],
    output: Annotated[Path, typer.Argument(help="The folder to make.")],
    to: Annotated[str, typer.Option(help="'stereopsis': our form, which transformers opens too; 'released'.")] = (
        "stereopsis"
    ),
    vision_tower: Annotated[
        Path | None, typer.Option(help="SigLIP's folder, where its name in config.json is not a known one.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Adapters (LLaVA's LoRA folders): the checkpoint to merge them into.")
    ] = None,
    shard_gigabytes: Annotated[float, typer.Option(help="Size of the files written.")] = 2.0,
) -> None:
    """Convert official checkpoints (LLaVA-Video, Video-3D-LLM, Ross3D, 3DRS), and back; no weight is lost unseen."""
    if to not in FORMS:
        raise StereopsisError(f"--to must be one of {', '.join(FORMS)}, found '{to}'")
    if not 0 < shard_gigabytes < math.inf:
        raise StereopsisError(f"--shard-gigabytes must be positive, found {shard_gigabytes}")
    if not source.is_dir():
        raise StereopsisError(f"{source}: no such folder; give the folder of a checkpoint (downloads come first)")
    if to == "released" and (base is not None or vision_tower is not None):
        raise StereopsisError("--base and --vision-tower belong to official checkpoints, not to --to released")
    say(console, f"Converting {source} into {output}")
    load_libraries(console, "stereopsis.models.released")
    from stereopsis.models.released import convert_from_released, convert_to_released

    size = max(1, int(shard_gigabytes * 1024**3))
    with phase("Converting weights", console=console):
        if to == "released":
            told = convert_to_released(source, output, shard_bytes=size)
        else:
            told = convert_from_released(source, output, vision_tower=vision_tower, base=base, shard_bytes=size)
    counts = f"backbone {told.backbone}, grounding head {told.grounding}, training heads {told.heads}"
    console.print(f"{told.kind}; weights: {counts}", highlight=False)
    for name in told.dropped:
        console.print(f"  left out (the released model does not use it either): {name}", highlight=False)
    for name, what in told.added.items():
        console.print(f"  added {name}: {what}", highlight=False)
    for note in told.notes:
        console.print(f"  note: {note}", highlight=False, soft_wrap=True)
    console.print(f"Model: [bold]{output.resolve()}[/bold]", highlight=False, soft_wrap=True)
