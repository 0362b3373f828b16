"""Depth images as captures store them: 16-bit greyscale, or NumPy arrays."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.reading import map_array
from stereopsis.scenes.images import read_depth, read_header

METRES_BELOW = 40.0
MILLIMETRES_ABOVE = 200.0
"""Floating-point depth with a median below the one is in metres, above the other in millimetres: nothing that is looked
at lies nearer than 4 cm, or in a median farther than 200 m."""
_SAMPLED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthSource:
    """A depth image that is not decoded yet.

    Attributes:
        path: the file.
        size: (width, height) in pixels.
        load: returns float32 [height, width] metres, 0 = invalid; picklable.
    """

    path: Path
    size: tuple[int, int]
    load: Callable[[], np.ndarray]


def depth_file(path: Path, units_per_metre: float | int) -> DepthSource:
    """A depth image, of which only the header is read.

    Args:
        path: 16-bit greyscale (PNG, PGM, TIFF), or .npy.
        units_per_metre: of its values.

    Raises:
        FrameError: the file is absent, no image, or not 16-bit greyscale; or no array of numbers.
    """
    if path.suffix.lower() == ".npy":
        shape = _open_array(path).shape
        load = functools.partial(read_depth_array, path, unit=1.0 / units_per_metre)
        return DepthSource(path=path, size=(shape[1], shape[0]), load=load)
    size = read_header(path, kind="depth").size
    return DepthSource(path=path, size=size, load=functools.partial(read_depth, path, scale=units_per_metre, size=size))


def read_depth_array(path: Path, *, unit: float) -> Float[np.ndarray, "height width"]:
    """Read a depth image stored as a NumPy array; pickled objects in it are refused, never executed.

    Args:
        path: the .npy file, [height, width] numbers.
        unit: metres per unit.

    Returns:
        float32 metres, 0 where the file has values that are not finite or not positive.

    Raises:
        FrameError: the file is absent, truncated, or no such array.
    """
    with np.errstate(over="ignore"):  # becomes inf, which is invalid
        depth = np.array(_open_array(path), dtype=np.float32) * np.float32(unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    return depth


def array_units(files: Sequence[Path], default: float | int, remedy: str) -> float:
    """Units per metre of floating-point arrays, which hold metres or millimetres: no median distance fits both.

    Args:
        files: depth images; a few of the .npy files among them are looked at.
        default: where none of them holds floating-point numbers.
        remedy: how to say the unit, for the message.

    Raises:
        SceneError: the values fit neither.
    """
    arrays = [path for path in files if path.suffix.lower() == ".npy"]
    medians = []
    for place in sorted({round(place) for place in np.linspace(0, len(arrays) - 1, _SAMPLED)}) if arrays else []:
        try:
            array = _open_array(arrays[place])
        except FrameError:  # its turn to be reported comes when its frame is built
            continue
        thin = np.asarray(array[:: max(1, array.shape[0] // 64), :: max(1, array.shape[1] // 64)])
        valid = thin[np.isfinite(thin) & (thin > 0)]
        if array.dtype.kind == "f" and len(valid):
            medians.append(float(np.median(valid)))
    if not medians:
        return default
    median = float(np.median(medians))
    if median < METRES_BELOW:
        return 1.0
    if median > MILLIMETRES_ABOVE:
        return 1000.0
    raise SceneError(
        f"{arrays[0]}: floating-point depth with a median of {median:.3g} fits neither metres nor millimetres; "
        "expected "
        f"a known unit; {remedy}"
    )


def _open_array(path: Path) -> np.ndarray:
    try:
        array = map_array(path)
    except (OSError, ValueError) as error:
        raise FrameError(
            f"{path}: cannot be read as a depth array ({error}); expected a .npy file of [height, width] numbers; "
            "restore it, or leave the frame out with on_bad_frame='skip'"
        ) from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {list(array.shape)}"
        raise FrameError(f"{path}: holds {found}, expected [height, width] numbers; export the depth again")
    return array
