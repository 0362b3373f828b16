"""Pictures as data URIs, small enough that a report stays small."""

import base64
import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from stereopsis.errors import RunFolderError
from stereopsis.reading import open_image, read_bytes

PIXEL_ART_UP_TO = 160
LARGEST_SIDE = 480


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """A picture inside the page.

    Attributes:
        uri: ``data:image/...;base64,...``.
        width: pixels.
        height: pixels.
        pixelated: small enough that its pixels should stay visible when it is drawn larger.
    """

    uri: str
    width: int
    height: int

    @property
    def pixelated(self) -> bool:
        """Whether to enlarge without smoothing."""
        return max(self.width, self.height) <= PIXEL_ART_UP_TO


def embed(picture: Image.Image, *, largest: int = LARGEST_SIDE) -> EmbeddedImage:
    """Encode a picture: without loss where it is small, else as JPEG of at most ``largest`` pixels a side."""
    picture = picture.convert("RGB")
    if max(picture.size) > largest:
        share = largest / max(picture.size)
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    small = max(picture.size) <= PIXEL_ART_UP_TO
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, format="PNG")
    else:
        picture.save(buffer, format="JPEG", quality=86, subsampling=0, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    kind = "png" if small else "jpeg"
    return EmbeddedImage(uri=f"data:image/{kind};base64,{data}", width=picture.width, height=picture.height)


def embed_pixels(pixels: UInt8[np.ndarray, "height width 3"], *, largest: int = LARGEST_SIDE) -> EmbeddedImage:
    """Encode an RGB array; see `embed`."""
    return embed(Image.fromarray(np.ascontiguousarray(pixels)), largest=largest)


def embed_file(path: Path, *, largest: int = LARGEST_SIDE) -> EmbeddedImage:
    """Encode a picture file; see `embed`.

    Raises:
        RunFolderError: the file is damaged or no picture.
    """
    try:
        with open_image(path) as picture:
            picture.load()
            return embed(picture, largest=largest)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise RunFolderError(f"{path} is not a readable picture ({error}); evaluate the run again") from error


def fingerprint(path: Path) -> str:
    """What tells two picture files apart.

    Raises:
        RunFolderError: the file cannot be read.
    """
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); evaluate the run again") from error
