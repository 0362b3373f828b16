import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from stereopsis.geometry import (
    Intrinsics,
    camera_rays,
    check_pose,
    invert_pose,
    project,
    transform,
    unproject,
)

K = Intrinsics(fx=10.0, fy=20.0, cx=2.0, cy=1.5, width=4, height=3)


def random_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    T[:3, 3] = rng.uniform(-5, 5, 3)
    return T


def test_unproject_hand_values():
    depth = np.full((3, 4), 2.0)
    identity = unproject(depth, K, np.eye(4))
    # Pixel (column 0, row 0) has its centre at (0.5, 0.5): x = (0.5 - 2) / 10 * 2, y = (0.5 - 1.5) / 20 * 2.
    np.testing.assert_allclose(identity.points[0, 0], [-0.3, -0.1, 2.0])
    np.testing.assert_allclose(identity.points[2, 3], [0.3, 0.1, 2.0])
    # A camera at (1, 2, 3) that looks along world +x, z up: x_cam -> -y, y_cam -> -z, z_cam -> x.
    T = np.array([[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]], dtype=float)
    np.testing.assert_allclose(unproject(depth, K, T).points[0, 0], [3.0, 2.3, 3.1])


def test_project_hand_values():
    seen = project(np.array([[0.0, 0.0, 2.0], [1.0, 1.0, -4.0], [1.0, 0.0, 0.0]]), K, np.eye(4))
    np.testing.assert_allclose(seen.pixels[0], [2.0, 1.5])
    np.testing.assert_allclose(seen.pixels[1], [-0.5, -3.5])
    assert np.isnan(seen.pixels[2]).all()
    np.testing.assert_allclose(seen.depth, [2.0, -4.0, 0.0])


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.3, 3.0),
    st.floats(-40.0, 40.0),
    st.sampled_from([np.float32, np.float64]),
)
def test_round_trip(seed, focal, offset, dtype):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 12, 2))
    K = Intrinsics(fx=focal * 100, fy=focal * 90, cx=width / 2 + offset, cy=height / 2, width=width, height=height)
    depth = rng.uniform(0.2, 20.0, (height, width)).astype(dtype)
    T = random_pose(seed)
    cloud = unproject(depth, K, T)
    assert cloud.points.dtype == dtype
    assert cloud.valid.all()
    seen = project(cloud.points, K, T)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    tolerance = 1e-9 if dtype is np.float64 else 2e-2  # 300 px/m focal on 1e-6 m float32 steps, 0.2 m away
    np.testing.assert_allclose(seen.pixels, np.stack([u, v], -1), atol=tolerance)
    np.testing.assert_allclose(seen.depth, depth, atol=1e-9 if dtype is np.float64 else 1e-5)


def test_unproject_marks_what_has_no_depth():
    depth = np.array([[0.0, np.nan, np.inf, -1.0], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=np.float32)
    cloud = unproject(depth, K, random_pose(0))
    np.testing.assert_array_equal(cloud.valid, [[False] * 4, [True] * 4, [True] * 4])
    np.testing.assert_array_equal(cloud.points[0], np.zeros((4, 3)))


def test_unproject_refuses_millimetres_and_other_sizes():
    with pytest.raises((ValueError, TypeError), match=r"metres|type"):
        unproject(np.ones((3, 4), dtype=np.uint16), K, np.eye(4))
    with pytest.raises(ValueError, match="5 x 3 pixels, but the intrinsics are for 4 x 3"):
        unproject(np.ones((3, 5)), K, np.eye(4))


def test_rays_hit_the_unprojected_points():
    T = random_pose(3)
    depth = np.random.default_rng(0).uniform(1, 5, (3, 4))
    points = unproject(depth, K, T).points
    rays = camera_rays(K, T)
    np.testing.assert_allclose(rays.origin + rays.directions * depth[..., None], points, atol=1e-12)
    unit = camera_rays(K, T, unit=True).directions
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1.0)
    distance = np.linalg.norm(points - rays.origin, axis=-1, keepdims=True)
    np.testing.assert_allclose(rays.origin + unit * distance, points, atol=1e-12)


