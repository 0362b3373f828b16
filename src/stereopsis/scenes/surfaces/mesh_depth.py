"""Depth images for captures that have none: rays through the pixels against the scene's mesh.

Any posed capture with a reconstructed mesh can have depth this way, exactly as its geometry says: no sensor
noise, holes only where the mesh has holes. A ray goes through each pixel's centre, also in the smaller images that
`with_mesh_depth` makes, so that smaller depth is sampled, never interpolated across edges.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics, camera_rays, check_pose, invert_pose
from stereopsis.geometry.raycast import cast, embree_scene
from stereopsis.scenes.scene import Frame, Scene
from stereopsis.scenes.surfaces.meshes import read_indexed_mesh

MAX_SIDE = 640
_MESHES_KEPT = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Target:
    """A mesh that rays can meet.

    Attributes:
        embree: its bounding volume hierarchy, in coordinates around the centre.
        centre: [3] metres; what Embree computes in float32 stays exact to micrometres near it.
    """

    embree: Any
    centre: np.ndarray


def cast_depth(
    mesh_path: Path, intrinsics: Intrinsics, T_mesh_camera: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "height width"]:
    """The depth image that a camera would take of a mesh.

    The mesh is loaded once per process; the two latest meshes are kept.

    Args:
        mesh_path: the mesh's file.
        intrinsics: of the depth image to make.
        T_mesh_camera: camera to the mesh's coordinates, metres.

    Returns:
        float32 [height, width] z-depth in metres; 0 where the ray meets nothing.

    Raises:
        MissingExtraError: embreex is not installed.
        SceneError: the mesh cannot be read, see `stereopsis.scenes.surfaces.meshes.read_indexed_mesh`.
    """
    target = _load_target(Path(mesh_path))
    rays = camera_rays(intrinsics, T_mesh_camera)
    directions = rays.directions.reshape(-1, 3).astype(np.float32)
    origin = (rays.origin - target.centre).astype(np.float32)
    depth = cast(target.embree, np.tile(origin, (len(directions), 1)), directions)[1]
    return depth.astype(np.float32, copy=False).reshape(intrinsics.height, intrinsics.width)


def with_mesh_depth(
    scene: Scene,
    mesh_path: str | Path,
    *,
    T_world_mesh: Float[np.ndarray, "4 4"] | None = None,
    max_side: int | None = MAX_SIDE,
    replace: bool = False,
) -> Scene:
    """The scene with depth from a mesh in every frame that has none; nothing is cast before it is asked for.

    Args:
        scene: posed colour frames.
        mesh_path: .ply, .obj, .off, .stl or .glb, in metres.
        T_world_mesh: [4, 4] the mesh's coordinates to the frames' world; None: they are the same.
        max_side: depth images are as large as colour, but at most this many pixels along the longer side (such
            frames get depth intrinsics of their own); None: no limit.
        replace: frames that have depth get the mesh's instead.

    Returns:
        The scene; ``provenance["depth"]`` tells the mesh and how many frames use it.

    Raises:
        SceneError: the mesh file does not exist, the transform is not rigid, or max_side is not positive. What is
            wrong inside the mesh, or a missing embreex, is told when the first depth is asked for.
    """
    mesh_path = Path(mesh_path)
    if not mesh_path.is_file():
        raise SceneError(f"{mesh_path}: no such mesh; depth is cast from a mesh file; check the path")
    if max_side is not None and max_side < 1:
        raise SceneError(f"max_side={max_side}: expected a positive number of pixels, or None for no limit")
    T_mesh_world = np.eye(4)
    if T_world_mesh is not None:
        try:
            check_pose(T_world_mesh, "T_world_mesh")
        except ValueError as error:
            raise SceneError(f"{error}; expected a rigid 4x4 transform, metres; correct it") from error
        T_mesh_world = invert_pose(T_world_mesh)
    wanted = [replace or frame.load_depth is None for frame in scene.frames]
    frames = tuple(
        _with_depth(frame, mesh_path, T_mesh_world, max_side) if cast_it else frame
        for frame, cast_it in zip(scene.frames, wanted, strict=True)
    )
    facts = {"source": "mesh", "mesh": str(mesh_path), "frames": sum(wanted), "max_side": max_side}
    return scene.replace(frames=frames, provenance={**scene.provenance, "depth": facts})


def _with_depth(frame: Frame, mesh_path: Path, T_mesh_world: np.ndarray, max_side: int | None) -> Frame:
    camera = frame.intrinsics
    longer = max(camera.width, camera.height)
    depth_camera = camera
    if max_side is not None and longer > max_side:
        width, height = (max(1, round(side * max_side / longer)) for side in (camera.width, camera.height))
        depth_camera = camera.resized(width, height)
    return dataclasses.replace(
        frame,
        load_depth=functools.partial(cast_depth, mesh_path, depth_camera, T_mesh_world @ frame.T_world_camera),
        depth_intrinsics=None if depth_camera == camera else depth_camera,
    )


def _load_target(path: Path) -> _Target:
    try:
        status = path.stat()
    except OSError as error:
        raise SceneError(
            f"{path}: the mesh cannot be read ({error.strerror}); depth is cast from it; restore the file"
        ) from error
    return _build_target(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=_MESHES_KEPT)
def _build_target(path: Path, modified: int, size: int) -> _Target:
    """Time and size are part of the key, so that a mesh that was written anew is read anew."""
    mesh = read_indexed_mesh(path)
    centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    corners = (mesh.vertices - centre).astype(np.float32)[mesh.faces]
    return _Target(embree=embree_scene(corners, purpose="depth from a mesh"), centre=centre)
