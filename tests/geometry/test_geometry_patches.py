import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from stereopsis.geometry import Intrinsics, depth_patch_coordinates, discretise, patch_coordinates, unproject


def slow_patches(points, valid, rows, cols, fraction, top, left):
    cell_height, cell_width = valid.shape[0] // rows, valid.shape[1] // cols
    coordinates, seen = np.zeros((rows, cols, 3)), np.zeros((rows, cols), dtype=bool)
    for row in range(rows):
        for col in range(cols):
            inside = []
            for y in range(top + row * cell_height, top + (row + 1) * cell_height):
                for x in range(left + col * cell_width, left + (col + 1) * cell_width):
                    if valid[y, x]:
                        inside.append(points[y, x])
            if inside and len(inside) >= fraction * cell_height * cell_width:
                coordinates[row, col], seen[row, col] = np.mean(inside, axis=0), True
    return coordinates, seen


def test_hand_values():
    points = np.zeros((2, 4, 3))
    points[..., 0] = [[1, 3, 10, 20], [5, 7, 30, 99]]
    valid = np.array([[True, True, True, True], [True, True, True, False]])
    patches = patch_coordinates(points, valid, 1, 2)
    np.testing.assert_allclose(patches.coordinates[0, :, 0], [4.0, 20.0])  # 99 is left out
    strict = patch_coordinates(points, valid, 1, 2, min_valid_fraction=0.76)
    np.testing.assert_array_equal(strict.valid, [[True, False]])
    np.testing.assert_array_equal(strict.coordinates[0, 1], 0.0)
    assert patch_coordinates(points, valid, 1, 2, min_valid_fraction=0.75).valid.all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(["trailing", "centred"]))
def test_equals_slow_loop(seed, fraction, crop):
    rng = np.random.default_rng(seed)
    rows, cols = (int(n) for n in rng.integers(1, 5, 2))
    height, width = rows * int(rng.integers(1, 4)) + 1, cols * int(rng.integers(1, 4)) + 3
    points, valid = rng.normal(size=(height, width, 3)), rng.random((height, width)) < rng.random()
    points[~valid] = np.nan  # what is invalid must not matter
    top, left = (height % rows // 2, width % cols // 2) if crop == "centred" else (0, 0)
    patches = patch_coordinates(points, valid, rows, cols, fraction, crop=crop)
    coordinates, seen = slow_patches(points, valid, rows, cols, fraction, top, left)
    np.testing.assert_array_equal(patches.valid, seen)
    np.testing.assert_allclose(patches.coordinates, coordinates, atol=1e-12)


def posed_depth(rng, height, width, holes=0.3):
    """A random depth image with holes of every kind, its camera and a pose."""
    depth = rng.uniform(0.5, 4.0, (height, width))
    depth[rng.random(depth.shape) < holes] = 0.0
    depth[0, : min(3, width)] = [np.nan, np.inf, -2.0][:width]
    K = Intrinsics(fx=1.3 * width, fy=1.2 * width, cx=0.47 * width, cy=0.55 * height, width=width, height=height)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    return depth, K, T


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(["trailing", "centred"]))
def test_from_depth_equals_from_points(seed, fraction, crop):
    rng = np.random.default_rng(seed)
    rows, cols = (int(n) for n in rng.integers(1, 5, 2))
    height, width = rows * int(rng.integers(1, 6)) + 1, cols * int(rng.integers(1, 6)) + 3
    depth, K, T = posed_depth(rng, height, width, holes=rng.random())
    cloud = unproject(depth, K, T)
    slow = patch_coordinates(cloud.points, cloud.valid, rows, cols, fraction, crop=crop)
    fast = depth_patch_coordinates(depth, K, T, rows, cols, fraction, crop=crop)
    np.testing.assert_array_equal(fast.valid, slow.valid)
    np.testing.assert_allclose(fast.coordinates, slow.coordinates, atol=1e-12)
    single = depth_patch_coordinates(depth.astype(np.float32), K, T, rows, cols, fraction, crop=crop)
    assert single.coordinates.dtype == np.float32
    np.testing.assert_allclose(single.coordinates, slow.coordinates, atol=2e-6)


