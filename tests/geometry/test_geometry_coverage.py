"""Greedy coverage equals the plain algorithm on sets; voxels equal a loop over pixels; limits by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from stereopsis.geometry import CoverageOrder, Intrinsics, depth_voxels, greedy_coverage, unproject, voxels_of_keys


def plain_greedy(sets: list[set[int]]) -> tuple[list[int], list[int]]:
    """The textbook: intersect everything at every pick; the lowest index wins ties."""
    left, covered, order, gains = list(range(len(sets))), set(), [], []
    while left:
        best = max(left, key=lambda index: (len(sets[index] - covered), -index))
        order.append(best)
        gains.append(len(sets[best] - covered))
        covered |= sets[best]
        left.remove(best)
    return order, gains


def arrays(sets: list[set[int]]) -> list[np.ndarray]:
    return [np.array(sorted(each), dtype=np.int64) for each in sets]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 40), max_size=15), max_size=14),
    st.sampled_from([1, 2**20 + 7, 2**40 + 1, -3]),
)
def test_equals_greedy_on_sets(sets, spread):
    """Few elements and many sets: ties and empty sets abound. Spread keys take the sorting path."""
    sets = [{spread * element for element in each} for each in sets]
    found = greedy_coverage(arrays(sets))
    order, gains = plain_greedy(sets)
    assert found.order.tolist() == order
    assert found.gains.tolist() == gains
    assert found.total == len(set().union(*sets))
    if sets:
        short = greedy_coverage(arrays(sets), limit=2)
        assert short.order.tolist() == order[:2]
        assert short.total == found.total


def test_hand_picks_and_ties():
    # 3 has the most; then 0 and 2 both add two: the earlier; then 2 adds one; 1 adds nothing.
    sets = [{1, 2}, {1}, {2, 3}, {10, 11, 12}]
    found = greedy_coverage(arrays(sets))
    assert found.order.tolist() == [3, 0, 2, 1]
    assert found.gains.tolist() == [3, 2, 1, 0]
    assert found.total == 6
    equal = greedy_coverage([np.array([5, 6]), np.array([5, 6]), np.array([5, 6])])
    assert equal.order.tolist() == [0, 1, 2]
    assert equal.gains.tolist() == [2, 0, 0]


def test_empty_sets_come_last_and_nothing_at_all_is_fine():
    none = np.zeros(0, dtype=np.int64)
    assert greedy_coverage([none, np.array([7]), none]).order.tolist() == [1, 0, 2]
    found = greedy_coverage([none, none], limit=1)
    assert (found.order.tolist(), found.gains.tolist(), found.total) == ([0], [0], 0)
    assert greedy_coverage([]).first() == []


def test_stopping_ratios_by_hand():
    order = CoverageOrder(order=np.array([4, 0, 3, 1, 2]), gains=np.array([60, 30, 5, 5, 0]), total=100)
    assert order.first() == [4, 0, 3, 1, 2]
    assert order.first(2) == [4, 0]
    assert order.first(ratio=0.6) == [4]
    assert order.first(ratio=0.61) == [4, 0]
    assert order.first(ratio=0.9) == [4, 0]  # exactly 90 of 100
    assert order.first(ratio=0.95) == [4, 0, 3]
    assert order.first(ratio=1.0) == [4, 0, 3, 1]  # the last adds nothing
    assert order.first(2, ratio=0.95) == [4, 0]  # whichever comes first
    assert order.first(9, ratio=0.95) == [4, 0, 3]
    thirds = CoverageOrder(order=np.arange(2), gains=np.array([21, 9]), total=30)
    assert thirds.first(ratio=0.7) == [0]  # 0.7 * 30 is a little more than 21 in floating point


def test_refusals():
    order = CoverageOrder(order=np.array([0]), gains=np.array([1]), total=1)
    with pytest.raises(ValueError, match="views is 0"):
        order.first(0)
    for ratio in (0.0, 1.01, float("nan")):
        with pytest.raises(ValueError, match="ratio is"):
            order.first(ratio=ratio)
    with pytest.raises(ValueError, match="limit is 0"):
        greedy_coverage([np.array([1])], limit=0)
    with pytest.raises(ValueError, match="set 1 holds a number more than once"):
        greedy_coverage([np.array([1, 3]), np.array([3, 3])])


K = Intrinsics(fx=20.0, fy=24.0, cx=11.0, cy=8.5, width=21, height=16)


def depth_image(rng, far: float = 4.0) -> np.ndarray:
    depth = rng.uniform(0.3, far, (16, 21)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = 0.0
    depth[0, :3] = np.nan, np.inf, -1.0
    return depth


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.1, 0.37]), st.booleans())
def test_voxels_equal_a_loop_over_pixels(seed, size, stray):
    rng = np.random.default_rng(seed)
    depth = depth_image(rng)
    if stray:
        depth[5, 5] = 3000.0  # a box that large is not addressed directly
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    cloud = unproject(depth.astype(np.float64), K, T)
    slow = {tuple(int(v) for v in np.round(point / size)) for point in cloud.points[cloud.valid]}
    keys = depth_voxels(depth, K, T, size)
    assert {tuple(voxel) for voxel in voxels_of_keys(keys).tolist()} == slow
    assert (np.diff(keys) > 0).all(), "sorted, and each voxel once"


def test_no_valid_pixel_no_voxel():
    assert len(depth_voxels(np.zeros((16, 21), dtype=np.float32), K, np.eye(4))) == 0


def test_a_floor_at_zero_is_one_layer_whatever_the_noise():
    """Looking straight down from 2 m on a floor with 4 cm of noise: nearest multiples give one layer."""
    down = np.diag([1.0, -1.0, -1.0, 1.0])
    down[2, 3] = 2.0
    noise = np.random.default_rng(0).uniform(-0.04, 0.04, (16, 21))
    assert set(voxels_of_keys(depth_voxels(2.0 + noise, K, down))[:, 2].tolist()) == {0}


def test_depth_voxels_refuses():
    depth = np.ones((16, 21), dtype=np.float32)
    with pytest.raises(ValueError, match="voxel size is 0"):
        depth_voxels(depth, K, np.eye(4), 0.0)
    with pytest.raises(ValueError, match=r"\[16, 20\], expected"):
        depth_voxels(depth[:, :20], K, np.eye(4))
    with pytest.raises(ValueError, match="pose"):
        depth_voxels(depth, K, np.zeros((4, 4)))
    far = np.eye(4)
    far[0, 3] = 1e9
    with pytest.raises(ValueError, match="from the origin"):
        depth_voxels(depth, K, far)
