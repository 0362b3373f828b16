"""Mesh files: scans and fused surfaces, read and written through trimesh."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from stereopsis.errors import SceneError
from stereopsis.files import write_atomic
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.reading import read_bytes

MESH_SUFFIXES = (".ply", ".obj", ".off", ".stl", ".glb")
_GREY = 160
# Unmerging at texture seams and sorting would renumber the vertices.
_KEEP_ORDER: dict[str, dict[str, bool]] = {
    ".ply": {"fix_texture": False, "skip_materials": True},
    ".obj": {"maintain_order": True},
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class IndexedMesh:
    """A triangle mesh with vertices in the file's own order, as annotations refer to them by number.

    Attributes:
        vertices: [n, 3] float64, metres.
        faces: [m, 3] int64, numbers of vertices.
        colours: [n, 3] RGB of the vertices; grey where the file has none.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    colours: UInt8[np.ndarray, "n 3"]


def read_indexed_mesh(path: str | Path) -> IndexedMesh:
    """Read a mesh file; nothing is merged, dropped or reordered, and no texture is opened.

    Args:
        path: a .ply, .obj, .off, .stl or .glb file. (.stl repeats vertices per triangle.)

    Raises:
        SceneError: no such file, another suffix, damaged, a point cloud, with vertices that are not finite,
            or with triangles that name vertices which do not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise SceneError(f"{path}: expected a mesh file ({', '.join(MESH_SUFFIXES)}); convert it to .ply")
    try:
        data = read_bytes(path)
    except OSError as error:
        raise SceneError(
            f"{path}: the mesh cannot be read ({error.strerror}); expected a file; check the path and its permissions"
        ) from error
    mesh = _parse(path, data)
    if not (len(mesh.vertices) and len(mesh.faces)):
        raise SceneError(
            f"{path}: holds no triangles; expected a surface; use the reconstructed mesh, not its point cloud"
        )
    if not np.isfinite(mesh.vertices).all():
        bad = int((~np.isfinite(mesh.vertices).all(axis=1)).sum())
        raise SceneError(
            f"{path}: {bad} of {len(mesh.vertices)} vertices are NaN or inf; expected finite metres; export the mesh "
            "again"
        )
    if not (mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)):
        raise SceneError(
            f"{path}: triangles name vertices {mesh.faces.min()} to {mesh.faces.max()}, but there are "
            f"{len(mesh.vertices)}; the file is damaged; restore it or export the mesh again"
        )
    return mesh


def read_mesh(path: str | Path) -> TriangleMesh:
    """Read a mesh with vertex colours, such as ScanNet's ``*_vh_clean_2.ply``; meshes without are grey.

    Labels are 0; give others with ``dataclasses.replace(mesh, labels=...)`` (triangles stay in file order).

    Args:
        path: as for `read_indexed_mesh`, metres.

    Raises:
        SceneError: see `read_indexed_mesh`.
    """
    mesh = read_indexed_mesh(path)
    return TriangleMesh.from_faces(mesh.vertices, mesh.faces, mesh.colours)


def _parse(path: Path, data: bytes) -> IndexedMesh:
    import trimesh

    try:
        # No resolver: files that a mesh names (textures, materials) are not followed.
        loaded = trimesh.load_mesh(
            io.BytesIO(data),
            file_type=path.suffix.lower()[1:],
            process=False,
            **_KEEP_ORDER.get(path.suffix.lower(), {}),
        )
        vertices = np.array(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.array(getattr(loaded, "faces", ()), dtype=np.int64).reshape(-1, 3)
        return IndexedMesh(vertices=vertices, faces=faces, colours=_vertex_colours(loaded, len(vertices)))
    except Exception as error:  # the parser meets damage with whatever error comes first
        raise SceneError(
            f"{path}: the {len(data)} bytes found cannot be read as a mesh ({type(error).__name__}: {error}); "
            f"expected a complete {path.suffix.lower()} file of triangles; restore it or export the mesh again"
        ) from error


def _vertex_colours(mesh: Any, count: int) -> np.ndarray:
    """RGB of each vertex of a trimesh mesh, whatever its colours are given by."""
    grey = np.full((count, 3), _GREY, dtype=np.uint8)
    visual = getattr(mesh, "visual", None)
    if visual is None or visual.kind is None:
        return grey
    colours = np.asarray((visual.to_color() if visual.kind == "texture" else visual).vertex_colors)
    return colours[:, :3].astype(np.uint8) if colours.shape == (count, 4) else grey


def write_mesh(mesh: TriangleMesh, path: str | Path) -> Path:
    """Write a mesh atomically as binary PLY with colours at the vertices; equal corners are joined.

    Raises:
        SceneError: the suffix is not .ply, or the file cannot be written.
    """
    import trimesh

    path = Path(path)
    if path.suffix.lower() != ".ply":
        raise SceneError(f"{path}: meshes are written as .ply; change the file's suffix")
    corners = np.concatenate(
        [mesh.triangles.reshape(-1, 3).astype(np.float32).view(np.uint8).reshape(-1, 12), mesh.colours.reshape(-1, 3)],
        axis=1,
    )
    _, first, vertex = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    written = trimesh.Trimesh(
        vertices=mesh.triangles.reshape(-1, 3)[first],
        faces=vertex.reshape(-1, 3),
        vertex_colors=mesh.colours.reshape(-1, 3)[first],
        process=False,
    )
    data = written.export(file_type="ply")
    assert isinstance(data, bytes)
    return write_atomic(path, data, error=SceneError)
