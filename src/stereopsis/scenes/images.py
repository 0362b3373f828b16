"""Reading and writing of colour and depth images, with errors that name the file and the remedy.

Colour is 8-bit RGB. Depth on disk is 16-bit greyscale; one unit is ``1 / scale`` metres (ScanNet, 7-Scenes
and this package's own layout: millimetres). Pixels are taken as stored: EXIF orientation is ignored, because
poses and intrinsics speak of the stored pixels; where sizes then do not fit, the message names it.
"""

import contextlib
import dataclasses
import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.reading import check_pixels, open_image, read_bytes

DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I")
MILLIMETRES = 1000.0
INVALID_DEPTHS = (0, 65535)
COLOUR_SUFFIXES = (".jpg", ".jpeg", ".png")
DEPTH_SUFFIXES = (".png", ".pgm", ".tif", ".tiff", ".npy")
_EXIF_ORIENTATION = 0x0112
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image file says of itself before any pixel is decoded.

    Attributes:
        width: pixels.
        height: pixels.
        mode: Pillow's name of the pixel type ("RGB", "I;16", ...).
        format: the file's format ("JPEG", "PNG", ...).
        orientation: EXIF's number for how the picture is to be turned or mirrored when shown; 1 = as stored.
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def orientation_advice(self) -> str:
        """What to do about EXIF's orientation, where there is one; else nothing."""
        if self.orientation == 1:
            return ""
        turned = " by a quarter" if self.orientation >= 5 else ""
        return (
            f"; the file's EXIF orientation is {self.orientation}: programs that honour it (OpenCV, COLMAP) turn or "
            "mirror "
            f"the picture{turned}, and intrinsics made by them speak of the turned picture. Store the pixels as they "
            "are "
            "shown (Pillow: ImageOps.exif_transpose(Image.open(path)).save(path)), and depth likewise"
        )


def read_header(path: Path, *, kind: str = "colour") -> ImageHeader:
    """Read an image's size and pixel type without decoding it, and check that its type suits ``kind``.

    Args:
        path: the image file.
        kind: "colour" or "depth".

    Raises:
        FrameError: the file is absent, empty, no image, of size zero, or of the wrong pixel type.
    """
    if not path.is_file():
        raise _absent(path, kind)
    with _decoding(path, kind, path.stat().st_size), open_image(path) as image:
        header = _header(image)
    _check_header(header, path, kind, None)
    return header


def read_any_header(path: Path) -> ImageHeader:
    """Read an image's size and pixel type, whatever it shows.

    Raises:
        FrameError: the file is absent or no image.
    """
    if not path.is_file():
        raise _absent(path, "listed")
    with _decoding(path, "listed", path.stat().st_size), open_image(path) as image:
        return _header(image)


def read_colour(
    path: Path, *, size: tuple[int, int] | None = None, sha256: str | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a colour image.

    Args:
        path: an 8-bit RGB image file.
        size: the (width, height) it must have, where known.
        sha256: the checksum that the file's bytes must have, where known.

    Raises:
        FrameError: the file is absent, truncated, corrupt, of another size, or not 8-bit RGB.
    """
    return np.array(_decode(path, "colour", size, sha256))


def read_depth(
    path: Path,
    *,
    scale: float | int = MILLIMETRES,
    invalid: tuple[int, ...] = INVALID_DEPTHS,
    size: tuple[int, int] | None = None,
    sha256: str | None = None,
) -> Float[np.ndarray, "height width"]:
    """Decode a 16-bit depth image to float32 z-depth in metres, 0 where invalid.

    Args:
        path: a 16-bit greyscale image file.
        scale: stored units per metre.
        invalid: stored values that mean "nothing measured".
        size: the (width, height) it must have, where known.
        sha256: the checksum that the file's bytes must have, where known.

    Raises:
        FrameError: the file is absent, truncated, corrupt, of another size, or not 16-bit greyscale.
    """
    raw = np.asarray(_decode(path, "depth", size, sha256))
    if raw.dtype != np.uint16 and (raw.min() < 0 or raw.max() > 65535):
        raise FrameError(
            f"{path}: depth values run from {raw.min()} to {raw.max()}; expected 16-bit values between 0 and "
            f"65535; export the depth again as 16-bit greyscale PNG with {scale:g} units per metre"
        )
    depth = raw.astype(np.float32) / np.float32(scale)
    for value in invalid:
        depth[raw == value] = 0.0
    return depth


def decode_colour(
    data: bytes, where: str, *, size: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a colour image that lies in memory, for containers that hold many images in one file.

    Args:
        data: the compressed image.
        where: what to call it in messages.
        size: the (width, height) it must have, where known.

    Raises:
        FrameError: truncated, corrupt, of another size, or not 8-bit RGB.
    """
    return np.array(_decode_bytes(data, where, "colour", size))


def decode_depth_values(data: bytes, where: str) -> UInt16[np.ndarray, "height width"]:
    """Decode a 16-bit greyscale image that lies in memory, values as they are stored.

    Raises:
        FrameError: truncated, corrupt, or not 16-bit greyscale.
    """
    raw = np.asarray(_decode_bytes(data, where, "depth", None))
    if raw.dtype != np.uint16 and (raw.min() < 0 or raw.max() > 65535):
        raise FrameError(f"{where}: depth values run from {raw.min()} to {raw.max()}; expected 16-bit values")
    return raw.astype(np.uint16)


def encode_colour(pixels: UInt8[np.ndarray, "height width 3"], suffix: str) -> bytes:
    """Compress a colour image: ".png" loses nothing (fast setting), ".jpg" has quality 95 and full chroma."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if suffix == ".png":
        # Run-length matching after PNG's filters: faster than level 1's search, and files are as small.
        image.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    elif suffix in (".jpg", ".jpeg"):
        image.save(buffer, format="JPEG", quality=95, subsampling=0)
    else:
        raise SceneError(f"colour images are written as .png or .jpg, not '{suffix}'; choose one of these")
    return buffer.getvalue()


def depth_units(
    depth: Float[np.ndarray, "height width"], *, scale: float = MILLIMETRES
) -> UInt16[np.ndarray, "height width"]:
    """Depth in metres as 16-bit units (millimetres by default), rounded to the nearest.

    What 16 bits cannot hold becomes 0 = invalid rather than a wrong distance: depth that is not finite, not
    positive, below half a unit, or beyond 65534 units (65.534 m; 65535 also means invalid in many sources).
    """
    units = np.asarray(depth, dtype=np.float64) * scale
    with np.errstate(invalid="ignore"):
        representable = (units > 0) & (units < 65534.5)  # False for NaN
    return np.rint(np.where(representable, units, 0.0)).astype(np.uint16)


def encode_depth(depth: Float[np.ndarray, "height width"], *, scale: float = MILLIMETRES) -> bytes:
    """Compress depth in metres to a 16-bit greyscale PNG (see `depth_units` for rounding and range)."""
    buffer = io.BytesIO()
    Image.fromarray(depth_units(depth, scale=scale)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_mask(mask: Shaped[np.ndarray, "height width"]) -> bytes:
    """Compress a boolean image to a 1-bit PNG (white = True)."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mask, dtype=bool)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def read_mask(
    path: Path, *, size: tuple[int, int] | None = None, sha256: str | None = None
) -> Shaped[np.ndarray, "height width"]:
    """Decode a 1-bit image to booleans.

    Raises:
        FrameError: the file is absent, truncated, corrupt, of another size, or not a 1-bit image.
    """
    return np.array(_decode(path, "mask", size, sha256))


