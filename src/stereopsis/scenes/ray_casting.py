"""Rays against triangles, by Embree: the procedural rooms' pictures and depth from meshes both come from here."""

from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stereopsis.errors import MissingExtraError


def embree_scene(triangles: Float[np.ndarray, "triangles 3 3"], *, purpose: str = "ray casting") -> Any:
    """Build Embree's bounding volume hierarchy over float32 triangles.

    Args:
        triangles: [triangles, 3, 3] corners, metres.
        purpose: what the rays are for, for the message where embreex is absent.

    Raises:
        MissingExtraError: embreex is not installed.
    """
    module, mesh_type = _embree(purpose)
    scene = module.EmbreeScene()
    mesh_type(scene, np.ascontiguousarray(triangles, dtype=np.float32))
    return scene


def cast(
    scene: Any, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
) -> tuple[Int[np.ndarray, "rays"], Float[np.ndarray, "rays"]]:
    """First triangle hit (-1: none) and the ray parameter there (0: none).

    The parameter counts lengths of the direction: where directions advance z-depth by 1, it is the z-depth.

    Args:
        scene: of `embree_scene`.
        origins: float32 [rays, 3] metres.
        directions: float32 [rays, 3].
    """
    hits = scene.run(origins, directions, output=True)
    triangle = hits["primID"].astype(np.int64)
    return triangle, np.where(triangle >= 0, hits["tfar"], np.float32(0.0))


def _embree(purpose: str) -> tuple[ModuleType, Any]:
    try:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh
    except ImportError as error:
        raise MissingExtraError("embreex", "rooms", purpose) from error
    return rtcore_scene, TriangleMesh
