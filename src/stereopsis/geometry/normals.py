"""Surface normals of depth images (from pixel neighbours) and of bare point clouds (from nearest points)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, spatial


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NormalMap:
    """Surface normals of a depth image.

    Attributes:
        normals: [height, width, 3] unit length, towards the camera; zeros where invalid.
        valid: [height, width], False at depth edges, holes, image borders and strongly curved spots.
    """

    normals: Float[np.ndarray, "height width 3"]
    valid: Bool[np.ndarray, "height width"]


def estimate_normals(
    points: Float[np.ndarray, "height width 3"],
    valid: Bool[np.ndarray, "height width"],
    radius: int = 6,
    max_bend: float = 0.5,
) -> NormalMap:
    """Normals from the cross product of smoothed differences to the neighbours above, below, left and right.

    Each neighbour is the mean over a window about `radius` pixels wide, `radius` pixels away; averaging
    before differencing takes most of a depth sensor's noise out. Works in any frame: the side that faces the
    camera follows from the order of pixels.

    Args:
        points: [height, width, 3] camera or world, metres.
        valid: [height, width].
        radius: pixels; larger is smoother and loses more at edges.
        max_bend: a pixel is invalid where it lies further off the middle between two opposite neighbours than
            half this share of their distance: |after + before - 2 pixel| > max_bend * |after - before|. At a
            depth edge the pixel lies on one side of it, and the ratio is near 1.

    Raises:
        ValueError: a radius below 1.
    """
    if radius < 1:
        raise ValueError(f"radius is {radius}, expected at least 1 pixel")
    window = 2 * (radius // 2) + 1
    reach = radius + window // 2  # beyond this distance from a pixel nothing is used
    usable = ndimage.minimum_filter(valid, size=2 * reach + 1, mode="constant")
    normals = np.zeros(points.shape)
    anchor = points[valid].mean(axis=0) if valid.any() else np.zeros(3)  # small numbers: less cancellation
    local = np.where(valid[..., None], points.astype(np.float64) - anchor, 0.0)
    mean = ndimage.uniform_filter(local, size=(window, window, 1), mode="constant")
    straight = np.ones(valid.shape, dtype=bool)
    baselines = []
    for axis in (1, 0):
        after, before = np.roll(mean, -radius, axis=axis), np.roll(mean, radius, axis=axis)
        baselines.append(after - before)
        bend = np.linalg.norm(after + before - 2 * local, axis=-1)
        straight &= bend <= max_bend * np.linalg.norm(baselines[-1], axis=-1)
    across, down = baselines
    cross = np.cross(down, across)
    length = np.linalg.norm(cross, axis=-1)
    good = usable & straight & (length > 0)
    normals[good] = cross[good] / length[good, None]
    return NormalMap(normals=normals, valid=good)


def estimate_cloud_normals(points: Float[np.ndarray, "n 3"], neighbours: int = 16) -> Float[np.ndarray, "n 3"]:
    """Normals of a bare point cloud, sign arbitrary: the direction of least spread among the nearest points.

    Args:
        points: [n, 3] metres.
        neighbours: how many points, itself included, make a patch.

    Raises:
        ValueError: fewer points than neighbours.
    """
    if not 3 <= neighbours <= len(points):
        raise ValueError(f"{len(points)} points cannot give patches of {neighbours}; at least 3 are needed")
    _, index = spatial.cKDTree(points).query(points, k=neighbours)
    patches = points[index].astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", patches, patches))
    return vectors[:, :, 0]
