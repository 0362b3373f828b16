from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from stereopsis.geometry import (
    Intrinsics,
    estimate_alignment,
    estimate_cloud_normals,
    estimate_normals,
    transform,
    unproject,
    up_from_cameras,
)


def axis_share(normals):
    """Share of unit normals that lie within 5 degrees of any of the axes +-x, +-y, +-z."""
    return (np.abs(normals).max(axis=1) >= np.cos(np.radians(5.0))).mean()


KITCHEN = Path(__file__).parents[3] / "shared" / "data" / "seven_scenes_redkitchen"


def box_room(rng, noise=0.005, tilt=3.0):
    """Points and normals: floor, three walls, a turned table and cupboard, clutter; z up, floor at 0."""
    points, normals = [], []

    def sheet(low, high, normal, count):
        points.append(rng.uniform(low, high, (count, 3)))
        normals.append(np.tile(np.asarray(normal, dtype=float), (count, 1)))

    sheet([-2.5, -2, 0], [2.5, 2, 0], [0, 0, 1], 4000)
    sheet([-2.5, -2, 0], [-2.5, 2, 2.5], [1, 0, 0], 2000)
    sheet([2.5, -2, 0], [2.5, 2, 2.5], [-1, 0, 0], 1000)
    sheet([-2.5, -2, 0], [2.5, -2, 2.5], [0, 1, 0], 2500)
    sheet([-0.5, -0.4, 0.75], [0.7, 0.4, 0.75], [0, 0, 1], 2500)
    points[-1][:, :2] = points[-1][:, :2] @ Rotation.from_euler("z", 25, degrees=True).as_matrix()[:2, :2].T
    turn = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    front = rng.uniform([-0.5, 0, 0], [0.5, 0, 1.8], (800, 3))
    points.append(front @ turn.T + [1, 1, 0])
    normals.append(np.tile(turn @ [0, 1, 0], (800, 1)))
    points.append(rng.uniform([-2, -1.5, 0.1], [2, 1.5, 1.5], (1500, 3)))
    normals.append(Rotation.random(1500, random_state=int(rng.integers(2**31))).as_matrix()[:, 0])
    cloud = np.concatenate(points) + rng.normal(0, noise, (sum(map(len, points)), 3))
    around = np.concatenate(normals)
    around = Rotation.from_rotvec(np.radians(rng.normal(0, tilt, around.shape))).apply(around)
    return cloud, around * rng.choice([-1.0, 1.0], (len(around), 1))


def tilted_hint(rng, up, degrees):
    across = np.cross(up, rng.normal(size=3))
    return Rotation.from_rotvec(across / np.linalg.norm(across) * np.radians(degrees)).apply(up)


def axis_errors(R):
    """Degrees between each aligned axis, z strictly and x modulo quarter turns, and the true frame."""
    z = np.degrees(np.arccos(np.clip(R[2, 2], -1, 1)))
    yaw = np.degrees(np.arctan2(R[1, 0], R[0, 0])) % 90
    return z, min(yaw, 90 - yaw)


@pytest.mark.parametrize("seed", range(10))
def test_turned_room_is_found_again(seed):
    rng = np.random.default_rng(seed)
    cloud, normals = box_room(rng)
    R, t = Rotation.random(random_state=seed).as_matrix(), rng.uniform(-3, 3, 3)
    hint = tilted_hint(rng, R[:, 2], rng.uniform(0, 30))
    found = estimate_alignment(cloud @ R.T + t, normals @ R.T, hint)
    T = found.T_aligned_world
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    up_error, yaw_error = axis_errors(T[:3, :3] @ R)
    assert up_error < 0.5
    assert yaw_error < 0.5
    back = transform(T, cloud @ R.T + t)
    assert np.abs(back[:, 2] - cloud[:, 2]).max() < 0.06  # 3.2 m * sin 0.5 deg + 3 cm; the floor is at zero
    assert np.abs(np.median(back[:4000, 2])) < 0.01
    assert np.abs(np.quantile(back[:, :2], [0.01, 0.99], axis=0).sum(axis=0)).max() < 1e-6 + 0.02
    assert found.confidence > 0.6
    assert found.floor_inliers == pytest.approx(4000 / len(cloud), abs=0.06)


