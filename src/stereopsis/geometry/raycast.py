"""First hits of rays on triangles, found by Embree (the extra ``rooms``)."""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stereopsis.errors import MissingExtraError
from stereopsis.geometry.camera import Intrinsics


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """Where rays meet triangles first.

    Attributes:
        triangle: [rays] index of the triangle; -1 where a ray meets none.
        distance: [rays] ray parameter of the hit (the z-depth for rays of `view_rays`); 0 where there is none.
        weights: [rays, 3] barycentric weights of the triangle's corners; meaningless where there is no hit.
    """

    triangle: Int[np.ndarray, "rays"]
    distance: Float[np.ndarray, "rays"]
    weights: Float[np.ndarray, "rays 3"]


def _embree(purpose: str) -> tuple[ModuleType, Any]:
    try:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh
    except ImportError as error:
        raise MissingExtraError("embreex", "rooms", purpose) from error
    return rtcore_scene, TriangleMesh


def embree_scene(triangles: Float[np.ndarray, "triangles 3 3"], *, purpose: str = "casting rays at triangles") -> Any:
    """Build Embree's bounding volume hierarchy over triangles; both sides of each are hit.

    Args:
        triangles: [triangles, 3, 3] corners; Embree computes in float32.
        purpose: what the rays are for, for the message where embreex is absent.

    Raises:
        MissingExtraError: embreex is not installed.
    """
    module, mesh_type = _embree(purpose)
    scene = module.EmbreeScene()
    mesh_type(scene, np.ascontiguousarray(triangles, dtype=np.float32))
    return scene


def view_rays(
    intrinsics: Intrinsics, poses: Float[np.ndarray, "views 4 4"]
) -> tuple[Float[np.ndarray, "rays 3"], Float[np.ndarray, "rays 3"]]:
    """Origins and directions (float32) of all pixels of all views, row-major; directions advance z-depth by 1.

    Args:
        intrinsics: of every view.
        poses: [views, 4, 4] camera to world, metres.
    """
    columns = (np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
    rows = (np.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy
    ones = np.ones((intrinsics.height, intrinsics.width))
    camera = np.stack([*np.meshgrid(columns, rows), ones], axis=-1).reshape(-1, 3)
    directions = np.concatenate([camera @ pose[:3, :3].T for pose in poses]).astype(np.float32)
    origins = np.repeat(poses[:, :3, 3].astype(np.float32), len(camera), axis=0)
    return origins, directions


def cast(
    scene: Any, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
) -> tuple[Int[np.ndarray, "rays"], Float[np.ndarray, "rays"]]:
    """First triangle hit (-1: none) and the ray parameter there (z-depth for `view_rays`; 0: none)."""
    hits = scene.run(origins, directions, output=True)
    triangle = hits["primID"].astype(np.int64)
    return triangle, np.where(triangle >= 0, hits["tfar"], np.float32(0.0))


def cast_hits(scene: Any, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]) -> Hits:
    """Like `cast`, with the place of each hit within its triangle."""
    hits = scene.run(
        np.ascontiguousarray(origins, dtype=np.float32),
        np.ascontiguousarray(directions, dtype=np.float32),
        output=True,
    )
    triangle = hits["primID"].astype(np.int64)
    u, v = hits["u"], hits["v"]
    return Hits(
        triangle=triangle,
        distance=np.where(triangle >= 0, hits["tfar"], np.float32(0.0)),
        weights=np.stack([1 - u - v, u, v], axis=1),
    )
