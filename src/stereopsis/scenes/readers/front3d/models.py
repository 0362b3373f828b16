"""3D-FUTURE models: where they are, their categories, and their triangles, textured where they have a texture."""

import functools
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereopsis.errors import SceneError
from stereopsis.geometry.mesh import TriangleMesh, join_meshes
from stereopsis.reading import is_file, open_image, read_json
from stereopsis.scenes.readers.front3d.house import Damaged, Unavailable

FOLDER = "3D-FUTURE-model"
_FILE = "raw_model.obj"
_JID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_LEVELS = 4
_DEFAULT_GREYS = (102, 104)  # trimesh's own colours where a material names none


def find_models(house: Path, models: Path | None) -> Path | None:
    """The folder of models: the given one, or "3D-FUTURE-model" beside the house file or above it.

    Raises:
        SceneError: the given folder does not exist.
    """
    if models is not None:
        if not models.is_dir():
            raise SceneError(
                f"{models}: no such folder; expected the 3D-FUTURE models (MODEL_ID/{_FILE}); check models=..."
            )
        return models
    for folder in list(house.resolve().parents)[:_LEVELS]:
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    return None


@functools.lru_cache(maxsize=4)
def model_facts(models: Path) -> dict[str, dict[str, Any]]:
    """{model id: its record} of the folder's model_info.json; empty where there is none.

    Raises:
        SceneError: the file is there but is not a list of records.
    """
    file = models / "model_info.json"
    if not file.is_file():
        return {}
    try:
        records = read_json(file)
        return {str(record["model_id"]): record for record in records}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SceneError(
            f"{file}: cannot be read as a list of model records with 'model_id' ({error!r}); restore the file, or "
            "take it away to use the house's own categories"
        ) from error


def load_model(models: Path, jid: Any, label: str) -> TriangleMesh:
    """A model's triangles in its own frame (y up, metres).

    Args:
        models: the folder of models.
        jid: the model's id.
        label: its category; models without texture and material take a colour that belongs to the category.

    Raises:
        Unavailable: the model is not in the folder.
        Damaged: the id is not a plain name, or the file is broken.
    """
    if not isinstance(jid, str) or not _JID.fullmatch(jid):
        raise Damaged(f"model id {jid!r} is not a plain name (letters, digits, '-' and '_')")
    file = models / jid / _FILE
    if not file.is_file():
        raise Unavailable("missing model", f"{file} does not exist")
    stat = file.stat()
    return _load(file, label, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _load(file: Path, label: str, changed: int, size: int) -> TriangleMesh:
    """Read an OBJ file; time and size of the file belong to the cache's key only."""
    import trimesh

    try:
        loaded = trimesh.load_scene(file, process=False)
        parts = [part for part in loaded.geometry.values() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        if not parts:
            raise ValueError("it has no faces")
        return join_meshes([_part(part, file.parent, label) for part in parts])
    except Exception as error:  # a parser of foreign bytes may raise anything
        raise Damaged(f"{file} cannot be read as an OBJ model ({error})") from error


def _part(part: Any, folder: Path, label: str) -> TriangleMesh:
    """One material's share of a model."""
    vertices, faces = np.asarray(part.vertices, dtype=np.float64), np.asarray(part.faces, dtype=np.int64)
    material = getattr(part.visual, "material", None)
    own = None if material is None else np.asarray(material.main_color)[:3]
    if own is None or (np.ptp(own) == 0 and own[0] in _DEFAULT_GREYS):
        own = np.array(category_colour(label))
    mesh = TriangleMesh.from_faces(vertices, faces, np.tile(own.astype(np.uint8), (len(vertices), 1)))
    uv = getattr(part.visual, "uv", None)
    image = getattr(material, "image", None) or _texture(folder)
    if uv is None or len(uv) != len(vertices) or not np.isfinite(uv).all() or image is None:
        return mesh
    return TriangleMesh(
        triangles=mesh.triangles,
        colours=mesh.colours,
        labels=mesh.labels,
        uv=np.asarray(uv, dtype=np.float32)[faces],
        texture=np.zeros(len(faces), dtype=np.int32),
        textures=(np.asarray(image.convert("RGB")),),
    )


def _texture(folder: Path) -> Image.Image | None:
    file = folder / "texture.png"
    return open_image(file) if is_file(file) else None


def category_colour(label: str) -> tuple[int, int, int]:
    """A muted colour that belongs to a category's name, the same in every run."""
    code = zlib.crc32(label.encode())
    return 90 + code % 120, 90 + (code >> 8) % 120, 90 + (code >> 16) % 120
