"""Reader of ScanNet's ``.sens`` container (version 4): a capture's colour, depth and poses in one file.

    uint32  version (4)
    uint64  length of the sensor's name, and the name
    float32 4 x 16: colour intrinsics, colour extrinsics, depth intrinsics, depth extrinsics (row-major)
    int32   colour compression (0 raw RGB, 1 PNG, 2 JPEG), depth compression (0 raw, 1 zlib, 2 OpenNI's "occi")
    uint32  colour width, colour height, depth width, depth height
    float32 depth units per metre
    uint64  number of frames, then per frame:
            float32 x 16 camera to world; uint64 colour time, depth time, colour bytes, depth bytes; the two payloads

All little-endian; readings of an inertial unit may follow and are ignored. Files have several gigabytes, so opening
one reads the frames' headers only and steps over the payloads; a frame's images are read when asked for. ScanNet marks
frames whose pose was lost with -inf or NaN: the index keeps them as they are, the reader
(`stereopsis.scenes.readers.scannet.reader`) decides. Whatever a header claims is checked against the file's size
before it is believed.
"""

import dataclasses
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from stereopsis.errors import FrameError, SceneError
from stereopsis.reading import open_plain
from stereopsis.scenes.images import INVALID_DEPTHS, decode_colour

VERSION = 4
ColourCompression = Literal["raw", "png", "jpeg"]
DepthCompression = Literal["raw", "zlib", "occi"]
COLOUR_COMPRESSIONS: tuple[ColourCompression, ...] = ("raw", "png", "jpeg")
DEPTH_COMPRESSIONS: tuple[DepthCompression, ...] = ("raw", "zlib", "occi")
OPENING = struct.Struct("<IQ")
PARAMETERS = struct.Struct("<64f2i4IfQ")
FRAME = struct.Struct("<16f4Q")
MAX_SIDE = 16384
MAX_NAME = 4096
_SLACK = 1 << 20  # bytes of headers and metadata that an encoded image may have beyond twice its pixels
_CHECK = "check the path and its permissions"
_SKIP = "copy or download the file again, or leave the frame out with on_bad_frame='skip'"
_RESTORE = "the file is damaged or not a .sens file; copy or download it again"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SensHeader:
    """What a ``.sens`` file says once for all frames.

    Attributes:
        sensor: its name.
        colour_intrinsics: [4, 4] pixels.
        colour_extrinsics: [4, 4]; the identity where the images are already registered to the pose.
        depth_intrinsics: [4, 4] pixels.
        depth_extrinsics: [4, 4].
        colour_compression: of the colour payloads.
        depth_compression: of the depth payloads.
        colour_size: (width, height) in pixels.
        depth_size: (width, height) in pixels.
        depth_shift: depth units per metre.
    """

    sensor: str
    colour_intrinsics: Float[np.ndarray, "4 4"]
    colour_extrinsics: Float[np.ndarray, "4 4"]
    depth_intrinsics: Float[np.ndarray, "4 4"]
    depth_extrinsics: Float[np.ndarray, "4 4"]
    colour_compression: ColourCompression
    depth_compression: DepthCompression
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SensFrame:
    """One frame's entry in the index.

    Attributes:
        index: place in the file, from 0.
        T_world_camera: [4, 4] float64 as stored; -inf or NaN where the pose was lost.
        colour_timestamp: the sensor's clock.
        depth_timestamp: the sensor's clock.
        colour_offset: bytes from the file's start.
        colour_bytes: length of the payload.
        depth_offset: bytes from the file's start.
        depth_bytes: length of the payload.
    """

    index: int
    T_world_camera: Float[np.ndarray, "4 4"]
    colour_timestamp: int
    depth_timestamp: int
    colour_offset: int
    colour_bytes: int
    depth_offset: int
    depth_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SensFile:
    """An opened ``.sens`` file: header and index; payloads stay on disk."""

    path: Path
    header: SensHeader
    frames: tuple[SensFrame, ...]

    def colour(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Decode a frame's colour image; see `read_sens_colour`."""
        return read_sens_colour(self.path, self.header, self.frames[index])

    def depth(self, index: int) -> Float[np.ndarray, "height width"]:
        """Decode a frame's depth image to metres; see `read_sens_depth`."""
        return read_sens_depth(self.path, self.header, self.frames[index])


def open_sens(path: Path) -> SensFile:
    """Read a file's header and the index of its frames.

    Raises:
        SceneError: no such file, another version or an unknown compression, sizes that no camera has, or a file that
            ends before what it announces (the message says where).
    """
    path = Path(path)
    try:
        # Unbuffered: a buffer would read 8 kB for each 96-byte header of a file with thousands of frames.
        with open_plain(path, buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            header, count = _read_header(path, file, size)
            frames = _read_index(path, file, size, header, count)
    except OSError as error:
        raise SceneError(
            f"{path}: cannot be read ({error.strerror or error}); expected a .sens file; {_CHECK}"
        ) from error
    return SensFile(path=path, header=header, frames=frames)


def read_sens_colour(path: Path, header: SensHeader, frame: SensFrame) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a frame's colour image.

    Raises:
        FrameError: the payload cannot be read, does not decode, or has another size than the header says.
    """
    where = _where(path, frame)
    data = read_payload(path, frame.colour_offset, frame.colour_bytes, where)
    if header.colour_compression != "raw":
        return decode_colour(data, where, size=header.colour_size)
    width, height = header.colour_size
    if len(data) != width * height * 3:
        raise FrameError(
            f"{where}: raw colour of {len(data)} bytes, expected {width * height * 3} ({width}x{height} RGB, as the "
            f"header says); {_SKIP}"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3).copy()


def read_sens_depth(path: Path, header: SensHeader, frame: SensFrame) -> Float[np.ndarray, "height width"]:
    """Decode a frame's depth image to float32 z-depth in metres, 0 where invalid (stored 0 or 65535).

    Raises:
        FrameError: see `read_sens_depth_units`.
    """
    raw = read_sens_depth_units(path, header, frame)
    depth = raw.astype(np.float32) / np.float32(header.depth_shift)
    for value in INVALID_DEPTHS:
        depth[raw == value] = 0.0
    return depth


def read_sens_depth_units(path: Path, header: SensHeader, frame: SensFrame) -> UInt16[np.ndarray, "height width"]:
    """Decode a frame's depth image as it is stored.

    Raises:
        FrameError: the payload cannot be read, does not decompress, or holds more or fewer pixels than the header
            says.
    """
    where = _where(path, frame)
    data = read_payload(path, frame.depth_offset, frame.depth_bytes, where)
    width, height = header.depth_size
    if header.depth_compression == "zlib":
        data = _inflate(data, width * height * 2, where)
    if len(data) != width * height * 2:
        raise FrameError(
            f"{where}: depth of {len(data)} bytes, expected {width * height * 2} ({width}x{height} of 16 bits, as the "
            f"header says); {_SKIP}"
        )
    return np.frombuffer(data, dtype="<u2").reshape(height, width).astype(np.uint16)


def read_payload(path: Path, offset: int, length: int, where: str) -> bytes:
    """A payload's bytes as they are stored.

    Args:
        path: the ``.sens`` file.
        offset: from the file's start.
        length: bytes.
        where: what to call the frame in messages.

    Raises:
        FrameError: the file cannot be read, or has become shorter than it was when it was opened.
    """
    try:
        with open_plain(path, buffering=0) as file:
            file.seek(offset)
            data = _read(file, length)
    except OSError as error:
        raise FrameError(f"{where}: cannot be read ({error.strerror or error}); {_CHECK}") from error
    if len(data) != length:
        raise FrameError(f"{where}: found {len(data)} of {length} bytes; the file changed after it was opened; {_SKIP}")
    return data


def _where(path: Path, frame: SensFrame) -> str:
    return f"{path}: frame {frame.index:05d}"


def _read(file: BinaryIO, length: int) -> bytes:
    """As many bytes as there are, up to the length; one raw read may return fewer than are left."""
    parts = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _inflate(data: bytes, expected: int, where: str) -> bytes:
    """Decompress to exactly the expected length; output is bounded before it is made."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, expected + 1)
    except zlib.error as error:
        raise FrameError(f"{where}: the depth cannot be decompressed ({error}); {_SKIP}") from error
    if len(inflated) > expected:
        raise FrameError(
            f"{where}: the depth decompresses to more than the {expected} bytes that the header's size has room for; "
            f"decompression was stopped; {_SKIP}"
        )
    if not stream.eof:
        raise FrameError(
            f"{where}: the compressed depth ends early: {len(inflated)} of {expected} bytes came out; {_SKIP}"
        )
    return inflated


def _read_header(path: Path, file: BinaryIO, size: int) -> tuple[SensHeader, int]:
    version, name_bytes = OPENING.unpack(_exactly(path, file, OPENING.size, size, "its opening"))
    if version != VERSION:
        raise SceneError(
            f"{path}: .sens version {version}, but this reader knows version {VERSION}, which ScanNet's release has; "
            "convert the file with ScanNet's own tools, or check that it is a .sens file"
        )
    if name_bytes > MAX_NAME:
        raise SceneError(f"{path}: the sensor's name is said to have {name_bytes} bytes; {_RESTORE}")
    name = _exactly(path, file, name_bytes, size, "the sensor's name")
    values = PARAMETERS.unpack(_exactly(path, file, PARAMETERS.size, size, "its parameters"))
    matrices = np.array(values[:64], dtype=np.float64).reshape(4, 4, 4)
    colour_code, depth_code = values[64:66]
    colour_size, depth_size = values[66:68], values[68:70]
    shift, count = values[70:72]
    for what, code, names in (("colour", colour_code, COLOUR_COMPRESSIONS), ("depth", depth_code, DEPTH_COMPRESSIONS)):
        if not 0 <= code < len(names):
            known = ", ".join(f"{number} {each}" for number, each in enumerate(names))
            raise SceneError(f"{path}: unknown {what} compression {code}; known are {known}; {_RESTORE}")
    if DEPTH_COMPRESSIONS[depth_code] == "occi":
        raise SceneError(
            f"{path}: its depth is compressed with OpenNI's 'occi', which is not read; expected raw or zlib, as in "
            "ScanNet's release; compress the depth anew with ScanNet's own tools"
        )
    for what, (width, height) in (("colour", colour_size), ("depth", depth_size)):
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            raise SceneError(f"{path}: {what} images of {width}x{height} pixels, expected 1 to {MAX_SIDE}; {_RESTORE}")
    if not (np.isfinite(shift) and shift > 0):
        raise SceneError(f"{path}: {shift:g} depth units per metre, expected a positive number (1000); {_RESTORE}")
    if count * FRAME.size > size - file.tell():
        raise SceneError(
            f"{path}: announces {count} frames, but has only {size - file.tell()} bytes left for them; the file was "
            "cut off or damaged; copy or download it again"
        )
    return (
        SensHeader(
            sensor=name.decode("utf-8", errors="replace"),
            colour_intrinsics=matrices[0],
            colour_extrinsics=matrices[1],
            depth_intrinsics=matrices[2],
            depth_extrinsics=matrices[3],
            colour_compression=COLOUR_COMPRESSIONS[colour_code],
            depth_compression=DEPTH_COMPRESSIONS[depth_code],
            colour_size=colour_size,
            depth_size=depth_size,
            depth_shift=shift,
        ),
        count,
    )


def _exactly(path: Path, file: BinaryIO, length: int, size: int, what: str) -> bytes:
    data = _read(file, length)
    if len(data) != length:
        raise SceneError(
            f"{path}: ends after {size} bytes, inside {what}; expected {length - len(data)} more bytes; {_RESTORE}"
        )
    return data


def _read_index(path: Path, file: BinaryIO, size: int, header: SensHeader, count: int) -> tuple[SensFrame, ...]:
    most_colour = 6 * header.colour_size[0] * header.colour_size[1] + _SLACK
    most_depth = 4 * header.depth_size[0] * header.depth_size[1] + _SLACK
    frames = []
    offset = file.tell()
    for index in range(count):
        file.seek(offset)
        data = _read(file, FRAME.size)
        if len(data) != FRAME.size:
            raise _cut_off(path, index, count, size, offset + FRAME.size)
        *pose, colour_time, depth_time, colour_bytes, depth_bytes = FRAME.unpack(data)
        colour_offset = offset + FRAME.size
        depth_offset = colour_offset + colour_bytes
        offset = depth_offset + depth_bytes
        if colour_bytes > most_colour or depth_bytes > most_depth:
            raise SceneError(
                f"{path}: frame {index:05d} claims {colour_bytes} bytes of colour and {depth_bytes} of depth, more "
                f"than its image sizes can need ({most_colour} and {most_depth}); {_RESTORE}"
            )
        if offset > size:
            raise _cut_off(path, index, count, size, offset)
        frames.append(
            SensFrame(
                index=index,
                T_world_camera=np.array(pose, dtype=np.float64).reshape(4, 4),
                colour_timestamp=colour_time,
                depth_timestamp=depth_time,
                colour_offset=colour_offset,
                colour_bytes=colour_bytes,
                depth_offset=depth_offset,
                depth_bytes=depth_bytes,
            )
        )
    return tuple(frames)


def _cut_off(path: Path, index: int, count: int, size: int, needed: int) -> SceneError:
    return SceneError(
        f"{path}: ends after {size} bytes, inside frame {index:05d} of {count}, which needs {needed}; the file was cut "
        "off (the frames before are complete); copy or download it again"
    )
