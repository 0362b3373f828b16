"""Photographs of a mesh: colour, z-depth and label images from any pose, by ray casting."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.geometry.raycast import cast, cast_hits, embree_scene, view_rays
from stereopsis.scenes.surfaces.lighting import Lighting, facing_normals, lambert

NOTHING = -1
"""Label of pixels whose ray meets no triangle."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MeshView:
    """A mesh as one camera sees it.

    Attributes:
        colour: RGB; black where a ray meets nothing.
        depth: float32 z-depth, metres; 0 where a ray meets nothing.
        labels: the triangles' labels; `NOTHING` where a ray meets nothing.
    """

    colour: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    labels: Int[np.ndarray, "height width"]


class MeshRenderer:
    """A mesh that is ready to be photographed; the same view gives the same bytes each time."""

    def __init__(self, mesh: TriangleMesh, lighting: Lighting | None = None) -> None:
        """Build what the rays need.

        Args:
            mesh: in the frame of the poses, metres.
            lighting: None shows every surface in its own colour (right for scans, whose colours are lit).

        Raises:
            MissingExtraError: embreex is not installed.
        """
        self.mesh = mesh
        self._lighting = lighting
        self._scene: Any = embree_scene(mesh.triangles)

    def render(self, intrinsics: Intrinsics, T_world_camera: Float[np.ndarray, "4 4"]) -> MeshView:
        """Colour, depth and labels of one view.

        Args:
            intrinsics: of the image.
            T_world_camera: camera to the mesh's frame, metres, OpenCV axes.
        """
        shape = (intrinsics.height, intrinsics.width)
        origins, directions = view_rays(intrinsics, T_world_camera[None])
        hits = cast_hits(self._scene, origins, directions)
        seen = np.flatnonzero(hits.triangle >= 0)
        triangle, weights = hits.triangle[seen], hits.weights[seen]
        colour = np.zeros((len(origins), 3), dtype=np.uint8)
        own = self.mesh.colours_at(triangle, weights)
        if self._lighting is None:
            colour[seen] = own
        else:
            points = (origins[seen] + directions[seen] * hits.distance[seen, None]).T.copy()
            normal = facing_normals(self.mesh.triangles, triangle, directions[seen])
            light = lambert(self._lighting, points, normal)[:, None] * self._lighting.tint
            colour[seen] = np.clip(own * light, 6, 255).astype(np.uint8)  # never black, so that shapes stay visible
        labels = np.where(hits.triangle >= 0, self.mesh.labels[hits.triangle], NOTHING)
        return MeshView(
            colour=colour.reshape(*shape, 3),
            depth=hits.distance.astype(np.float32).reshape(shape),
            labels=labels.astype(np.int32).reshape(shape),
        )

    def labels(self, intrinsics: Intrinsics, T_world_camera: Float[np.ndarray, "4 4"]) -> Int[np.ndarray, "h w"]:
        """The labels alone, faster than `render` and equal to its."""
        triangle, _ = cast(self._scene, *view_rays(intrinsics, T_world_camera[None]))
        labels = np.where(triangle >= 0, self.mesh.labels[triangle], NOTHING).astype(np.int32)
        return labels.reshape(intrinsics.height, intrinsics.width)