def test_alignment_does_not_depend_on_the_frame_it_starts_from():
    cloud, normals = box_room(np.random.default_rng(0))
    upright = estimate_alignment(cloud, normals)
    R = Rotation.from_euler("xyz", [10, -15, 20], degrees=True).as_matrix()
    turned = estimate_alignment(cloud @ R.T + [4, 5, 6], normals @ R.T, R[:, 2])
    there = transform(turned.T_aligned_world, cloud @ R.T + [4, 5, 6])
    np.testing.assert_allclose(there, transform(upright.T_aligned_world, cloud), atol=0.01)
    np.testing.assert_array_equal(upright.T_aligned_world, estimate_alignment(cloud, normals).T_aligned_world)


def test_planes_correct_normals_that_lean():
    """Least squares on the planes' points takes out a lean that all the normals share."""
    cloud, normals = box_room(np.random.default_rng(4))
    lean = Rotation.from_euler("xyz", [2, -1.5, 2], degrees=True)
    up_error, yaw_error = axis_errors(estimate_alignment(cloud, lean.apply(normals)).T_aligned_world[:3, :3])
    assert up_error < 0.1
    assert yaw_error < 0.3


def test_without_normals_and_with_the_z_axis_as_hint():
    rng = np.random.default_rng(2)
    cloud, _ = box_room(rng, noise=0.002)
    R = Rotation.from_euler("xyz", [12, -9, 31], degrees=True).as_matrix()
    found = estimate_alignment(cloud @ R.T)
    up_error, yaw_error = axis_errors(found.T_aligned_world[:3, :3] @ R)
    assert up_error < 1.0
    assert yaw_error < 1.0


def test_confidence_is_the_share_of_order():
    rng = np.random.default_rng(0)
    normals = Rotation.random(20_000, random_state=0).as_matrix()[:, 0]
    cloud = rng.uniform(-1, 1, (20_000, 3))
    with pytest.raises(ValueError, match="no horizontal surface"):
        estimate_alignment(cloud, normals)
    for share in (0.1, 0.5, 0.9):
        ordered = int(share * 20_000)
        normals[:ordered], cloud[:ordered, 2] = [0, 0, 1], 0
        assert estimate_alignment(cloud, normals).confidence == pytest.approx(share, abs=0.01)


def test_a_floor_that_was_never_seen():
    """Of a table and what hangs below it, the lowest things are at zero, not the table."""
    rng = np.random.default_rng(0)
    table = rng.uniform([-1, -1, 0.7], [1, 1, 0.7], (5000, 3))
    legs = rng.uniform([-1, -1, 0.0], [1, 1, 0.7], (1000, 3))
    normals = np.concatenate([np.tile([0.0, 0, 1], (5000, 1)), np.tile([1.0, 0, 0], (1000, 1))])
    found = estimate_alignment(np.concatenate([table, legs]), normals)
    assert transform(found.T_aligned_world, table)[:, 2].mean() == pytest.approx(0.7, abs=0.03)


def test_refusals():
    cloud, normals = box_room(np.random.default_rng(0))
    with pytest.raises(ValueError, match="too few"):
        estimate_alignment(cloud[:20], normals[:20])
    with pytest.raises(ValueError, match="NaN"):
        estimate_alignment(np.full_like(cloud, np.nan), normals)
    with pytest.raises(ValueError, match="unit length"):
        estimate_alignment(cloud, normals * 0)
    with pytest.raises(ValueError, match="not a direction"):
        estimate_alignment(cloud, normals, np.zeros(3))
    with pytest.raises(ValueError, match="no horizontal surface within 35 degrees"):
        estimate_alignment(cloud[4000:6000], np.tile([1.0, 0, 0], (2000, 1)), np.array([0.0, 0, 1]))
    with pytest.raises(ValueError, match="zero poses"):
        up_from_cameras(np.zeros((0, 4, 4)))


def looking(yaw, pitch):
    """A camera's pose, z up: yaw about the vertical, pitch below the horizon, no roll."""
    yaw, pitch = np.radians([yaw, pitch])
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    return T


def test_up_from_pitched_cameras():
    wide = np.stack([looking(yaw, 35) for yaw in (0, 40, 80, 120)])
    assert np.degrees(np.arccos(up_from_cameras(wide)[2])) < 3.0
    # All looking one way: nothing but their own up is left, 35 degrees off.
    narrow = np.stack([looking(0, 35)] * 3)
    np.testing.assert_allclose(up_from_cameras(narrow), -narrow[0, :3, 1], atol=1e-9)


