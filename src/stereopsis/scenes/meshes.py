"""Mesh files: scans and fused surfaces, read and written through trimesh."""

from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.errors import SceneError
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.scenes.images import write_atomic

_GREY = 160
_EXPECTED = "a triangle mesh with finite vertices (PLY, OBJ, GLB, ...), colours at its vertices where it has any"


def read_mesh(path: str | Path) -> TriangleMesh:
    """Read a mesh with vertex colours, such as ScanNet's ``*_vh_clean_2.ply``; meshes without are grey.

    Labels are 0; give others with ``dataclasses.replace(mesh, labels=...)`` (triangles stay in file order).

    Args:
        path: a file of any kind that trimesh reads, in metres.

    Raises:
        SceneError: no such file, not a mesh, no faces, NaN, or faces that name absent vertices.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise SceneError(f"{path}: no such mesh file; expected {_EXPECTED}; check the path")
    try:
        mesh = trimesh.load_mesh(path, process=False)
        vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
        if not len(faces):
            raise ValueError("it has no faces")
        return TriangleMesh.from_faces(vertices, faces, _vertex_colours(mesh))
    except Exception as error:  # a parser of foreign bytes may raise anything
        raise SceneError(
            f"{path}: cannot be read as a mesh ({error}); expected {_EXPECTED}; export it again"
        ) from error


def _vertex_colours(mesh: Any) -> np.ndarray:
    """RGB of each vertex of a trimesh mesh, whatever its colours are given by."""
    grey = np.full((len(mesh.vertices), 3), _GREY, dtype=np.uint8)
    if mesh.visual.kind is None:
        return grey
    visual = mesh.visual.to_color() if mesh.visual.kind == "texture" else mesh.visual
    colours = np.asarray(visual.vertex_colors)
    return colours[:, :3].astype(np.uint8) if colours.shape == (len(grey), 4) else grey


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
    return write_atomic(path, data)
