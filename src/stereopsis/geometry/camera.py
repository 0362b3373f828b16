"""Pinhole cameras: intrinsics, pose checks, projection and unprojection.

Camera axes are OpenCV's (x right, y down, z forward); poses are ``T_world_camera`` (camera to world), metres.
The centre of pixel (column u, row v) lies at image coordinates (u + 0.5, v + 0.5); everything in this package
follows that one rule.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

ORTHONORMAL_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A pinhole camera's focal lengths and principal point, in pixels of an image of the given size."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @staticmethod
    def from_matrix(K: np.ndarray, width: int, height: int) -> "Intrinsics":
        """Read a 3x3 (or 4x4, as ScanNet writes it) matrix K.

        Args:
            K: [3, 3] or [4, 4], pixels.
            width: of the image that K belongs to, pixels.
            height: of the image that K belongs to, pixels.

        Raises:
            ValueError: wrong shape, NaN, a focal length that is not positive, or a skewed (not pinhole)
                matrix.
        """
        K = np.asarray(K, dtype=np.float64)
        if K.shape not in ((3, 3), (4, 4)):
            raise ValueError(f"intrinsics: shape {K.shape}, expected (3, 3) or (4, 4)")
        if not np.isfinite(K).all():
            raise ValueError("intrinsics: the matrix holds NaN or inf")
        fx, fy = float(K[0, 0]), float(K[1, 1])
        if fx <= 0 or fy <= 0:
            raise ValueError(f"intrinsics: focal lengths must be positive, found fx = {fx:g}, fy = {fy:g}")
        skew = max(abs(K[0, 1]), abs(K[1, 0]), abs(K[2, 0]), abs(K[2, 1]), abs(K[2, 2] - 1.0))
        if skew > 1e-6 * max(fx, fy):
            raise ValueError("intrinsics: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], found skew or a wrong row")
        return Intrinsics(fx=fx, fy=fy, cx=float(K[0, 2]), cy=float(K[1, 2]), width=int(width), height=int(height))

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """The 3x3 matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> "Intrinsics":
        """Intrinsics of the same image after resizing it to ``width`` x ``height`` pixels."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            fx=self.fx * sx, fy=self.fy * sy, cx=self.cx * sx, cy=self.cy * sy, width=width, height=height
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> "Intrinsics":
        """Intrinsics of the crop that starts at pixel (``left``, ``top``)."""
        return Intrinsics(fx=self.fx, fy=self.fy, cx=self.cx - left, cy=self.cy - top, width=width, height=height)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PointMap:
    """A depth image as world points.

    Attributes:
        points: [height, width, 3] metres; zeros where invalid.
        valid: [height, width], True where the depth is finite and positive.
    """

    points: Float[np.ndarray, "height width 3"]
    valid: Bool[np.ndarray, "height width"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Where points land in an image.

    Attributes:
        pixels: [..., 2] image coordinates (u, v); pixel (column, row) covers [column, column + 1) x [row, row
            + 1). NaN for points in the camera's own plane (depth exactly 0).
        depth: [...] z-depth in metres; negative behind the camera. Points with depth <= 0 are not visible.
    """

    pixels: Float[np.ndarray, "*points 2"]
    depth: Float[np.ndarray, "*points"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rays:
    """One ray per pixel centre.

    Attributes:
        origin: [3] the camera centre in the world, metres.
        directions: [height, width, 3] in world axes.
    """

    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "height width 3"]


def check_pose(T: np.ndarray, what: str = "pose") -> None:
    """Refuse a matrix that is not a rigid transform.

    Args:
        T: what should be a [4, 4] rotation and translation.
        what: name of the matrix for the message, for example ``"pose of frame 12"``.

    Raises:
        ValueError: wrong shape, NaN or inf, a wrong last row, a rotation further than 1e-2 from orthonormal
            (largest entry of R^T R - I), or mirrored axes.
    """
    T = np.asarray(T)
    if T.shape != (4, 4):
        raise ValueError(f"{what}: shape {T.shape}, expected (4, 4)")
    if T.dtype.kind not in "fiu":
        raise ValueError(f"{what}: entries of type {T.dtype}, expected numbers")
    if not np.isfinite(T).all():
        raise ValueError(f"{what}: the matrix holds NaN or inf")
    T = T.astype(np.float64)
    if np.abs(T[3] - (0.0, 0.0, 0.0, 1.0)).max() > 1e-6:
        raise ValueError(f"{what}: last row is not 0 0 0 1 but {' '.join(f'{x:g}' for x in T[3])}")
    R = T[:3, :3]
    error = float(np.abs(R.T @ R - np.eye(3)).max())
    if error > ORTHONORMAL_TOLERANCE:
        raise ValueError(
            f"{what}: rotation is not orthonormal: |R^T R - I| = {error:.3g}, tolerance {ORTHONORMAL_TOLERANCE:g}"
        )
    if np.linalg.det(R) < 0:
        raise ValueError(f"{what}: determinant -1: mirrored axes (a reflection, not a rotation)")


