"""From a capture's list of frames to a scene, under the policy for bad frames: what the small readers share."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_policy, collect
from stereopsis.scenes.conventions import Conventions
from stereopsis.scenes.readers.listed_files import frame_names, given_name
from stereopsis.scenes.scene import Frame, Scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """What happens to bad frames; see `stereopsis.scenes.bad_frames`."""

    on_bad_frame: OnBadFrame = "raise"
    max_bad_fraction: float | int = MAX_BAD_FRACTION

    def __post_init__(self) -> None:
        check_policy(self.on_bad_frame)


def capture_scene(
    path: Path,
    format: str,
    files: Sequence[str],
    build: Callable[[int, str], Frame],
    conventions: Conventions,
    policy: Policy,
    *,
    scene_id: str | None = None,
    **facts: Any,
) -> Scene:
    """Build a scene of frames that are named after their files.

    Args:
        path: the capture.
        format: its layout's name.
        files: the colour images' names, in order.
        build: makes the frame of this number and name; a FrameError says that it is bad.
        conventions: of poses and depth.
        policy: for bad frames.
        scene_id: where it is not the folder's name.
        facts: more for the provenance.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: too many bad frames.
    """
    names = frame_names(files)
    collected = collect(
        str(path),
        names,
        lambda index: build(index, names[index]),
        on_bad_frame=policy.on_bad_frame,
        max_bad_fraction=policy.max_bad_fraction,
    )
    return Scene(
        id=scene_id or given_name(path),
        frames=collected.items,
        provenance={
            "format": format,
            "path": str(path),
            "skipped": dict(collected.skipped),
            **conventions.record(),
            **facts,
        },
    )
