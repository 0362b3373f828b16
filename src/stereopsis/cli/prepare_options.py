"""What may be said to ``stereopsis prepare``, besides how a capture's poses and depth are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stereopsis.cli import cache as cache_command

if TYPE_CHECKING:
    from stereopsis.providers.estimated import EstimatedScene

Source = Annotated[
    str,
    typer.Argument(
        help="'rooms' for procedural rooms, or a capture, or a folder of captures; with --geometry a video or photos."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where the prepared scenes go.")]
Format = Annotated[str | None, typer.Option(help="The captures' layout; found out if not given.")]
Count = Annotated[int, typer.Option(min=1, help="Rooms: how many.")]
Split = Annotated[str, typer.Option(help="Rooms: train, val or test (disjoint seeds).")]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0 = one per CPU.")]
Ray = Annotated[str | None, typer.Option(help="Work on Ray instead: 'local' or a cluster's address.")]
Views = Annotated[int | None, typer.Option(min=1, help="Captures: keep at most so many frames.")]
Coverage = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Captures: keep frames that together see this share of the room, e.g. 0.95."),
]
Proposals = Annotated[
    str, typer.Option(help="Candidate boxes where none are given: geometry, none, or a detector's file.")
]
SurfaceKind = Annotated[
    str, typer.Option(help="Seen from above: mesh, fused, depth, or auto (the source's mesh where it has one).")
]
Birdseye = Annotated[int, typer.Option(min=1, help="Captures: side of the view from above, pixels.")]
SkipBadFrames = Annotated[bool, typer.Option(help="Leave unusable frames out, counted.")]
Overwrite = Annotated[bool, typer.Option(help="Make scenes anew that are there.")]
MaxFailed = Annotated[float, typer.Option(min=0, max=1, help="Exit with 1 where a larger share of the scenes failed.")]
Inspect = Annotated[bool, typer.Option(help="Print and draw the scenes (the first 8); alone, only that.")]
Teacher = Annotated[
    list[str] | None, typer.Option(help="Keep this feature teacher's answers, e.g. point_map; may be repeated.")
]
Latent = Annotated[
    list[str] | None, typer.Option(help="Keep this latent teacher's answers, e.g. rooms; may be repeated.")
]
Student = Annotated[str, typer.Option(help="Teachers: the recipe whose views, picture size and grid they answer for.")]
Cache = Annotated[
    Path, typer.Option(help="Teachers: where their answers go.", show_default="~/.cache/stereopsis/teachers")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print plain data, unrounded, and nothing else.")]
Geometry = Annotated[
    str | None,
    typer.Option(help="Videos, photos: who estimates cameras and depth, e.g. colmap; two as CAMERAS+DEPTH."),
]
Every = Annotated[float | None, typer.Option(help="Videos: seconds between the frames that are looked at.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Videos, photos: look at so many, evenly spread (150).")]
KnownDistance = Annotated[
    float | None, typer.Option(help="Videos, photos: metres between the two ends that --between names.")
]
Between = Annotated[
    tuple[str, str] | None,
    typer.Option(help="Its ends: PICTURE (where it was taken) or PICTURE:COLUMN,ROW (what it shows there)."),
]
CameraHeight = Annotated[
    float | None, typer.Option(help="Videos, photos: metres from floor to camera, where nothing else tells the scale.")
]
CACHE = cache_command.DEFAULT


def estimated_scene(
    source: str,
    geometry: str | None,
    *,
    every: float | None,
    frames: int | None,
    known_distance: float | None,
    between: tuple[str, str] | None,
    camera_height: float | None,
) -> "EstimatedScene | None":
    """What was said of a video or photos; None where --geometry was not said.

    Raises:
        BadParameter: options that do not go together.
        SceneError: no such provider, or a number out of range.
        MissingExtraError: the provider is not installed.
    """
    if geometry is None:
        said = {"--every": every, "--frames": frames, "--known-distance": known_distance, "--between": between}
        for name, value in {**said, "--camera-height": camera_height}.items():
            if value is not None:
                raise typer.BadParameter(f"{name} is for videos and photos: add --geometry, e.g. --geometry colmap")
        return None
    if (known_distance is None) != (between is None):
        raise typer.BadParameter("--known-distance and --between belong together: a length, and its two ends")
    from stereopsis.providers.estimated import EstimatedScene
    from stereopsis.providers.pictures import DEFAULT_FRAMES, Choice
    from stereopsis.providers.registry import make_provider
    from stereopsis.providers.scale import KnownDistance as Known

    make_provider(geometry).check()
    known = None
    if known_distance is not None and between is not None:
        known = Known(metres=known_distance, ends=between)
    choice = Choice(frames=DEFAULT_FRAMES if frames is None else frames, every=every)
    return EstimatedScene(path=Path(source), geometry=geometry, choice=choice, known=known, camera_height=camera_height)