def test_from_depth_holes_as_released_are_averaged_in_at_the_camera():
    rng = np.random.default_rng(1)
    depth, K, T = posed_depth(rng, 20, 30)
    depth[:10, :10] = 0.0  # a cell without any depth lies at the camera itself
    fast = depth_patch_coordinates(depth, K, T, 2, 3, holes="camera")
    cloud = unproject(depth, K, T)
    everything = np.where(cloud.valid[..., None], cloud.points, T[:3, 3])
    slow = patch_coordinates(everything, np.ones_like(cloud.valid), 2, 3)
    np.testing.assert_allclose(fast.coordinates, slow.coordinates, atol=1e-12)
    np.testing.assert_allclose(fast.coordinates[0, 0], T[:3, 3], atol=1e-12)
    assert fast.valid.all()


def test_from_depth_refuses():
    depth, K, T = posed_depth(np.random.default_rng(0), 8, 8)
    with pytest.raises(ValueError, match=r"\[7, 8\], expected floating-point metres \[8, 8\]"):
        depth_patch_coordinates(depth[1:], K, T, 2, 2)
    with pytest.raises(ValueError, match="pose"):
        depth_patch_coordinates(depth, K, 2 * T, 2, 2)
    with pytest.raises(ValueError, match="9 x 2 cells"):
        depth_patch_coordinates(depth, K, T, 9, 2)


def test_384_pixels_become_14_cells_of_27():
    points = np.zeros((384, 384, 3), dtype=np.float32)
    points[..., 0], points[..., 1] = np.arange(384), np.arange(384)[:, None]
    valid = np.ones((384, 384), dtype=bool)
    centres = 13.0 + 27 * np.arange(14)
    trailing = patch_coordinates(points, valid, 14, 14).coordinates
    np.testing.assert_allclose(trailing[0, :, 0], centres)
    np.testing.assert_allclose(trailing[:, 0, 1], centres)
    centred = patch_coordinates(points, valid, 14, 14, crop="centred").coordinates
    np.testing.assert_allclose(centred[0, :, 0], centres + 3)
    assert trailing.dtype == np.float32


def test_refuses_impossible_grids():
    points, valid = np.zeros((4, 4, 3)), np.ones((4, 4), dtype=bool)
    with pytest.raises(ValueError, match="5 x 2 cells over an image of 4 x 4"):
        patch_coordinates(points, valid, 5, 2)
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        patch_coordinates(points, valid, 2, 2, min_valid_fraction=1.1)


def test_discretise_hand_values():
    coordinates = np.array([[-15.0, 0.0, 0.0], [15.0, 0.04, 0.06], [-99.0, 99.0, 99.0], [-14.85, -14.75, -4.65]])
    expected = [[0, 150, 50], [300, 150, 51], [0, 300, 100], [2, 2, 4]]  # 1.5 -> 2, 2.5 -> 2, 3.5 -> 4
    np.testing.assert_array_equal(discretise(coordinates), expected)
    np.testing.assert_array_equal(
        discretise(np.array([[0.5, 1.0, 1.5]]), minimum=(0.0, 0.0, 0.0), maximum=(1.0, 1.0, 1.0), step=0.25),
        [[2, 4, 4]],
    )


def test_discretise_refuses():
    with pytest.raises(ValueError, match="NaN"):
        discretise(np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="step > 0"):
        discretise(np.zeros((1, 3)), step=0.0)
    with pytest.raises(ValueError, match="minimum < maximum"):
        discretise(np.zeros((1, 3)), minimum=(0.0, 0.0, 0.0), maximum=(1.0, 1.0, 0.0))
