"""Pictures from a phone: the sharp frames of a video, evenly in time, or a folder of photos, the right way up.

A video is decoded once, from front to back. Its frames are grouped by the times at which they are shown (phones record
at changing rates), and of each group the sharpest is kept. The rotation that the file asks for, and that photos carry
in their EXIF data, is applied, so that no camera lies on its side. Ten-bit and HDR material becomes 8 bits without
tone mapping.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from stereopsis.errors import FrameError, MissingExtraError, SceneError
from stereopsis.providers.provider import Picture
from stereopsis.reading import check_plain, open_image
from stereopsis.scenes.images import decode_colour, encode_colour

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v")
HEIC_SUFFIXES = (".heic", ".heif")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", *HEIC_SUFFIXES)
DEFAULT_FRAMES = 150
LONG_SIDE = 960
"""Pictures are scaled down to so many pixels along the longer side: enough for matching, and a tenth of a phone's."""
FLAT = 2.0
"""Standard deviation of the grey levels below which a picture shows nothing (0..255)."""
STILL = 0.75
"""Mean difference of two frames' grey levels below which nothing has moved."""
_COLUMNS = 240
_MIN_SHARP = 0.25
_FILM_MM = 36.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which frames of a video are looked at.

    Attributes:
        frames: at most so many, evenly spread in time.
        every: seconds between them instead; None: as ``frames`` says.
        long_side: pixels along the longer side, at most.
        keep_cut: use what can be decoded of a video that breaks off.
    """

    frames: int = DEFAULT_FRAMES
    every: float | None = None
    long_side: int = LONG_SIDE
    keep_cut: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1 or self.long_side < 16:
            raise SceneError(f"frames={self.frames}, long_side={self.long_side}: expected 1 and 16 or more")
        if self.every is not None and not (math.isfinite(self.every) and self.every > 0):
            raise SceneError(f"every={self.every}: expected seconds above 0, e.g. 0.5")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """What was found to look at.

    Attributes:
        name: of the file or folder, without suffix.
        pictures: in the order in which they were taken (photos: of their names).
        in_order: whether neighbours were taken one after another.
        left_out: {name: why it is not among them}.
        notes: what a person should know, as plain values.
    """

    name: str
    pictures: tuple[Picture, ...]
    in_order: bool
    left_out: dict[str, str]
    notes: dict[str, object]


def photo_paths(folder: Path) -> list[Path]:
    """The photos directly in a folder, in the order in which people count."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and not p.name.startswith(".")]
    return sorted(found, key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])


def read_footage(path: Path, choice: Choice) -> Footage:
    """The pictures of a video or of a folder of photos.

    Args:
        path: the file or folder.
        choice: which of them.

    Raises:
        SceneError: neither, cut off, or nothing to see in it.
        MissingExtraError: PyAV (videos) or pillow-heif (HEIC photos) is not installed.
    """
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _video(path, choice)
    if path.is_dir() and photo_paths(path):
        return _photos(path, choice)
    there = "there is no such file or folder" if not path.exists() else "holds neither a video nor photos"
    raise SceneError(
        f"{path}: {there}; expected a video ({', '.join(VIDEO_SUFFIXES)}) or a folder of photos "
        f"({', '.join(PHOTO_SUFFIXES)}) itself, as --geometry estimates cameras and depth from pictures"
    )


def held(pixels: UInt8[np.ndarray, "height width 3"], name: str, focal: float | None = None) -> Picture:
    """A picture kept in memory, compressed without loss."""
    load = functools.partial(decode_colour, encode_colour(pixels, ".png"), name)
    return Picture(name=name, size=(pixels.shape[1], pixels.shape[0]), load_colour=load, focal=focal)


# --- videos ---


def _video(path: Path, choice: Choice) -> Footage:
    times, promised = _times(path)
    groups = _groups(times, choice)
    kept: list[Picture] = []
    left_out: dict[str, str] = {}
    best: tuple[float, int, Any] | None = None
    decoded, group, last_grey = 0, 0, None

    def close() -> None:
        nonlocal best, last_grey
        if best is None:
            return
        sharpness, index, frame = best
        best = None
        name, pixels = f"frame-{index:06d}", upright_frame(frame, choice.long_side)
        grey = _grey(pixels)
        if grey.std() < FLAT:
            left_out[name] = "shows one even colour"
        elif last_grey is not None and last_grey.shape == grey.shape and np.abs(grey - last_grey).mean() < STILL:
            left_out[name] = "shows what the frame before it shows"
        elif sharpness < _MIN_SHARP:
            left_out[name] = "is too blurred"
        else:
            kept.append(held(pixels, name))
            last_grey = grey

    for frame in _frames(path):
        time = 0.0 if frame.time is None else frame.time
        while group < len(groups) and time >= groups[group]:
            close()
            group += 1
        found = _sharpness(_luma(frame))
        if best is None or found > best[0]:
            best = (found, decoded, frame)
        decoded += 1
    close()
    _check_whole(path, decoded, max(len(times), promised), choice)
    _check_shown(path, kept, left_out)
    notes: dict[str, object] = {"decoded": decoded, "chosen": len(kept), "seconds": round(times[-1] - times[0], 2)}
    return Footage(name=path.stem, pictures=tuple(kept), in_order=True, left_out=left_out, notes=notes)


