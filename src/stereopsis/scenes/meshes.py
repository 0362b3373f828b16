"""Triangle meshes from files, with vertices in the file's own order (annotations refer to them by number)."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from stereopsis.errors import SceneError

MESH_SUFFIXES = (".ply", ".obj", ".off", ".stl", ".glb")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: [n, 3] float64, metres, in the file's order.
        triangles: [m, 3] int64, numbers of vertices.
    """

    vertices: Float[np.ndarray, "n 3"]
    triangles: Int[np.ndarray, "m 3"]


def read_mesh(path: Path) -> Mesh:
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
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(
            f"{path}: the mesh cannot be read ({error.strerror}); expected a file; check the path and its permissions"
        ) from error
    vertices, triangles = _parse(path, data)
    if not (len(vertices) and len(triangles)):
        raise SceneError(
            f"{path}: holds no triangles; expected a surface; use the reconstructed mesh, not its point cloud"
        )
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices).all(axis=1)).sum())
        raise SceneError(
            f"{path}: {bad} of {len(vertices)} vertices are NaN or inf; expected finite metres; export the mesh again"
        )
    if not (triangles.min() >= 0 and triangles.max() < len(vertices)):
        raise SceneError(
            f"{path}: triangles name vertices {triangles.min()} to {triangles.max()}, but there are "
            f"{len(vertices)}; the file is damaged; restore it or export the mesh again"
        )
    return Mesh(vertices=vertices, triangles=triangles)


def _parse(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    import trimesh

    try:
        # No resolver: files that a mesh names (textures, materials) are not followed. Unmerging at texture
        # seams and sorting would renumber the vertices.
        loaded = trimesh.load_mesh(
            io.BytesIO(data),
            file_type=path.suffix.lower()[1:],
            process=False,
            **{".ply": {"fix_texture": False, "skip_materials": True}, ".obj": {"maintain_order": True}}.get(
                path.suffix.lower(), {}
            ),
        )
        vertices = np.array(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        triangles = np.array(getattr(loaded, "faces", ()), dtype=np.int64).reshape(-1, 3)
    except Exception as error:  # the parser meets damage with whatever error comes first
        raise SceneError(
            f"{path}: the {len(data)} bytes found cannot be read as a mesh ({type(error).__name__}: {error}); "
            f"expected a complete {path.suffix.lower()} file of triangles; restore it or export the mesh again"
        ) from error
    return vertices, triangles
