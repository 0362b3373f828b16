"""Frames of a video file by their number, for captures that store colour as a film."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stereopsis.errors import FrameError, MissingExtraError


class _Film:
    """A video that is decoded from front to back and begun again when an earlier frame is wanted.

    Phones record at changing rates, so that a frame's number cannot be had from its time, and seeking would miss.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, -1
        self._frames: Iterator[Any] = iter(())
        self.last: np.ndarray | None = None

    def at(self, number: int) -> np.ndarray:
        if number < self.number or self.number < 0:
            self._frames, self.number = _decoded(self.path), -1
        while self.number < number:
            frame = next(self._frames, None)
            if frame is None:
                raise FrameError(
                    f"{self.path}: ends after {self.number + 1} frames, but number {number} is asked for; restore the "
                    "recording, or leave the frame out with on_bad_frame='skip'"
                )
            self.number += 1
            if self.number == number:
                self.last = frame.to_ndarray(format="rgb24")
        assert self.last is not None
        return self.last


def _decoded(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", f"Reading {path.name}") from error
    try:
        with av.open(str(path)) as film:
            yield from film.decode(video=0)
    except (OSError, ValueError, IndexError) as error:  # av's own errors are OSErrors
        raise FrameError(
            f"{path}: cannot be decoded as a video ({error}); copy the recording again, or extract its frames"
        ) from error


@functools.lru_cache(maxsize=2)
def _film(path: Path) -> _Film:
    return _Film(path)


def read_video_frame(path: Path, number: int) -> UInt8[np.ndarray, "height width 3"]:
    """Decode one frame; quick where frames are asked for in order.

    Args:
        path: the video file.
        number: of the frame, from 0.

    Raises:
        FrameError: the file cannot be decoded, or has fewer frames.
        MissingExtraError: PyAV is not installed.
    """
    return _film(path).at(number).copy()


def video_size(path: Path) -> tuple[int, int]:
    """(width, height) of a video's frames.

    Raises:
        FrameError: the file is absent or cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    if not path.is_file():
        raise FrameError(f"{path}: the video does not exist; expected the recording's; restore the file")
    height, width = read_video_frame(path, 0).shape[:2]
    return width, height
