"""Writer of ScanNet's ``.sens`` container, for captures that other tools shall read (layout: `sens`)."""

import dataclasses
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Float, UInt16

from stereopsis.errors import FrameError, SceneError
from stereopsis.files import writing
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import check_frame, check_intrinsics
from stereopsis.scenes.images import MILLIMETRES, decode_colour, depth_units, encode_colour
from stereopsis.scenes.readers.scannet.sens import (
    COLOUR_COMPRESSIONS,
    DEPTH_COMPRESSIONS,
    FRAME,
    MAX_NAME,
    MAX_SIDE,
    OPENING,
    PARAMETERS,
    VERSION,
    ColourCompression,
)
from stereopsis.scenes.scene import Frame


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SensRecord:
    """One frame to write.

    Attributes:
        T_world_camera: [4, 4] camera to world, metres; entries may be -inf, ScanNet's mark of a lost pose.
        colour: the encoded image (a JPEG file's bytes, say), or RGB pixels row by row where colour is raw.
        depth: uint16 [height, width] units, 0 = invalid.
        colour_timestamp: the sensor's clock.
        depth_timestamp: the sensor's clock.
    """

    T_world_camera: Float[np.ndarray, "4 4"]
    colour: bytes
    depth: UInt16[np.ndarray, "height width"]
    colour_timestamp: int = 0
    depth_timestamp: int = 0


def sens_record(frame: Frame, *, depth_shift: float = MILLIMETRES) -> SensRecord:
    """A frame of any scene as a record: colour as JPEG of quality 95, depth rounded to the nearest unit.

    Raises:
        FrameError: the frame is unusable or has no depth, which the container demands.
    """
    pixels = check_frame(frame)
    if pixels.depth is None:
        raise FrameError(
            f"frame '{frame.name}': has no depth, which a .sens file holds for every frame; add depth (for instance "
            "with stereopsis.scenes.surfaces.mesh_depth.with_mesh_depth), or leave the frame out"
        )
    return SensRecord(
        T_world_camera=frame.T_world_camera,
        colour=encode_colour(pixels.colour, ".jpg"),
        depth=depth_units(pixels.depth, scale=depth_shift),
    )


def write_sens(
    path: str | Path,
    records: Iterable[SensRecord],
    *,
    colour_intrinsics: Intrinsics,
    depth_intrinsics: Intrinsics | None = None,
    colour_compression: ColourCompression = "jpeg",
    depth_compression: Literal["raw", "zlib"] = "zlib",
    depth_shift: float = MILLIMETRES,
    sensor: str = "stereopsis",
) -> Path:
    """Write a ``.sens`` file; other processes see all of it or nothing. Frames are taken one at a time.

    Args:
        path: the new file; an older one of this name is replaced.
        records: the frames, in capture order; may be a generator.
        colour_intrinsics: of the colour images, whose size it gives.
        depth_intrinsics: of the depth images; None: the colour images' own.
        colour_compression: how the records' colour is encoded.
        depth_compression: how depth is to be stored.
        depth_shift: depth units per metre.
        sensor: its name.

    Returns:
        The path.

    Raises:
        FrameError: a record's colour does not decode, or an image has another size than its intrinsics say.
        SceneError: no records, settings that no camera has, or the file cannot be written. Nothing half-written is
            left.
    """
    path = Path(path)
    settings = _Settings(
        colour=colour_intrinsics,
        depth=depth_intrinsics or colour_intrinsics,
        colour_compression=colour_compression,
        depth_compression=depth_compression,
        depth_shift=depth_shift,
        sensor=sensor,
    )
    _check_settings(path, settings)
    with writing(path, error=SceneError) as file:
        _write(file, path, records, settings)
    return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    colour: Intrinsics
    depth: Intrinsics
    colour_compression: ColourCompression
    depth_compression: Literal["raw", "zlib"]
    depth_shift: float
    sensor: str


def _check_settings(path: Path, settings: _Settings) -> None:
    if settings.colour_compression not in COLOUR_COMPRESSIONS or settings.depth_compression not in ("raw", "zlib"):
        raise SceneError(
            f"colour_compression='{settings.colour_compression}', depth_compression='{settings.depth_compression}': "
            "choose 'raw', 'png' or 'jpeg' for colour and 'raw' or 'zlib' for depth"
        )
    for camera in (settings.colour, settings.depth):
        check_intrinsics(camera, str(path))
        if max(camera.width, camera.height) > MAX_SIDE:
            raise SceneError(f"{path}: images have at most {MAX_SIDE} pixels along a side; make them smaller")
    if not (np.isfinite(settings.depth_shift) and settings.depth_shift > 0):
        raise SceneError(f"{path}: depth_shift={settings.depth_shift}: expected a positive number of units per metre")
    if (length := len(settings.sensor.encode())) > MAX_NAME:
        raise SceneError(f"{path}: the sensor's name has {length} bytes, expected at most {MAX_NAME}; shorten it")


def _write(file: BinaryIO, path: Path, records: Iterable[SensRecord], settings: _Settings) -> None:
    name = settings.sensor.encode()
    file.write(OPENING.pack(VERSION, len(name)) + name)
    start = file.tell()
    file.write(_parameters(settings, 0))
    count = 0
    for record in records:
        where = f"{path}: frame {count:05d}"
        _check_colour(record, where, settings.colour, settings.colour_compression)
        _check_depth(record, where, settings.depth)
        _write_record(file, record, settings.depth_compression)
        count += 1
    if not count:
        raise SceneError(f"{path}: there are no frames to write; expected at least one; add records")
    file.seek(start)
    file.write(_parameters(settings, count))


def _parameters(settings: _Settings, count: int) -> bytes:
    return PARAMETERS.pack(
        *_matrix(settings.colour),
        *np.eye(4).ravel(),
        *_matrix(settings.depth),
        *np.eye(4).ravel(),
        COLOUR_COMPRESSIONS.index(settings.colour_compression),
        DEPTH_COMPRESSIONS.index(settings.depth_compression),
        settings.colour.width,
        settings.colour.height,
        settings.depth.width,
        settings.depth.height,
        settings.depth_shift,
        count,
    )


def _matrix(camera: Intrinsics) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = camera.matrix
    return matrix.ravel()


def _check_colour(record: SensRecord, where: str, camera: Intrinsics, compression: ColourCompression) -> None:
    if compression != "raw":
        decode_colour(record.colour, where, size=(camera.width, camera.height))
    elif len(record.colour) != camera.width * camera.height * 3:
        raise FrameError(
            f"{where}: raw colour of {len(record.colour)} bytes, expected {camera.width * camera.height * 3} "
            f"({camera.width}x{camera.height} RGB, as the intrinsics say); resize images and intrinsics together"
        )


def _check_depth(record: SensRecord, where: str, camera: Intrinsics) -> None:
    if record.depth.shape != (camera.height, camera.width):
        raise FrameError(
            f"{where}: depth is {record.depth.shape[1]}x{record.depth.shape[0]}, expected "
            f"{camera.width}x{camera.height} as its intrinsics say; resize images and intrinsics together"
        )


def _write_record(file: BinaryIO, record: SensRecord, compression: Literal["raw", "zlib"]) -> None:
    depth = record.depth.astype("<u2").tobytes()
    if compression == "zlib":
        depth = zlib.compress(depth)
    times = (record.colour_timestamp, record.depth_timestamp)
    file.write(FRAME.pack(*record.T_world_camera.ravel(), *times, len(record.colour), len(depth)))
    file.write(record.colour)
    file.write(depth)
