"""A teacher's features of a scene's views as 3DRS keeps them: ``posed_images_3d_feature_vggt/SCENE/vggt.npz``.

The archive holds ``feature`` [1, views, tokens, channels] and ``ps_idx``, the number of special tokens (camera and
registers) before the patches. A scene of VGGT's is about 270 MB, so views are read one at a time. The file does not
say which frames it is of: 3DRS's script takes 32 evenly spread ones of ALL colour images in the scene's folder, which
is not always the list that the model sees. Here every view goes by its frame's name.
"""

import dataclasses
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.reading import open_archive

VGGT_SIDE = 518  # pixels; VGGT's input width, cut into patches of 14
VGGT_PATCH = 14
_MAX_VIEW_BYTES = 2**30
_Member: TypeAlias = Any  # an opened entry of an archive, whose class and declared type differ in the library
_REMEDY = "extract the features of this scene again"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FeatureArchive:
    """Patch features of some of a scene's frames, on disk.

    Attributes:
        path: the archive.
        names: the frame of each view.
        tokens: patches per view.
        channels: feature width.
        special_tokens: tokens before the patches, which reading leaves out.
        grid: (rows, columns) of the patches; None where image size and token count do not tell.
        dtype: of the stored numbers.
    """

    path: Path
    names: tuple[str, ...]
    tokens: int
    channels: int
    special_tokens: int
    grid: tuple[int, int] | None
    dtype: np.dtype

    def views(self) -> Iterator[tuple[str, Float[np.ndarray, "tokens channels"]]]:
        """Each frame's name and features, in order; one view is in memory at a time.

        Raises:
            SceneError: the archive is damaged.
        """
        view_tokens = self.special_tokens + self.tokens
        size = view_tokens * self.channels * self.dtype.itemsize
        try:
            with open_archive(self.path) as archive, archive.open("feature.npy") as file:
                _header(file, self.path, "feature")
                for name in self.names:
                    data = _exactly(file, size)
                    view = np.frombuffer(data, self.dtype).reshape(view_tokens, self.channels)
                    yield name, view[self.special_tokens :].astype(self.dtype.newbyteorder("="))
        except (OSError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise SceneError(f"{self.path}: the features end early or are damaged ({error}); {_REMEDY}") from error


def sampled_names(names: Sequence[str], views: int) -> tuple[str, ...]:
    """The frames that 3DRS's script takes: ``linspace(0, n - 1, views)`` over all names, cut to whole numbers."""
    return tuple(names[index] for index in np.linspace(0, len(names) - 1, views, dtype=int))


def vggt_grid(tokens: int, width: int, height: int) -> tuple[int, int] | None:
    """(rows, columns) of VGGT's patches of an image: scaled to 518 pixels across, rows rounded, or padded square.

    Args:
        tokens: patches that there are.
        width: of the original image, pixels.
        height: of the original image, pixels.
    """
    columns = VGGT_SIDE // VGGT_PATCH
    rows = min(round(height * VGGT_SIDE / width / VGGT_PATCH), columns)
    return next(((n, columns) for n in (rows, columns) if n * columns == tokens), None)


def open_features(path: Path, names: Sequence[str], size: tuple[int, int]) -> FeatureArchive:
    """Read an archive's header; features are read by `FeatureArchive.views`.

    Args:
        path: the ``.npz``.
        names: ALL frames of the scene's folder, in order, of which the archive's are evenly spread ones.
        size: (width, height) of the colour images.

    Raises:
        SceneError: the file is absent, no such archive, holds Python objects, or is of another shape.
    """
    try:
        with open_archive(path) as archive:
            with archive.open("feature.npy") as file:
                shape, dtype = _header(file, path, "feature")
            special = 0
            if "ps_idx.npy" in archive.namelist():
                with archive.open("ps_idx.npy") as file:
                    special = _whole_number(file, path)
    except FileNotFoundError as error:
        raise SceneError(f"{path}: does not exist; extract the features first, or check the path") from error
    except KeyError as error:
        raise SceneError(f"{path}: holds no array 'feature'; {_REMEDY}") from error
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, zlib.error) as error:
        raise SceneError(f"{path}: cannot be read as .npz ({error}); {_REMEDY}") from error
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or min(shape) < 1 or not 0 <= special < shape[1] or dtype.kind != "f":
        raise SceneError(
            f"{path}: 'feature' is {dtype} {list(shape)} with ps_idx {special}; expected floating-point numbers [1, "
            f"views, tokens, channels] and fewer special tokens than tokens; {_REMEDY}"
        )
    views, tokens, channels = shape
    if tokens * channels * dtype.itemsize > _MAX_VIEW_BYTES:
        raise SceneError(f"{path}: one view has {tokens}x{channels} numbers, implausibly many; {_REMEDY}")
    return FeatureArchive(
        path=path,
        names=sampled_names(names, views),
        tokens=tokens - special,
        channels=channels,
        special_tokens=special,
        grid=vggt_grid(tokens - special, *size),
        dtype=dtype,
    )


def _header(file: _Member, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise SceneError(f"{path}: '{name}' is of .npy version {version}, expected 1.0 or 2.0; {_REMEDY}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject or (fortran and math.prod(shape) > 1):
        kind = "Python objects, which are not loaded" if dtype.hasobject else "numbers in Fortran order"
        raise SceneError(f"{path}: '{name}' holds {kind}; expected plain numbers in C order; {_REMEDY}")
    return shape, dtype


def _whole_number(file: _Member, path: Path) -> int:
    shape, dtype = _header(file, path, "ps_idx")
    if math.prod(shape) != 1 or dtype.kind not in "iu":
        raise SceneError(f"{path}: 'ps_idx' is {dtype} {list(shape)}, expected one whole number; {_REMEDY}")
    return int(np.frombuffer(_exactly(file, dtype.itemsize), dtype)[0])


def _exactly(file: _Member, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return data