def _check_whole(path: Path, decoded: int, promised: int, choice: Choice) -> None:
    # encoders announce a frame or two more than they deliver
    if decoded < promised - max(2, promised // 50) and not choice.keep_cut:
        raise SceneError(
            f"{path}: only {decoded} of its {promised} frames can be decoded; the file is cut off or damaged: copy it "
            "again, or use what is there with --skip-bad-frames"
        )


def _check_shown(path: Path, kept: list[Picture], left_out: dict[str, str]) -> None:
    if len(kept) >= 2 or not left_out:
        return
    reasons: dict[str, int] = {}
    for reason in left_out.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    told = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
    raise SceneError(
        f"{path}: nothing to estimate geometry from: of {len(kept) + len(left_out)} pictures looked at, "
        f"{len(left_out)} were left out ({told}); expected a camera that moves through a lit room, and sharp pictures; "
        "film it again"
    )


def _groups(times: list[float], choice: Choice) -> list[float]:
    """The times at which one group of frames ends and the next begins."""
    start, end = times[0], times[-1]
    if choice.every is not None:
        count = min(math.floor((end - start) / choice.every + 1e-9), len(times))
        return [start + choice.every * (n + 1) for n in range(count)]
    if len(times) <= choice.frames:
        return times[1:]  # each frame is a group
    return [start + (end - start) * (n + 1) / choice.frames for n in range(choice.frames - 1)]


def _opened(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", "decoding videos") from error
    try:
        check_plain(path)
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise SceneError(
            f"{path}: cannot be read as a video ({error}); the file is cut off or no video: copy it again"
        ) from error
    if not container.streams.video:
        raise SceneError(f"{path}: holds no pictures (no video stream); is this the file?")
    return container


def _times(path: Path) -> tuple[list[float], int]:
    """When its frames are shown, seconds, and how many the file says it has (0 where it does not say)."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        base, promised = float(stream.time_base), int(stream.frames)
        length = (container.duration or 0) / 1e6
        times = sorted(packet.pts * base for packet in container.demux(stream) if packet.pts is not None)
    if not times:
        raise SceneError(f"{path}: holds no frames; the file is cut off or damaged: copy it again")
    shown = times[-1] - times[0]
    if length > 1.1 * shown + 1:  # it says that it is longer than what it holds
        promised = max(promised, round(len(times) * length / max(shown, 1.0)))
    return times, promised


def _frames(path: Path) -> Iterator[Any]:
    """Its frames as they are shown, up to where decoding fails."""
    import av

    with _opened(path) as container:
        stream = container.streams.video[0]
        try:
            for frame in container.decode(stream):
                if not frame.is_corrupt:
                    yield frame
        except av.FFmpegError:
            return  # told by the number of frames that came


def upright_frame(frame: Any, long_side: int) -> UInt8[np.ndarray, "height width 3"]:
    """A decoded frame as players show it: turned, 8-bit RGB, scaled down.

    Args:
        frame: of PyAV; its ``rotation`` is in degrees, counter-clockwise.
        long_side: pixels along the longer side, at most.
    """
    width, height = fitted(frame.width, frame.height, long_side)
    pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def fitted(width: int, height: int, long_side: int) -> tuple[int, int]:
    """The size that keeps the aspect and has at most ``long_side`` pixels along the longer side."""
    scale = min(1.0, long_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _luma(frame: Any) -> np.ndarray:
    width, height = fitted(frame.width, frame.height, _COLUMNS)
    return frame.reformat(width=width, height=height, format="gray", interpolation="AREA").to_ndarray().astype(float)


def _grey(pixels: np.ndarray) -> np.ndarray:
    step = max(1, max(pixels.shape[:2]) // _COLUMNS)
    return pixels[::step, ::step].astype(float).mean(axis=2)


def _sharpness(grey: np.ndarray) -> float:
    """Mean size of the Laplacian, grey levels."""
    inner = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(np.abs(inner).mean()) if inner.size else 0.0


# --- photos ---


def _photos(folder: Path, choice: Choice) -> Footage:
    paths = photo_paths(folder)
    if len(paths) > choice.frames:
        chosen = {round(n) for n in np.linspace(0, len(paths) - 1, choice.frames)}
        paths = [path for n, path in enumerate(paths) if n in chosen]
    kept: list[Picture] = []
    left_out: dict[str, str] = {}
    for path in paths:
        try:
            picture = read_photo(path, choice.long_side)
        except FrameError as error:
            if not choice.keep_cut:
                raise
            left_out[path.name] = str(error)
            continue
        if _grey(picture.colour()).std() < FLAT:
            left_out[path.name] = "shows one even colour"
        else:
            kept.append(picture)
    _check_shown(folder, kept, left_out)
    sizes = sorted({picture.size for picture in kept})
    notes: dict[str, object] = {"photos": len(paths), "chosen": len(kept), "sizes": [f"{w}x{h}" for w, h in sizes]}
    return Footage(name=folder.resolve().name, pictures=tuple(kept), in_order=False, left_out=left_out, notes=notes)


def read_photo(path: Path, long_side: int) -> Picture:
    """A photo the right way up, scaled down, with its focal length where the camera wrote one (35 mm equivalent).

    Raises:
        FrameError: it cannot be decoded.
        MissingExtraError: HEIC without pillow-heif.
    """
    if path.suffix.lower() in HEIC_SUFFIXES:
        _learn_heic()
    try:
        with open_image(path) as image:
            exif = image.getexif()
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise FrameError(
            f"{path}: cannot be decoded as a photo ({error}); copy it again, or leave it out with --skip-bad-frames"
        ) from error
    size = fitted(*upright.size, long_side)
    if size != upright.size:
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    equivalent = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm)
    focal = float(equivalent) / _FILM_MM * max(size) if equivalent else None
    return held(np.array(upright), re.sub(r"[^\w.-]", "-", path.name), focal)


def _learn_heic() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingExtraError("pillow-heif", "video", "reading HEIC photos") from error
    pillow_heif.register_heif_opener()
