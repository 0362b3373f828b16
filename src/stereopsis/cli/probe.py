"""The command line's part for the 3D-awareness probe."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stereopsis.cli.startup import load_libraries
from stereopsis.errors import StereopsisError
from stereopsis.extras import require_extras
from stereopsis.files import cache_folder
from stereopsis.precision import ComputePrecision, choose_precision
from stereopsis.progress import say, tracked

if TYPE_CHECKING:
    from stereopsis.probing.subjects import ProbeSubject
    from stereopsis.training.sections import SourceSection

console = Console()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis probe runs/first data/mine -o probes/first   |   stereopsis probe tiny --rooms 20 "
        "--voxel 0.4 -o probes/base   |   stereopsis probe tiny --rooms 20 --teacher rooms_geometry -o probes/teacher "
        "  |   stereopsis probe runs/first --rooms 50 --evaluation runs/first/evaluation -o probes/first"
    )(probe)


def probe(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, or 'tiny' (the shipped base).")],
    scenes: Annotated[list[Path] | None, typer.Argument(help="Scenes, or folders of scenes.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for probe.json, probe.html, sheets.")] = Path(
        "probe"
    ),
    rooms: Annotated[int, typer.Option(min=0, help="So many unseen test rooms (instead of scenes).")] = 0,
    teacher: Annotated[
        str | None, typer.Option(help="Probe this feature teacher on the model's views and grid instead.")
    ] = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers: 0 = input, -1 = last, e.g. 0,3,-1.")] = "all",
    voxel: Annotated[float, typer.Option(help="Edge of a spot, metres; coarse tokens want larger ones.")] = 0.1,
    views: Annotated[int, typer.Option(min=1, help="Views per scene.")] = 8,
    positions: Annotated[
        str | None, typer.Option(help="depth, noisy or none, instead of the model's: none tells what it sees itself.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="An evaluation folder on the same scenes: quartiles and correlations.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="Other probes with evaluations, for the scatter over models.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the model's numbers: auto, bf16 or fp32.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder for generated rooms (default: ~/.cache/stereopsis/rooms).")
    ] = None,
    sheets: Annotated[int, typer.Option(min=0, help="Draw and make clickable so many scenes.")] = 3,
) -> None:
    """How much do visual tokens know of 3D? Correspondence across views layer by layer, retrieval, linear readouts."""
    from stereopsis.training.preflight import check_scenes, depth_of, require_depth, told_sources
    from stereopsis.training.sections import SourceSection

    if bool(scenes) == bool(rooms):
        raise StereopsisError("name scenes to probe, or --rooms N for unseen procedural rooms (one of the two)")
    sources = [SourceSection(path=path) for path in scenes or []] or [SourceSection(rooms=rooms, split="test")]
    if not 0 < voxel < math.inf:
        raise StereopsisError(f"--voxel must be a positive length in metres, found {voxel}")
    folder, chosen = _model_folder(model), _layers(layers)
    require_depth(chosen or (), depth_of(folder), "--layers")
    for option, paths in (("--evaluation", [evaluation] if evaluation else []), ("--against", against or [])):
        for path in paths:
            if not path.exists():
                raise StereopsisError(f"{option}: there is no {path}; name what an evaluation or a probe wrote")
    check_scenes(sources, "scenes")
    require_extras("The probe's page", "report")
    say(console, f"Probing {model if teacher is None else teacher} on {told_sources(sources)}")
    load_libraries(console, "stereopsis.probing", "stereopsis.report.probe_page")
    from stereopsis.probing import ProbeSettings, probe_scenes, write_probe
    from stereopsis.probing.report import add_downstream, add_models
    from stereopsis.report.probe_page import write_probe_page

    computed = choose_precision(precision)
    say(console, computed.sentence)
    subject = _subject(model, folder, teacher, chosen, views, positions, computed)
    found = _scenes(sources, cache or cache_folder() / "rooms")
    result = probe_scenes(subject, found, ProbeSettings(voxel=voxel), console=console)
    if evaluation is not None:
        add_downstream(result, evaluation)
    if against:
        add_models(result, against)
    drawn = _sheets(subject, found[:sheets], output, voxel)
    result["precision"] = computed.record()
    write_probe(output, result)
    page = write_probe_page(output, result, drawn)
    console.print(_table(result))
    console.print(f"Page: [bold]{page.resolve()}[/bold]", highlight=False, soft_wrap=True)


def _model_folder(model: str) -> Path:
    """Where the model lies that is to be probed.

    Raises:
        StereopsisError: there is none.
    """
    from stereopsis.training.run_folder import MODEL_FOLDER, RECIPE_FILE, TINY_BASE, check_finished

    folder = TINY_BASE if model == "tiny" else Path(model)
    if (folder / RECIPE_FILE).is_file():
        check_finished(folder)
        return folder / MODEL_FOLDER
    if not (folder / "config.json").is_file():
        raise StereopsisError(
            f"{folder} holds neither a run (recipe.yaml) nor a model (config.json); name a folder that 'stereopsis "
            "train' wrote, a model folder, or 'tiny'"
        )
    return folder


def _layers(layers: str) -> tuple[int, ...] | None:
    try:
        return None if layers == "all" else tuple(int(part) for part in layers.split(","))
    except ValueError as error:
        raise StereopsisError(f"--layers must be 'all' or numbers with commas between, found '{layers}'") from error


def _subject(
    model: str,
    folder: Path,
    teacher: str | None,
    layers: tuple[int, ...] | None,
    views: int,
    positions: str | None,
    precision: ComputePrecision,
) -> "ProbeSubject":
    from stereopsis.models.storage import load_model
    from stereopsis.probing.subjects import ModelSubject, TeacherSubject
    from stereopsis.teachers.feature_teachers import load_feature_teacher

    changes: dict[str, Any] = {} if positions is None else {"positions": positions}
    opened = load_model(folder, dtype=precision.dtype, **changes)
    config = opened.pack_config(views=views)
    if teacher is not None:
        return TeacherSubject(load_feature_teacher(teacher), config)
    return ModelSubject(opened, config, layers=layers, name=model)


def _scenes(sources: "list[SourceSection]", cache: Path) -> list[Any]:
    from stereopsis.training.sources import scenes_of

    return [scene for source in sources for scene in scenes_of(source, cache, console=console)]


def _sheets(subject: "ProbeSubject", scenes: list[Any], output: Path, voxel: float) -> list[Any]:
    """Similarity sheets beside the page, and what the page makes clickable."""
    from PIL import Image

    from stereopsis.report.similarity import clickable, similarity_sheet, spread_picks

    drawn = []
    output.mkdir(parents=True, exist_ok=True)
    for scene in tracked(scenes, "Drawing similarities", "scenes", console=console):
        seen = subject.features(scene)
        features = list(seen.layers.values())[-1]
        picks = spread_picks(seen)
        if picks:
            sheet = similarity_sheet(seen, features, picks)
            Image.fromarray(sheet).save(output / f"similarity-{scene.id.replace('/', '_')}.png")
        drawn.append(clickable(seen, features, voxel))
    return drawn


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"{result['subject']['name']}, voxel {result['settings']['voxel']} m")
    ks = result["settings"]["ks"]
    for column in ("layer", "score", "baseline", "gap", *(f"R@{k}" for k in ks), "depth R²", "normal R²"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name, layer in result["layers"].items():
        figures = [layer["score"], layer["random"], layer["gap"]]
        recalls = [layer["recall"][str(k)] for k in ks]
        readouts = [layer["readouts"].get(quantity) for quantity in ("depth", "normal")]
        table.add_row(
            name,
            *(f"{f['mean']:.3f}" if f else "-" for f in figures),
            *(f"{100 * r['mean']:.1f}" if r else "-" for r in recalls),
            *(f"{r['r2']:.2f}" if r else "-" for r in readouts),
        )
    return table
