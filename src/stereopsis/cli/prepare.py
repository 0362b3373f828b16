"""The command line's part for scenes: captures, procedural rooms, videos and photos become prepared scenes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.markup import escape

from stereopsis.cli import cache as cache_command
from stereopsis.cli import capture_options, info
from stereopsis.cli import prepare_options as said
from stereopsis.errors import SceneError
from stereopsis.reading import read_text

if TYPE_CHECKING:
    from stereopsis.scenes.prepare import PrepareSettings, Report, Source
    from stereopsis.scenes.scene import Scene

console = Console()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: stereopsis prepare rooms --count 200 --output data/rooms   |   "
        "stereopsis prepare ~/scans/kitchen -o data/mine --inspect   |   "
        "stereopsis prepare ~/scannet/scans -o data/scannet --workers 8 --skip-bad-frames   |   "
        "stereopsis prepare kitchen.mp4 -o data/mine --geometry colmap   |   "
        "stereopsis prepare data/mine/kitchen --inspect"
    )(prepare)


def prepare(
    source: said.Source,
    output: said.Output = None,
    format: said.Format = None,
    count: said.Count = 100,
    split: said.Split = "train",
    workers: said.Workers = 0,
    ray: said.Ray = None,
    views: said.Views = None,
    coverage: said.Coverage = None,
    proposals: said.Proposals = "geometry",
    surface: said.SurfaceKind = "auto",
    birdseye: said.Birdseye = 432,
    depth_scale: capture_options.DepthScale = None,
    axes: capture_options.Axes = None,
    pose: capture_options.Pose = None,
    quaternion: capture_options.Quaternion = None,
    pose_unit: capture_options.PoseUnit = None,
    min_agreement: capture_options.MinAgreement = None,
    skip_bad_frames: said.SkipBadFrames = False,
    max_bad_fraction: capture_options.MaxBadFraction = 0.2,
    geometry: said.Geometry = None,
    every: said.Every = None,
    frames: said.Frames = None,
    known_distance: said.KnownDistance = None,
    between: said.Between = None,
    camera_height: said.CameraHeight = None,
    overwrite: said.Overwrite = False,
    max_failed: said.MaxFailed = 0.0,
    inspect: said.Inspect = False,
    teacher: said.Teacher = None,
    latent: said.Latent = None,
    student: said.Student = "stereopsis-tiny",
    cache: said.Cache = said.CACHE,
    as_json: said.AsJson = False,
) -> None:
    """Turn captures (or procedural rooms, videos, photos) into prepared scenes: checked, upright, seen from above.

    Checked also means: what one view measures, the others must see there. The share that agrees is printed.

    With --geometry, cameras and depth are estimated from a video or photos alone; the scale is then known only where
    the provider, --known-distance or --camera-height tells it.

    Start it again to go on: what is there already is kept. One bad scene does not stop the others.
    """
    from stereopsis.scenes.prepare import PrepareSettings, find_captures

    settings = PrepareSettings(
        on_bad_frame="skip" if skip_bad_frames else "raise",
        max_bad_fraction=max_bad_fraction,
        options=capture_options.read_options(depth_scale, axes, pose, quaternion, pose_unit),
        min_agreement=min_agreement,
        views=views,
        selection="uniform" if coverage is None else "coverage",
        coverage=coverage,
        surface=cast(Any, surface),  # checked by the settings
        birdseye_size=birdseye,
        proposals=proposals,
    )
    estimated = said.estimated_scene(
        source,
        geometry,
        every=every,
        frames=frames,
        known_distance=known_distance,
        between=between,
        camera_height=camera_height,
    )
    if output is None:
        if not inspect or source == "rooms" or estimated is not None:
            raise typer.BadParameter("name the folder for the prepared scenes with --output, or --inspect a capture")
        _only_inspect([capture.load(settings) for capture in find_captures(source, format=format)[:8]], as_json)
        return
    if estimated is not None:
        sources: Sequence[Source] = [estimated]
    else:
        sources = _rooms(split, count) if source == "rooms" else find_captures(source, format=format)
    if teacher or latent:
        cache_command.check_named(teacher or [], latent or [], student)
    report = _prepared(sources, output, settings, workers, ray, overwrite=overwrite, as_json=as_json, inspect=inspect)
    if (teacher or latent) and report.folders:
        cache_command.answer_prepared(output, teacher or [], latent or [], student, cache, overwrite=overwrite)
    if report.failed_share > max_failed:
        raise typer.Exit(1)


def _rooms(split: str, count: int) -> "list[Source]":
    from stereopsis.scenes.prepare import Room
    from stereopsis.scenes.rooms.language import split_seeds

    return [Room(seed=seed) for seed in split_seeds(split, count)]


def _only_inspect(scenes: "Sequence[Scene]", as_json: bool) -> None:
    from stereopsis.scenes.agreement import checked
    from stereopsis.scenes.prepare import plain_facts

    scenes = [checked(scene) for scene in scenes]
    if as_json:
        typer.echo(json.dumps([plain_facts(scene) for scene in scenes], indent=1, default=str))
        return
    for scene in scenes:
        _inspect(scene, Path.cwd())


def _prepared(
    sources: "Sequence[Source]",
    output: Path,
    settings: "PrepareSettings",
    workers: int,
    ray: str | None,
    *,
    overwrite: bool,
    as_json: bool,
    inspect: bool,
) -> "Report":
    """Prepare all, and say what became of them."""
    from stereopsis.scenes.prepare import SUMMARY_FILE
    from stereopsis.scenes.prepare import prepare as prepare_all
    from stereopsis.scenes.stored import read_scene

    shown = None if as_json else console
    report = prepare_all(sources, output, settings, workers=workers, ray=ray, overwrite=overwrite, console=shown)
    if len(sources) == 1 and report.count("failed"):
        raise SceneError(report.outcomes[0].reason)
    if as_json:
        typer.echo(read_text(output / SUMMARY_FILE), nl=False)
        return report
    _tell(report, output)
    for folder in report.folders[:8] if inspect else []:
        _inspect(read_scene(folder), output)
    return report


def _tell(report: "Report", output: Path) -> None:
    """What became of the sources, for people."""
    if any(outcome.noteworthy for outcome in report.outcomes):
        console.print(report.table())
    for line in (*report.agreement(), report.verdict()):
        if line:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    _show(f"{report.totals()}; scenes and prepare.json are in", output)


def _inspect(scene: "Scene", folder: Path) -> None:
    from stereopsis.scenes.prepare import draw_scene, scene_table
    from stereopsis.scenes.prepare.inspect import verdict

    console.print(scene_table(scene))
    info.show_verdict(verdict(scene))
    for path in draw_scene(scene, folder):
        _show("Drawn: ", path)


def _show(what: str, path: Path) -> None:
    """Name a place on disk in one line, however narrow the terminal, so that it can be copied."""
    console.print(f"{what} [bold]{escape(str(path.resolve()))}[/bold]", highlight=False, soft_wrap=True)
