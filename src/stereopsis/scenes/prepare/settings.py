"""What is done to a source on its way to a prepared scene; kept with the scene, so that settings never mix."""

import dataclasses

from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame

CAPTURE_BIRDSEYE_SIZE = 432
"""Side of a capture's bird's-eye view, pixels, as in Ross3D."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How sources are prepared.

    Attributes:
        on_bad_frame: "raise" refuses a scene at its first bad frame; "skip" leaves bad frames out, counted.
        max_bad_fraction: the share of bad frames at which "skip" refuses the scene, too.
        birdseye_size: side of the view from above, pixels.
        birdseye_fill: holes between the splatted points are filled up to this radius, pixels; recorded.
    """

    on_bad_frame: OnBadFrame = "raise"
    max_bad_fraction: float = MAX_BAD_FRACTION
    birdseye_size: int = CAPTURE_BIRDSEYE_SIZE
    birdseye_fill: float = 0.0