def transform(T: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "*points 3"]) -> Float[np.ndarray, "*points 3"]:
    """Apply a [4, 4] transform to points; computed in float64, returned in the points' dtype."""
    T = np.asarray(T, dtype=np.float64)
    return (points @ T[:3, :3].T + T[:3, 3]).astype(points.dtype, copy=False)


def invert_pose(T: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """The inverse of a pose, float64.

    The general inverse is used, not the transpose: measured rotations are orthonormal only to about 1e-4, and
    the round trip through the inverse should be exact.
    """
    inverse = np.linalg.inv(np.asarray(T, dtype=np.float64))
    inverse[3] = (0.0, 0.0, 0.0, 1.0)
    return inverse


def _pixel_directions(intrinsics: Intrinsics) -> np.ndarray:
    """[height, width, 3] camera-axis directions through the pixel centres, with z = 1."""
    directions = np.ones((intrinsics.height, intrinsics.width, 3))
    directions[..., 0] = (np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
    directions[..., 1] = ((np.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy)[:, None]
    return directions


def camera_rays(intrinsics: Intrinsics, T_world_camera: Float[np.ndarray, "4 4"], *, unit: bool = False) -> Rays:
    """The ray through each pixel centre, float64.

    Args:
        intrinsics: of the image.
        T_world_camera: camera to world, metres.
        unit: scale directions to length 1. Otherwise their camera z is 1, so that the ray parameter of a hit
            IS its z-depth.
    """
    directions = _pixel_directions(intrinsics)
    if unit:
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    T = np.asarray(T_world_camera, dtype=np.float64)
    return Rays(origin=T[:3, 3].copy(), directions=directions @ T[:3, :3].T)


def unproject(
    depth: Float[np.ndarray, "height width"], intrinsics: Intrinsics, T_world_camera: Float[np.ndarray, "4 4"]
) -> PointMap:
    """World point of every pixel of a z-depth image; computed in float64, returned in the depth's dtype.

    Args:
        depth: [height, width] z-depth in metres; 0, negative and non-finite values are invalid.
        intrinsics: of the depth image (its size must match).
        T_world_camera: camera to world, metres.

    Raises:
        ValueError: the sizes differ, the depth is an integer image (millimetres?), or the pose is not rigid.
    """
    if depth.dtype.kind != "f":
        raise ValueError(f"depth: type {depth.dtype}, expected floating-point metres; divide millimetres by 1000")
    if depth.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"depth: {depth.shape[1]} x {depth.shape[0]} pixels, but the intrinsics are for "
            f"{intrinsics.width} x {intrinsics.height}; resize them together"
        )
    check_pose(T_world_camera)
    valid = np.isfinite(depth) & (depth > 0)
    all_valid = bool(valid.all())
    z = (depth if all_valid else np.where(valid, depth, 0.0)).astype(np.float64)
    points = np.empty((*depth.shape, 3), dtype=depth.dtype)
    axis = np.empty(depth.shape)
    for number, (across, down, offset) in enumerate(ray_slopes(intrinsics, T_world_camera)):
        np.add(across, down[:, None], out=axis)
        axis *= z
        axis += offset
        points[..., number] = axis
    if not all_valid:
        points[~valid] = 0.0
    return PointMap(points=points, valid=valid)


def ray_slopes(
    intrinsics: Intrinsics, T_world_camera: Float[np.ndarray, "4 4"]
) -> list[tuple[Float[np.ndarray, "width"], Float[np.ndarray, "height"], float]]:
    """Per world axis (x, y, z): what turns depth into that coordinate, ``depth * (across[u] + down[v]) + offset``.

    A pinhole's rays are linear in column and row, so that a whole image needs one addition and one
    multiplication per pixel and axis instead of a matrix product.

    Args:
        intrinsics: of the depth image.
        T_world_camera: camera to world, metres.
    """
    T = np.asarray(T_world_camera, dtype=np.float64)
    across = (np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
    down = (np.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy
    return [(row[0] * across + row[2], row[1] * down, float(row[3])) for row in T[:3]]


def project(
    points: Float[np.ndarray, "*points 3"], intrinsics: Intrinsics, T_world_camera: Float[np.ndarray, "4 4"]
) -> Projection:
    """Image coordinates and z-depth of world points, float64; nothing is clipped to the image.

    Args:
        points: [..., 3] world, metres.
        intrinsics: of the image.
        T_world_camera: camera to world, metres.

    Raises:
        ValueError: the pose is not rigid.
    """
    check_pose(T_world_camera)
    camera = transform(invert_pose(T_world_camera), np.asarray(points, dtype=np.float64))
    depth = camera[..., 2]
    safe = np.where(depth == 0.0, np.nan, depth)
    pixels = np.stack(
        [
            intrinsics.fx * camera[..., 0] / safe + intrinsics.cx,
            intrinsics.fy * camera[..., 1] / safe + intrinsics.cy,
        ],
        axis=-1,
    )
    return Projection(pixels=pixels, depth=depth)