def slanted_plane(normal, offset, K):
    """Exact z-depth of the plane normal . p = offset."""
    u = (np.arange(K.width) + 0.5 - K.cx) / K.fx
    v = (np.arange(K.height) + 0.5 - K.cy) / K.fy
    return offset / (normal[0] * u[None] + normal[1] * v[:, None] + normal[2])


def test_normals_of_a_plane_are_exact_and_face_the_camera():
    K = Intrinsics(fx=60.0, fy=60.0, cx=32.0, cy=24.0, width=64, height=48)
    towards = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])
    depth = slanted_plane(-towards, 2.0, K)
    depth[20, 30] = 0.0
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=1).as_matrix(), [50, -20, 9]
    cloud = unproject(depth, K, T)
    found = estimate_normals(cloud.points, cloud.valid, radius=4)
    assert found.valid.mean() > 0.5
    assert not found.valid[17:24, 27:34].any()
    expected = T[:3, :3] @ towards
    # Smoothing over perspective keeps the plane, so only rounding is left.
    np.testing.assert_allclose(found.normals[found.valid], np.tile(expected, (found.valid.sum(), 1)), atol=1e-9)
    np.testing.assert_array_equal(found.normals[~found.valid], 0.0)


def test_normals_stay_away_from_depth_edges():
    K = Intrinsics(fx=60.0, fy=60.0, cx=32.0, cy=24.0, width=64, height=48)
    depth = np.full((48, 64), 3.0)
    depth[:, 32:] = 1.0
    cloud = unproject(depth, K, np.eye(4))
    found = estimate_normals(cloud.points, cloud.valid, radius=4)
    assert found.valid.sum() > 500
    assert np.degrees(np.arccos(-found.normals[found.valid][:, 2])).max() < 1.0
    with pytest.raises(ValueError, match="radius"):
        estimate_normals(cloud.points, cloud.valid, radius=0)


def test_cloud_normals_of_a_plane():
    rng = np.random.default_rng(0)
    flat = np.concatenate([rng.random((200, 2)), np.zeros((200, 1))], axis=1)
    np.testing.assert_allclose(np.abs(estimate_cloud_normals(flat)[:, 2]), 1.0, atol=1e-12)
    with pytest.raises(ValueError, match="cannot give patches"):
        estimate_cloud_normals(flat[:5])


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="the kitchen capture is not here")
def test_the_real_kitchen_is_turned_upright():
    K = Intrinsics(fx=585.0, fy=585.0, cx=320.0, cy=240.0, width=640, height=480).resized(320, 240)
    poses = sorted(KITCHEN.glob("*.pose.txt"))[::12]
    points, normals, T = [], [], []
    for path in poses:
        T.append(np.loadtxt(path))
        stored = np.array(Image.open(str(path).replace("pose.txt", "depth.png")))[::2, ::2]
        depth = np.where(stored == 65535, 0, stored).astype(np.float32) / 1000
        cloud = unproject(depth, K, T[-1])
        around = estimate_normals(cloud.points, cloud.valid, radius=4)
        points.append(cloud.points[around.valid])
        normals.append(around.normals[around.valid])
    cloud, around = np.concatenate(points), np.concatenate(normals)
    found = estimate_alignment(cloud, around, up_from_cameras(np.stack(T)))
    R = found.T_aligned_world[:3, :3]
    assert axis_share(around) < 0.1
    assert axis_share(around @ R.T) > 0.3
    aligned, turned = transform(found.T_aligned_world, cloud.astype(np.float64)), around @ R.T
    # The big table, 0.72 m high: its least-squares plane must be level.
    table = aligned[(turned[:, 2] > 0.98) & (np.abs(aligned[:, 2] - 0.72) < 0.04)]
    assert len(table) > 0.1 * len(aligned)
    tilt = np.linalg.eigh(np.cov(table.T))[1][:, 0]
    assert np.degrees(np.arccos(np.abs(tilt[2]))) < 1.0
    height = transform(found.T_aligned_world, np.stack(T)[:, :3, 3])[:, 2]
    assert (height > 1.0).all()
    assert (height < 1.9).all()
