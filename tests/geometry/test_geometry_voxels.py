import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.geometry import voxel_groups, voxel_indices


def test_hand_values():
    points = np.array([[0.05, 0.15, -0.05], [0.0, -0.1001, 0.99], [0.0999, 0.1, 0.2]])
    np.testing.assert_array_equal(voxel_indices(points, 0.1), [[0, 1, -1], [0, -2, 9], [0, 1, 2]])
    assert voxel_indices(points, 0.1).dtype == np.int64


def test_unique_and_groups_hand_values():
    points = np.array([[[1.5, 0.0, 0.0], [-0.5, 0.0, 0.0]], [[1.9, 0.9, 0.9], [np.nan, 0.0, 0.0]]])
    valid = np.array([[True, True], [True, False]])
    found = voxel_groups(points, 1.0, valid)
    np.testing.assert_array_equal(found.groups, [[1, 0], [1, -1]])
    np.testing.assert_array_equal(found.voxels, [[-1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(found.sizes, [1, 2])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3.0))
def test_groups_agree_with_a_dictionary(seed, size):
    points = np.random.default_rng(seed).normal(scale=2.0, size=(60, 3))
    members: dict[tuple[int, ...], list[int]] = {}
    for number, index in enumerate(voxel_indices(points, size)):
        members.setdefault(tuple(int(i) for i in index), []).append(number)
    found = voxel_groups(points, size)
    assert [tuple(row) for row in found.voxels.tolist()] == sorted(members)
    for group, key in enumerate(sorted(members)):
        np.testing.assert_array_equal(np.flatnonzero(found.groups == group), members[key])
        assert found.sizes[group] == len(members[key])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-50, 50)] * 3))
def test_shift_by_whole_voxels_shifts_indices(seed, shift):
    # Sizes and shifts that are powers of two keep the arithmetic exact.
    points = np.random.default_rng(seed).integers(-4000, 4000, (40, 3)) / 1024
    moved = voxel_indices(points + 0.25 * np.array(shift), 0.25)
    np.testing.assert_array_equal(moved, voxel_indices(points, 0.25) + np.array(shift))


def test_no_points_and_bad_points():
    assert voxel_groups(np.zeros((0, 3)), 0.1).sizes.shape == (0,)
    with pytest.raises(ValueError, match="NaN"):
        voxel_indices(np.full((1, 3), np.nan), 0.1)
    with pytest.raises(ValueError, match="size is 0"):
        voxel_indices(np.zeros((1, 3)), 0.0)
    with pytest.raises(ValueError, match="supported"):
        voxel_groups(np.full((1, 3), 1e9), 0.1)
