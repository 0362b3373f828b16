"""What is done to a source on its way to a prepared scene; kept with the scene, so that settings never mix."""

import dataclasses
from typing import Any, Literal, get_args

from stereopsis.errors import SceneError
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame
from stereopsis.scenes.conventions import ReadOptions
from stereopsis.scenes.selection import ViewSelection

Surface = Literal["auto", "mesh", "fused", "depth"]

CAPTURE_BIRDSEYE_SIZE = 432
"""Side of a capture's bird's-eye view, pixels, as in Ross3D."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How sources are prepared.

    Attributes:
        on_bad_frame: "raise" refuses a scene at its first bad frame; "skip" leaves bad frames out, counted.
        max_bad_fraction: the share of bad frames at which "skip" refuses the scene, too.
        options: what a person says of the sources' poses and depth; goes before what layout and files say.
        min_agreement: refuse a scene whose depth images agree less through its poses (see
            `stereopsis.scenes.agreement`); None refuses those that one of the usual mistakes explains, 0 none.
        views: keep at most so many frames; None keeps all, or as many as ``coverage`` needs.
        selection: which frames are kept, "uniform" or "coverage"; see `stereopsis.scenes.selection.select_views`.
        coverage: with "coverage", stop at this share of the room's voxels; None goes on to ``views``.
        surface: what the view from above shows: "mesh", the mesh that the source brings (ScanNet's, a 3D-FRONT
            room's); "fused", a mesh fused from all depth images (extra ``fusion``); "depth", the depth images' points;
            "auto", the mesh where there is one, else the points.
        birdseye_size: side of the view from above, pixels.
        birdseye_fill: holes between the splatted points are filled up to this radius, pixels; recorded.
        proposals: "geometry" gives scenes with neither objects nor proposals candidate boxes from their depth images;
            "none" does not; anything else is a detector's file (see `stereopsis.scenes.detections`).

    Raises:
        SceneError: ``coverage`` without the selection "coverage", or no views.
    """

    on_bad_frame: OnBadFrame = "raise"
    max_bad_fraction: float = MAX_BAD_FRACTION
    options: ReadOptions = ReadOptions()  # noqa: RUF009
    min_agreement: float | int | None = None
    views: int | None = None
    selection: ViewSelection = "uniform"
    coverage: float | None = None
    surface: Surface = "auto"
    birdseye_size: int = CAPTURE_BIRDSEYE_SIZE
    birdseye_fill: float = 0.0
    proposals: str = "geometry"

    def __post_init__(self) -> None:
        for name in ("max_bad_fraction", "min_agreement"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SceneError(f"{name}={value}: expected a share between 0 and 1; correct it")
        if self.coverage is not None and (self.selection != "coverage" or not 0 < self.coverage <= 1):
            raise SceneError(
                f"coverage={self.coverage}: expected a share above 0, up to 1, with selection='coverage'; correct it"
            )
        if self.views is not None and self.views < 1:
            raise SceneError(f"views={self.views}: expected at least one view, or None for all")
        if self.surface not in get_args(Surface):
            raise SceneError(f"surface '{self.surface}' is unknown; choose one of {', '.join(get_args(Surface))}")
        if self.birdseye_size < 1:
            raise SceneError(f"birdseye_size={self.birdseye_size}: expected at least one pixel")

    def record(self) -> dict[str, Any]:
        """As plain values, to be kept with a scene; what nobody said is left out."""
        record = dataclasses.asdict(self)
        del record["options"]
        if self.min_agreement is None:
            del record["min_agreement"]
        return {**record, **self.options.said()}