def _decode(path: Path, kind: str, size: tuple[int, int] | None, sha256: str | None) -> Image.Image:
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _absent(path, kind) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FrameError(f"{path}: cannot be read ({reason}); check the file and its permissions") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise FrameError(
            f"{path}: the {len(data)} bytes found do not have the checksum that the scene recorded "
            f"({sha256[:12]}...); the file was damaged or changed after writing; restore it or prepare the "
            "scene again"
        )
    return _decode_bytes(data, path, kind, size)


def _decode_bytes(data: bytes, where: Path | str, kind: str, size: tuple[int, int] | None) -> Image.Image:
    with _decoding(where, kind, len(data)):
        image = Image.open(io.BytesIO(data))
        header = _header(image)
    _check_header(header, where, kind, size)
    with _decoding(where, kind, len(data)):
        image.load()
    return image


def _header(image: Image.Image) -> ImageHeader:
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if image.format in ("JPEG", "MPO", "WEBP") else 1
    return ImageHeader(
        width=image.width,
        height=image.height,
        mode=image.mode,
        format=image.format or "unknown",
        orientation=orientation if orientation in range(2, 9) else 1,
    )


@contextlib.contextmanager
def _decoding(where: Path | str, kind: str, found: int) -> Iterator[None]:
    try:
        yield
    except _DECODE_ERRORS as error:
        raise FrameError(
            f"{where}: the {kind} image cannot be decoded ({error}); found {found} bytes, expected a "
            "complete image file; copy or export this frame again, or leave it out with on_bad_frame='skip'"
        ) from error


def _check_header(header: ImageHeader, path: Path | str, kind: str, size: tuple[int, int] | None) -> None:
    found = f"{header.format} {header.mode} {header.width}x{header.height}"
    if header.width == 0 or header.height == 0:
        raise FrameError(f"{path}: the {kind} image is empty ({found}); export this frame again")
    try:
        check_pixels(header.width, header.height)
    except ValueError as error:
        raise FrameError(f"{path}: the {kind} image {error}; is this the right file?") from error
    if kind == "depth" and header.mode not in DEPTH_MODES:
        raise FrameError(
            f"{path}: this is not a depth image: found {found}, expected 16-bit greyscale (mode I;16); "
            "export the depth as 16-bit PNG in millimetres, not as a coloured or 8-bit picture of it"
        )
    if kind == "colour" and header.mode != "RGB":
        raise FrameError(
            f"{path}: found {found}, expected an 8-bit RGB colour image; "
            "convert it first (for instance with Pillow: Image.open(path).convert('RGB').save(path))"
        )
    if kind == "mask" and header.mode != "1":
        raise FrameError(f"{path}: found {found}, expected a 1-bit mask; prepare the scene again")
    if size is not None and header.size != size:
        raise FrameError(
            f"{path}: found {found}, expected {size[0]}x{size[1]} pixels, which the scene's intrinsics "
            "speak of; resize images and intrinsics together, or restore the original "
            f"file{header.orientation_advice()}"
        )


def _absent(path: Path, kind: str) -> FrameError:
    return FrameError(
        f"{path}: the {kind} image does not exist{_found_instead(path)}; expected one per frame; restore the file, or "
        "leave the frame out with on_bad_frame='skip'"
    )


def _found_instead(path: Path) -> str:
    """Files beside an absent one that have its name but for the suffix."""
    try:
        siblings = [
            entry.name for entry in path.parent.iterdir() if entry.stem == path.stem and entry.name != path.name
        ]
    except OSError:
        return ""
    known = sorted(name for name in siblings if Path(name).suffix.lower() in (*COLOUR_SUFFIXES, *DEPTH_SUFFIXES))
    return f" (but {' and '.join(known[:3])} does; correct the name, or convert the file)" if known else ""