def test_resized_and_cropped_cameras_see_the_same_points():
    T = random_pose(1)
    K = Intrinsics(fx=585.0, fy=580.0, cx=321.0, cy=239.0, width=640, height=480)
    points = transform(T, np.random.default_rng(0).uniform([-1, -1, 1], [1, 1, 4], (20, 3)))
    full = project(points, K, T).pixels
    np.testing.assert_allclose(project(points, K.resized(160, 240), T).pixels, full * [0.25, 0.5])
    np.testing.assert_allclose(project(points, K.cropped(80, 30, 384, 384), T).pixels, full - [80, 30])


def test_transform_and_inverse():
    T = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], dtype=float)
    np.testing.assert_allclose(transform(T, np.array([[1.0, 0.0, 0.0]])), [[1.0, 3.0, 3.0]])
    noisy = random_pose(5)
    noisy[:3, :3] += 1e-4 * np.arange(9).reshape(3, 3)
    np.testing.assert_allclose(invert_pose(noisy) @ noisy, np.eye(4), atol=1e-14)
    assert transform(T, np.zeros((2, 5, 3), dtype=np.float32)).dtype == np.float32


def test_from_matrix():
    matrix = np.array([[585.0, 0, 320], [0, 580, 240], [0, 0, 1]])
    assert Intrinsics.from_matrix(matrix, 640, 480) == Intrinsics(
        fx=585.0, fy=580.0, cx=320.0, cy=240.0, width=640, height=480
    )
    np.testing.assert_array_equal(Intrinsics.from_matrix(matrix, 640, 480).matrix, matrix)
    padded = np.eye(4)
    padded[:3, :3] = matrix
    assert Intrinsics.from_matrix(padded, 640, 480) == Intrinsics.from_matrix(matrix, 640, 480)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"shape \(2, 2\)"),
        (np.full((3, 3), np.nan), "NaN"),
        (np.diag([-5.0, 5.0, 1.0]), "focal lengths must be positive"),
        (np.array([[5.0, 1.0, 0], [0, 5, 0], [0, 0, 1]]), "skew"),
    ],
)
def test_from_matrix_refuses(matrix, message):
    with pytest.raises(ValueError, match=message):
        Intrinsics.from_matrix(matrix, 4, 4)


def changed(row: int, column: int, value: float) -> np.ndarray:
    T = np.eye(4)
    T[row, column] = value
    return T


@pytest.mark.parametrize(
    ("T", "message"),
    [
        (np.eye(4)[:3], r"shape \(3, 4\), expected \(4, 4\)"),
        (changed(0, 3, np.nan), "holds NaN or inf"),
        (changed(1, 1, -np.inf), "holds NaN or inf"),
        (changed(3, 0, 0.1), "last row is not 0 0 0 1"),
        (changed(0, 0, 1.02), r"not orthonormal: \|R\^T R - I\| = 0.0404, tolerance 0.01"),
        (changed(0, 0, -1.0), "determinant -1: mirrored axes"),
        (np.zeros((4, 4)), "last row"),
        (np.full((4, 4), "a"), "expected numbers"),
    ],
)
def test_check_pose_refuses(T, message):
    with pytest.raises(ValueError, match="^frame 7: .*" + message):
        check_pose(T, "frame 7")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_check_pose_accepts_measured_rotations(seed):
    T = random_pose(seed)
    T[:3, :3] += np.random.default_rng(seed).uniform(-1e-3, 1e-3, (3, 3))
    check_pose(T)
    check_pose(T.astype(np.float32))


def test_nan_pose_is_refused_where_it_is_used():
    with pytest.raises(ValueError, match="NaN"):
        unproject(np.ones((3, 4)), K, changed(2, 2, np.nan))
    with pytest.raises(ValueError, match="NaN"):
        project(np.ones((2, 3)), K, changed(2, 2, np.nan))
