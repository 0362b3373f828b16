"""Turn a capture upright: gravity from its horizontal surfaces, yaw from walls, zero height from the floor.

Hand-held captures come in the frame of their first camera. A bird's-eye view, axis-aligned boxes and
Video-3D-LLM's coordinate range all need z up and walls along x and y.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from stereopsis.geometry.normals import estimate_cloud_normals

HINT_CONE = 35.0  # degrees around the hint in which up is looked for
_AXIS_TOLERANCE = 10.0  # degrees within which a normal counts for a direction
_MAX_POINTS = 200_000
_MIN_POINTS = 100
_MIN_SHARE = 0.01  # of normals within 5 degrees of up; normals without any order give 0.004
_BIN = 0.02  # metres, of the histograms that find planes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """A gravity- and wall-aligned frame, and how much the scene supports it.

    Attributes:
        T_aligned_world: [4, 4] float64; z up, floor at z = 0, walls along x and y, the scene's middle at x =
            y = 0. Of the four possible yaws, the one whose x axis is nearest the world's x axis.
        confidence: 0..1, share of surface normals within 10 degrees of an aligned axis, less what normals
            without any order would give (4.6 %).
        floor_inliers: 0..1, share of points within 3 cm of z = 0.
        horizontal_share: 0..1, share of normals within 10 degrees of vertical (floor, tables, ceiling).
        wall_share: 0..1, share of normals within 10 degrees of the x or y axis.
    """

    T_aligned_world: Float[np.ndarray, "4 4"]
    confidence: float
    floor_inliers: float
    horizontal_share: float
    wall_share: float


def up_from_cameras(T_world_camera: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "3"]:
    """A first guess of the up direction in the world from how people hold cameras.

    People pitch cameras but hardly roll them: the cameras' x axes are nearly horizontal. So up is the
    direction most nearly perpendicular to all of them, drawn weakly towards the mean of the cameras' own up
    (-y), which decides where all cameras look the same way.

    Args:
        T_world_camera: [n, 4, 4] camera to world.

    Returns:
        [3] unit length, float64.

    Raises:
        ValueError: no poses.
    """
    if not len(T_world_camera):
        raise ValueError("cannot tell up from zero poses")
    right = T_world_camera[:, :3, 0].astype(np.float64)
    mean_up = -T_world_camera[:, :3, 1].astype(np.float64).mean(axis=0)
    mean_up /= max(float(np.linalg.norm(mean_up)), 1e-12)
    spread = right.T @ right / len(right) + 0.05 * (np.eye(3) - np.outer(mean_up, mean_up))
    up = np.linalg.eigh(spread)[1][:, 0]
    return up if up @ mean_up >= 0 else -up


def estimate_alignment(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"] | None = None,
    up_hint: Float[np.ndarray, "3"] | None = None,
) -> Alignment:
    """Find the gravity- and wall-aligned frame of a scene.

    1. Up: the direction within 35 degrees of the hint that most normals share (floor, tables and ceiling all
       vote), refined by fitting one normal to all the horizontal planes together by least squares.
    2. Yaw: the direction, modulo 90 degrees, that most horizontal normals share, refined on the walls
       likewise.
    3. Height: the lowest horizontal plane with a tenth of the strongest one's points is the floor; where more
       than 5 % of the points lie below it (a floor that was never seen), the 0.5th percentile of heights is.

    The same input gives the same answer: sampling is by fixed stride.

    Args:
        points: [n, 3] world, metres.
        normals: [n, 3] unit length, any sign. None: from nearest points, slower and rougher.
        up_hint: [3] roughly up, see `up_from_cameras`. None: the world's z axis.

    Raises:
        ValueError: fewer than 100 points, NaN or inf, or hardly any surface that is horizontal by the hint.
    """
    points, normals = _prepare(points, normals)
    hint = np.array([0.0, 0.0, 1.0]) if up_hint is None else np.asarray(up_hint, dtype=np.float64)
    if not np.isfinite(hint).all() or np.linalg.norm(hint) < 1e-9:
        raise ValueError(f"up_hint {hint} is not a direction")
    centre = np.median(points, axis=0)
    up = _find_up(points - centre, normals, hint / np.linalg.norm(hint))
    x_axis = _find_x(points - centre, normals, up)
    R = np.stack([x_axis, np.cross(up, x_axis), up])
    aligned, turned = points @ R.T, normals @ R.T
    low, high = np.quantile(aligned[:, :2], [0.01, 0.99], axis=0)
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = [*(-(low + high) / 2), -_floor_height(aligned, turned)]
    near = np.abs(turned) >= np.cos(np.radians(_AXIS_TOLERANCE))
    share, chance = float(near.any(axis=1).mean()), 3 * (1 - np.cos(np.radians(_AXIS_TOLERANCE)))
    return Alignment(
        T_aligned_world=T,
        confidence=float(np.clip((share - chance) / (1 - chance), 0.0, 1.0)),
        floor_inliers=float((np.abs(aligned[:, 2] + T[2, 3]) <= 0.03).mean()),
        horizontal_share=float(near[:, 2].mean()),
        wall_share=float(near[:, :2].any(axis=1).mean()),
    )


def _prepare(points: np.ndarray, normals: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Check, thin to a bounded number, and complete with normals; float64."""
    if len(points) < _MIN_POINTS:
        raise ValueError(f"{len(points)} points are too few to find planes; at least {_MIN_POINTS} are needed")
    if normals is not None and len(normals) != len(points):
        raise ValueError(f"{len(points)} points but {len(normals)} normals; one normal per point is needed")
    stride = -(-len(points) // (_MAX_POINTS if normals is not None else _MAX_POINTS // 4))
    points = points[::stride].astype(np.float64)
    if not np.isfinite(points).all() or (normals is not None and not np.isfinite(normals).all()):
        raise ValueError("points or normals hold NaN or inf; drop invalid points first")
    if normals is None:
        return points, estimate_cloud_normals(points)
    normals = normals[::stride].astype(np.float64)
    length = np.linalg.norm(normals, axis=1)
    if np.abs(length - 1).max() > 0.01:
        raise ValueError("normals are not of unit length; drop invalid ones (zeros) together with their points")
    return points, normals / length[:, None]


def _cap_directions(axis: np.ndarray, degrees: float, spacing: float) -> np.ndarray:
    """Directions spread evenly (a Fibonacci spiral) over the cap around an axis."""
    lowest = np.cos(np.radians(degrees))
    count = int(np.ceil(2 * np.pi * (1 - lowest) / np.radians(spacing) ** 2))
    z = 1 - (1 - lowest) * (np.arange(count) + 0.5) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    around = np.linalg.svd(axis[None])[2][1:]
    ring = np.sqrt(1 - z**2)[:, None] * (np.cos(turn)[:, None] * around[0] + np.sin(turn)[:, None] * around[1])
    return z[:, None] * axis + ring


def _find_up(points: np.ndarray, normals: np.ndarray, hint: np.ndarray) -> np.ndarray:
    """The most shared normal direction near the hint, refined on the planes that have it."""
    sample = normals[:: -(-len(normals) // 20_000)].astype(np.float32)
    candidates = _cap_directions(hint, HINT_CONE, spacing=2.0).astype(np.float32)
    votes = (np.abs(sample @ candidates.T) > np.cos(np.radians(4.0))).sum(axis=0)
    up = candidates[np.argmax(votes)].astype(np.float64)
    for degrees in (8.0, 5.0, 5.0):
        near = normals[np.abs(normals @ up) > np.cos(np.radians(degrees))]
        if len(near) < max(20, _MIN_SHARE * len(normals)):
            raise ValueError(
                f"no horizontal surface within {HINT_CONE:g} degrees of the up hint {np.round(hint, 2)}: "
                f"only {len(near)} of {len(normals)} normals agree; pass a better up_hint or the alignment"
            )
        up = _towards(np.linalg.eigh(near.T @ near)[1][:, -1], up)
    near_up = np.abs(normals @ up) > np.cos(np.radians(_AXIS_TOLERANCE))
    return _refine([points[near_up]], up)


def _find_x(points: np.ndarray, normals: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The horizontal axis along which walls face, of the four the nearest to the world's x axis."""
    world = np.eye(3)
    start = world[0] if abs(up[0]) < 0.9 else world[1]
    u = start - (start @ up) * up
    u /= np.linalg.norm(u)
    basis = np.stack([u, np.cross(up, u)])
    upright = np.abs(normals @ up) < np.sin(np.radians(_AXIS_TOLERANCE))
    if not upright.any():
        return u
    flat, around = points[upright] @ basis.T, normals[upright] @ basis.T
    angle = np.arctan2(around[:, 1], around[:, 0])
    votes = np.bincount((np.degrees(angle) % 90).astype(np.int64) % 90, minlength=90)
    smooth = sum(np.roll(votes, shift) for shift in (-2, -1, 0, 1, 2))
    yaw = np.radians(float(np.argmax(smooth)) + 0.5)
    quarter = np.pi / 2
    for degrees in (8.0, 5.0, 5.0):
        off = (angle - yaw + quarter / 2) % quarter - quarter / 2
        yaw += float(off[np.abs(off) < np.radians(degrees)].mean())
    direction = np.array([np.cos(yaw), np.sin(yaw)])
    off = (angle - yaw + quarter / 2) % quarter - quarter / 2
    along_x = np.abs(around @ direction) > np.cos(np.radians(45))
    wall = np.abs(off) < np.radians(_AXIS_TOLERANCE)
    # Walls along the other axis tell the same yaw once they are turned by a quarter.
    turned = np.stack([flat[:, 1], -flat[:, 0]], axis=1)
    direction = _refine([flat[wall & along_x], turned[wall & ~along_x]], direction)
    yaw = np.arctan2(direction[1], direction[0])
    yaw = (yaw + quarter / 2) % quarter - quarter / 2
    return np.cos(yaw) * basis[0] + np.sin(yaw) * basis[1]


def _towards(direction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return direction if direction @ reference >= 0 else -direction


def _peaks(offsets: np.ndarray, count: int = 6, min_share: float = 0.02) -> list[float]:
    """Centres of the strongest planes along a direction, at least 10 cm apart."""
    low = float(offsets.min())
    histogram = np.bincount(((offsets - low) / _BIN).astype(np.int64))
    smooth = np.convolve(histogram, np.ones(3), mode="same")
    found: list[float] = []
    for _ in range(count):
        best = int(np.argmax(smooth))
        if smooth[best] < max(10, min_share * len(offsets)):
            break
        found.append(low + (best + 0.5) * _BIN)
        smooth[max(best - 5, 0) : best + 6] = 0
    return found


def _refine(families: list[np.ndarray], direction: np.ndarray) -> np.ndarray:
    """Fit one normal to parallel planes (3-D) or lines (2-D), each with its own offset, by least squares.

    Returns the direction as it was where there are no planes, or where the fit leaves it by more than 5
    degrees.
    """
    refined = direction
    for band in (0.06, 0.04, 0.03, 0.03):
        scatter = np.zeros((len(direction), len(direction)))
        for points in families:
            if not len(points):
                continue
            offsets = points @ refined
            for peak in _peaks(offsets):
                inliers = points[np.abs(offsets - peak) < band]
                inliers = inliers - inliers.mean(axis=0)
                scatter += inliers.T @ inliers
        if not scatter.any():
            return direction
        refined = _towards(np.linalg.eigh(scatter)[1][:, 0], refined)
    return refined if refined @ direction > np.cos(np.radians(5.0)) else direction


def _floor_height(aligned: np.ndarray, normals: np.ndarray) -> float:
    """Height of the floor plane; see `estimate_alignment`, step 3."""
    heights = aligned[:, 2][np.abs(normals[:, 2]) > np.cos(np.radians(_AXIS_TOLERANCE))]
    low = float(heights.min())
    smooth = np.convolve(np.bincount(((heights - low) / _BIN).astype(np.int64)), np.ones(3), mode="same")
    lowest = low + (float(np.flatnonzero(smooth >= 0.1 * smooth.max())[0]) + 0.5) * _BIN
    # The first strong bin is the plane's lower flank: climb to its middle.
    for _ in range(5):
        lowest = float(np.median(heights[np.abs(heights - lowest) < 0.04]))
    if (aligned[:, 2] < lowest - 0.15).mean() > 0.05:
        return float(np.quantile(aligned[:, 2], 0.005))
    return lowest
