"""EmbodiedScan's scene records of ScanNet: ``embodiedscan_infos_{train,val,test}.pkl``.

Each file holds ``{"metainfo": ..., "data_list": [...]}``; a ScanNet entry has ``sample_idx`` ("scannet/SCENE"),
``axis_align_matrix`` (4x4, world to aligned), ``cam2img`` and ``depth_cam2img`` (3x3 or 4x4, pixels) and ``images``,
each with ``img_path`` and usually ``cam2global`` (4x4, camera to unaligned world). Entries of the other data sets in
the file are passed over. The pickles are read by `stereopsis.scenes.pickles.safe_pickle`, which runs nothing.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import check_pose
from stereopsis.scenes.pickles.safe_pickle import load_pickle

FOLDERS = ("embodiedscan", "metadata/embodiedscan", ".")
_PATTERN = "embodiedscan_infos_*.pkl"
_SPLITS = ("train", "val", "test")
_PREFIX = "scannet/"
_KEPT = ("axis_align_matrix", "cam2img", "depth_cam2img")
_REMEDY = "get the file from EmbodiedScan again, or move it away to do without it"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SceneInfo:
    """What EmbodiedScan says of one scene.

    Attributes:
        source: the file.
        T_aligned_world: [4, 4] world to aligned frame, metres; None where the record has none.
        colour_matrix: 3x3 or 4x4 intrinsics of the colour images, pixels; None where the record has none.
        depth_matrix: the same of the depth images.
        names: the frames, in the record's order ("00000", ...).
        poses: [4, 4] camera to unaligned world by frame name, where the record has it; not checked.
    """

    source: Path
    T_aligned_world: Float[np.ndarray, "4 4"] | None
    colour_matrix: Float[np.ndarray, "colour_rows colour_columns"] | None
    depth_matrix: Float[np.ndarray, "depth_rows depth_columns"] | None
    names: tuple[str, ...]
    poses: Mapping[str, np.ndarray]


def info_files(root: Path) -> list[Path]:
    """The record files under a data root, training split first; empty where there is none."""
    for folder in FOLDERS:
        found = sorted((root / folder).glob(_PATTERN), key=_split_order)
        if found:
            return found
    return []


def find_info(root: Path, scene_id: str) -> SceneInfo | None:
    """A scene's record, from whichever split's file has it; None where none has.

    A file is read once per process: all its scenes' records stay in memory, without the parts that nothing here
    uses.

    Raises:
        SceneError: a file is damaged or asks for more than plain data, two entries of one file differ on this scene,
            or its record is wrong.
    """
    for path in info_files(root):
        entries = _entries(path)
        if scene_id in entries:
            return _scene_info(path, scene_id, entries[scene_id])
    return None


def _split_order(path: Path) -> tuple[int, str]:
    parts = path.stem.split("_")
    return next((rank for rank, split in enumerate(_SPLITS) if split in parts), len(_SPLITS)), path.name


def _entries(path: Path) -> dict[str, list[dict[str, Any]]]:
    status = path.stat()
    return _read_entries(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _read_entries(path: Path, changed: int, size: int) -> dict[str, list[dict[str, Any]]]:
    """{scene id: its entries}, cut to what is used; file time and size are there so that a new file is read anew."""
    content = load_pickle(path)
    entries = content.get("data_list") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        keys = (
            f"a dictionary of {sorted(map(str, content))[:6]}" if isinstance(content, dict) else type(content).__name__
        )
        raise SceneError(f"{path}: found {keys}; expected a dictionary with the list 'data_list'; {_REMEDY}")
    found: dict[str, list[dict[str, Any]]] = {}
    for number, entry in enumerate(entries):
        name = entry.get("sample_idx") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise SceneError(
                f"{path}: entry {number} of 'data_list' has no 'sample_idx'; expected a text such as "
                f"'scannet/scene0000_00'; {_REMEDY}"
            )
        if name.startswith(_PREFIX):
            kept = {key: entry[key] for key in _KEPT if entry.get(key) is not None}
            kept["images"] = _cut_images(entry.get("images"))
            found.setdefault(name.removeprefix(_PREFIX), []).append(kept)
    return found


def _cut_images(images: Any) -> Any:
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        return images  # told when the scene is asked for, so that one bad entry does not close the others
    return [(image.get("img_path"), image.get("cam2global"), image.get("cam2img")) for image in images]


def _scene_info(path: Path, scene_id: str, entries: list[dict[str, Any]]) -> SceneInfo:
    where = f"{path}: scene '{scene_id}'"
    if any(not _equal(entry, entries[0]) for entry in entries[1:]):
        raise SceneError(f"{where} has {len(entries)} entries that differ; expected one; {_REMEDY}")
    entry = entries[0]
    images = entry["images"]
    if not isinstance(images, list) or not images or not all(isinstance(image[0], str) for image in images):
        raise SceneError(f"{where}: 'images' is not a list of entries with 'img_path'; {_REMEDY}")
    names = tuple(image[0].replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0] for image in images)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SceneError(f"{where}: 'images' names frame '{twice}' more than once; {_REMEDY}")
    alignment = _matrix(entry.get("axis_align_matrix"), "axis_align_matrix", where)
    if alignment is not None:
        try:
            check_pose(alignment, "axis_align_matrix")
        except ValueError as error:
            raise SceneError(f"{where}: {error}; expected a rigid 4x4 transform, metres; {_REMEDY}") from error
    colour = entry.get("cam2img", images[0][2])
    return SceneInfo(
        source=path,
        T_aligned_world=alignment,
        colour_matrix=_matrix(colour, "cam2img", where),
        depth_matrix=_matrix(entry.get("depth_cam2img"), "depth_cam2img", where),
        names=names,
        poses={
            name: given for name, image in zip(names, images, strict=True) if (given := _pose(image[1])) is not None
        },
    )


def _pose(value: Any) -> Float[np.ndarray, "4 4"] | None:
    """A frame's pose where the record has one; whether it is rigid is told where it is needed."""
    try:
        pose = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return pose if pose.shape == (4, 4) else None


def _matrix(value: Any, what: str, where: str) -> Float[np.ndarray, "rows columns"] | None:
    if value is None:
        return None
    try:
        matrix = np.asarray(value, dtype=np.float64)
        found = f"of shape {matrix.shape}"
    except (TypeError, ValueError):
        matrix, found = np.zeros(0), repr(value)[:60]
    allowed = ((4, 4),) if what == "axis_align_matrix" else ((3, 3), (4, 4))
    if matrix.shape not in allowed:
        raise SceneError(f"{where}: '{what}' is {found}, expected a matrix of numbers {allowed}; {_REMEDY}")
    return matrix


def _equal(a: Any, b: Any) -> bool:
    """Whether two entries say the same."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
