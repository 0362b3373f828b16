"""Plain videos: one scene per file, every frame a view, colour alone.

Nothing is known of the camera: poses are the identity, the field of view is assumed, there is no depth, so models
that look at such scenes take ``positions: none``. Frames are decoded when they are asked for.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stereopsis.errors import FrameError, MissingExtraError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = "*.mp4 (videos, a scene each, also in folders of their data sets)"
SUFFIX = ".mp4"
ASSUMED_FOV_DEGREES = 60.0


def is_video(path: Path) -> bool:
    """Whether it is a video, or a folder that holds some."""
    return path.suffix.lower() == SUFFIX if path.is_file() else bool(video_paths(path))


def video_paths(path: Path) -> list[Path]:
    """The videos directly in a folder, sorted, or the file itself."""
    if path.is_file():
        return [path]
    return sorted(each for each in path.iterdir() if each.suffix.lower() == SUFFIX) if path.is_dir() else []


def video_id(path: Path) -> str:
    """What the scene is called: as the file."""
    return path.stem


def read_video(
    path: str | Path, *, on_bad_frame: OnBadFrame = "raise", max_bad_fraction: float = MAX_BAD_FRACTION
) -> Scene:
    """A video's frames in the order in which they are shown, without decoding them.

    Args:
        path: the file.
        on_bad_frame: for the interface's sake; a frame that does not decode is an error when it is asked for.
        max_bad_fraction: likewise.

    Raises:
        SceneError: there is no such file, it is no video, or it has no frames.
        MissingExtraError: PyAV is not installed.
    """
    path = Path(path)
    with _opened(path) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
    if not times or not width or not height:
        raise SceneError(f"{path}: holds no frames that can be shown; is the download complete?")
    focal = width / (2 * math.tan(math.radians(ASSUMED_FOV_DEGREES) / 2))
    intrinsics = Intrinsics(fx=focal, fy=focal, cx=width / 2, cy=height / 2, width=width, height=height)
    frames = tuple(
        Frame(
            name=f"frame-{index:06d}",
            T_world_camera=np.eye(4),
            intrinsics=intrinsics,
            load_colour=functools.partial(_decode, path, index, time),
        )
        for index, time in enumerate(times)
    )
    known = {"format": "video", "path": str(path), "poses": "unknown", "field_of_view": "assumed"}
    return Scene(id=video_id(path), frames=frames, provenance=known)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", "decoding videos") from error
    if not path.is_file():
        raise SceneError(f"{path}: there is no such video; check the path")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SceneError(f"{path}: holds no pictures (no video stream); is this the file?")
            yield container
    except av.FFmpegError as error:
        raise SceneError(f"{path}: cannot be read as a video ({error}); download it again") from error


def _decode(path: Path, index: int, time: int) -> UInt8[np.ndarray, "height width 3"]:
    """The frame that is shown at a time (in the stream's units).

    From the key frame before it on; where the file leads to one that comes too late for it (frames may depend on later
    ones), from one second earlier, from ten, from the beginning.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        second = round(1 / stream.time_base)
        for start in (time, time - second, time - 10 * second, 0):
            container.seek(max(start, 0), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts == time:
                    colour: np.ndarray = frame.to_ndarray(format="rgb24")
                    return colour
                if frame.pts is not None and frame.pts > time:
                    break
    raise FrameError(f"{path}: frame {index} cannot be decoded; the file may be cut off, download it again")
