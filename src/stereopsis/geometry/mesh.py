"""Coloured, labelled triangles: what rays can hit."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from stereopsis.geometry.camera import transform

# Steps of the two-dimensional golden-ratio sequence: consecutive points fill the unit square evenly.
_STEP_U, _STEP_V = 0.7548776662466927, 0.5698402909980532


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TriangleMesh:
    """Triangles with a colour at each corner, or a texture, and a label each.

    Attributes:
        triangles: [triangles, 3, 3] corners, metres.
        colours: [triangles, 3, 3] RGB of each corner.
        labels: [triangles] what the triangle belongs to: an instance or category number; 0 means nothing in particular.
        uv: [triangles, 3, 2] texture coordinates of the corners (v upwards, repeated outside 0..1); None
            without textures.
        texture: [triangles] index into ``textures``; -1 for triangles that show their corners' colours.
        textures: RGB images.
    """

    triangles: Float[np.ndarray, "triangles 3 3"]
    colours: UInt8[np.ndarray, "triangles 3 3"]
    labels: Int[np.ndarray, "triangles"]
    uv: Float[np.ndarray, "triangles 3 2"] | None = None
    texture: Int[np.ndarray, "triangles"] | None = None
    textures: tuple[UInt8[np.ndarray, "_ _ 3"], ...] = ()

    def __len__(self) -> int:
        """The number of triangles."""
        return len(self.triangles)

    @staticmethod
    def from_faces(
        vertices: Float[np.ndarray, "vertices 3"],
        faces: Int[np.ndarray, "faces 3"],
        colours: UInt8[np.ndarray, "vertices 3"],
        labels: Int[np.ndarray, "faces"] | None = None,
    ) -> "TriangleMesh":
        """From shared vertices.

        Args:
            vertices: [vertices, 3] metres.
            faces: [faces, 3] indices of vertices.
            colours: [vertices, 3] RGB.
            labels: [faces]; None: 0 everywhere.

        Raises:
            ValueError: an index beyond the vertices, or NaN or inf in a vertex that a face uses.
        """
        if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise ValueError(
                f"faces name vertices {faces.min()} to {faces.max()}, but there are {len(vertices)} (0 to "
                f"{len(vertices) - 1})"
            )
        triangles = vertices[faces]
        if not np.isfinite(triangles).all():
            raise ValueError("vertices hold NaN or inf")
        return TriangleMesh(
            triangles=triangles,
            colours=colours[faces],
            labels=np.zeros(len(faces), dtype=np.int32) if labels is None else labels,
        )

    def transformed(self, T: Float[np.ndarray, "4 4"]) -> "TriangleMesh":
        """The mesh under an affine map, [4, 4]."""
        return dataclasses.replace(self, triangles=transform(T, self.triangles))

    def labelled(self, label: int) -> "TriangleMesh":
        """The mesh with one label for all triangles."""
        return dataclasses.replace(self, labels=np.full(len(self), label, dtype=np.int32))

    def points_at(
        self, triangle: Int[np.ndarray, "points"], weights: Float[np.ndarray, "points 3"]
    ) -> Float[np.ndarray, "points 3"]:
        """Points by triangle and barycentric weights, float64 metres."""
        return np.einsum("nc,ncd->nd", weights.astype(np.float64), self.triangles[triangle].astype(np.float64))

    def colours_at(
        self, triangle: Int[np.ndarray, "points"], weights: Float[np.ndarray, "points 3"]
    ) -> UInt8[np.ndarray, "points 3"]:
        """RGB at points given by triangle and barycentric weights: interpolated, or the texture's nearest pixel."""
        blend = np.einsum("nc,ncd->nd", weights, self.colours[triangle].astype(np.float32))
        colours = np.clip(np.rint(blend), 0, 255).astype(np.uint8)
        if self.uv is None or self.texture is None:
            return colours
        chosen = self.texture[triangle]
        for number in np.unique(chosen[chosen >= 0]):
            rows = np.flatnonzero(chosen == number)
            image = self.textures[number]
            uv = np.einsum("nc,ncd->nd", weights[rows].astype(np.float64), self.uv[triangle[rows]].astype(np.float64))
            uv -= np.floor(uv)
            height, width = image.shape[:2]
            column = np.minimum((uv[:, 0] * width).astype(np.int64), width - 1)
            row = np.minimum(((1 - uv[:, 1]) * height).astype(np.int64), height - 1)
            colours[rows] = image[row, column]
        return colours

    def sample(self, count: int) -> Float[np.ndarray, "count 3"]:
        """Points spread evenly over the surface, always the same for the same mesh; float64 metres.

        Args:
            count: how many; each stands for the same area.

        Raises:
            ValueError: there is no triangle with an area.
        """
        corners = self.triangles.astype(np.float64)
        doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        reached = np.cumsum(doubled)
        if not len(reached) or not reached[-1] > 0:
            raise ValueError("the mesh has no triangle with an area")
        number = np.arange(count)
        triangle = np.searchsorted(reached, (number + 0.5) * (reached[-1] / count))
        u, v = (0.5 + number * _STEP_U) % 1.0, (0.5 + number * _STEP_V) % 1.0
        beyond = u + v > 1
        u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
        return self.points_at(np.minimum(triangle, len(reached) - 1), np.stack([1 - u - v, u, v], axis=1))


def join_meshes(meshes: Sequence[TriangleMesh]) -> TriangleMesh:
    """One mesh of several, in order; textures are kept.

    Raises:
        ValueError: no meshes.
    """
    if not meshes:
        raise ValueError("there are no meshes to join")
    textured = any(mesh.uv is not None for mesh in meshes)
    textures: list[np.ndarray] = []
    uv, texture = [], []
    for mesh in meshes:
        if mesh.uv is None or mesh.texture is None:
            uv.append(np.zeros((len(mesh), 3, 2), dtype=np.float32))
            texture.append(np.full(len(mesh), -1, dtype=np.int32))
        else:
            uv.append(mesh.uv.astype(np.float32))
            texture.append(np.where(mesh.texture >= 0, mesh.texture + len(textures), -1).astype(np.int32))
            textures.extend(mesh.textures)
    return TriangleMesh(
        triangles=np.concatenate([mesh.triangles for mesh in meshes]),
        colours=np.concatenate([mesh.colours for mesh in meshes]),
        labels=np.concatenate([mesh.labels for mesh in meshes]),
        uv=np.concatenate(uv) if textured else None,
        texture=np.concatenate(texture) if textured else None,
        textures=tuple(textures),
    )
