"""The command line's part for what a model imagines."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stereopsis.cli.startup import load_libraries
from stereopsis.errors import StereopsisError
from stereopsis.extras import require_extras
from stereopsis.progress import say
from stereopsis.reading import json_or

console = Console()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis reconstruct runs/first --rooms 4   |   "
        "stereopsis reconstruct runs/kitchen data/kitchen --seeds 3 --samples 8   |   "
        "stereopsis reconstruct runs/ross3d --rooms 20 --control runs/baseline --output pictures"
    )(reconstruct)


def reconstruct(
    model: Annotated[Path, typer.Argument(help="A run folder whose recipe has 'cross_view' or 'birds_eye'.")],
    scenes: Annotated[
        list[Path] | None, typer.Argument(help="Scenes, or folders of scenes, of any known layout.")
    ] = None,
    rooms: Annotated[int, typer.Option(min=0, help="So many unseen procedural rooms, too.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where pictures and figures go (default: in the run).")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 25,
    samples: Annotated[int, typer.Option(min=1, help="Draws of every target; their mean is measured, too.")] = 8,
    by_steps: Annotated[
        str, typer.Option("--by-steps", help="Also one draw at each of these numbers of steps; '' for none.")
    ] = "1,2,5,10,25,50",
    seeds: Annotated[int, typer.Option(min=1, help="So many masks: each hides other views.")] = 1,
    control: Annotated[
        list[Path] | None,
        typer.Option(help="A run for contrast: a denoiser is fitted to its frozen model. May be repeated."),
    ] = None,
    control_steps: Annotated[
        int | None, typer.Option(help="Fit the control's denoiser for so many steps (default: as many as the model's).")
    ] = None,
    mean_scenes: Annotated[int, typer.Option(min=1, help="Training scenes that the mean image averages.")] = 64,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Override a key of the run's recipe, e.g. -s teachers.latent=taef1:FOLDER."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the model's numbers: auto, bf16 or fp32.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace reconstructions that are there.")] = False,
) -> None:
    """Show what a model imagines: hidden views and the room from above, beside their targets and plain guesses.

    Writes a picture for every target, reconstruct.json with latent error, PSNR and SSIM, and index.html with both.
    """
    from stereopsis.training.preflight import check_scenes, told_sources
    from stereopsis.training.run_folder import check_finished
    from stereopsis.training.sections import SourceSection

    if samples < 1 or seeds < 1:
        raise StereopsisError("--samples and --seeds must be at least 1")
    counts = _counts(by_steps)
    for run in (model, *(control or ())):
        check_finished(run)
    sources = [SourceSection(path=path) for path in scenes or ()]
    check_scenes(sources, "scenes")
    sources += [SourceSection(rooms=rooms, split="test")] if rooms else []
    if not sources:
        raise StereopsisError("name the scenes to reconstruct (prepared scenes or captures), or so many --rooms")
    require_extras("Measuring pictures", "pictures")
    say(console, f"Reconstructing {told_sources(sources)} with {model}")
    load_libraries(console, "stereopsis.reconstruction.reconstruct_run")
    from stereopsis.reconstruction.pages import PAGE_FILE, RECONSTRUCT_FILE, Sampling
    from stereopsis.reconstruction.reconstruct_run import ReconstructRequest, execute

    folder = execute(
        ReconstructRequest(
            model=model,
            scenes=tuple(scenes or ()),
            rooms=rooms,
            output=output,
            sampling=Sampling(steps=steps, samples=samples, by_steps=counts, seeds=tuple(range(seeds))),
            controls=tuple(control or ()),
            control_steps=control_steps,
            mean_scenes=mean_scenes,
            overrides=tuple(overrides or ()),
            overwrite=overwrite,
            precision=precision,
        ),
        console=console,
    )
    averages = json_or(folder / RECONSTRUCT_FILE, StereopsisError, "run it again")["averages"]
    for kind, rows in averages.items():
        table = Table("made by", "latent MSE", "PSNR, dB", "SSIM", "targets", title=kind.replace("_", " "))
        for name, row in rows.items():
            table.add_row(
                escape(name),
                f"{row['latent_mse']:.3f}",
                f"{row['psnr']:.2f}",
                f"{row['ssim']:.3f}",
                str(row["targets"]),
            )
        console.print(table)
    page = str((folder / PAGE_FILE).resolve())
    console.print(f"Pictures: [bold]{escape(page)}[/bold]", highlight=False, soft_wrap=True)


def _counts(text: str) -> tuple[int, ...]:
    """Numbers with commas between.

    Raises:
        StereopsisError: something else.
    """
    try:
        counts = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise StereopsisError(f"--by-steps '{text}' must be whole numbers with commas between, e.g. 1,5,25") from error
    if any(not 1 <= count <= 1000 for count in counts):
        raise StereopsisError(f"--by-steps '{text}': a number of sampling steps must lie in 1..1000")
    return counts
