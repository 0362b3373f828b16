import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.geometry import (
    box_corners,
    box_edges,
    box_from_points,
    box_volume,
    intersection_volume,
    iou,
)

UNIT = np.array([[0.0, 0, 0, 1, 1, 1]])
seeds = st.integers(0, 2**32 - 1)


def points_in_box(points, box):
    """Which points lie in the box; its faces belong to it."""
    return np.all(np.abs(points - box[:3]) <= box[3:] / 2, axis=-1)


def random_boxes(rng, count):
    return np.concatenate([rng.uniform(-1, 1, (count, 3)), rng.uniform(0.1, 2.0, (count, 3))], axis=1)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], 1.0),
        ([0.5, 0, 0, 1, 1, 1], 1 / 3),  # shared 1/2 of 3/2
        ([0.5, 0.5, 0.5, 1, 1, 1], 1 / 15),  # shared 1/8 of 15/8
        ([0, 0, 0, 0.5, 0.5, 0.5], 1 / 8),  # inside
        ([0.2, 0, 0, 0.5, 2, 2], 0.5 / 2.5),  # through
        ([1, 0, 0, 1, 1, 1], 0.0),  # touching
        ([5, 0, 0, 1, 1, 1], 0.0),
        ([0, 0, 0, 0, 1, 1], 0.0),  # no volume
    ],
)
def test_iou_hand_values(other, expected):
    other = np.array([other], dtype=float)
    assert iou(UNIT, other)[0, 0] == pytest.approx(expected, abs=1e-15)
    assert iou(other, UNIT)[0, 0] == pytest.approx(expected, abs=1e-15)


def test_flat_box_has_no_iou_with_itself():
    flat = np.array([[0.0, 0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(iou(flat, flat), [[0.0]])


def test_iou_is_pairwise():
    boxes = random_boxes(np.random.default_rng(0), 5)
    table = iou(boxes[:2], boxes)
    assert table.shape == (2, 5)
    for i in range(2):
        for j in range(5):
            assert table[i, j] == iou(boxes[i : i + 1], boxes[j : j + 1])[0, 0]
    assert iou(boxes[:0], boxes).shape == (0, 5)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(-100, 100), st.floats(0.1, 10))
def test_iou_invariances(seed, shift, scale):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 4), random_boxes(rng, 3)
    base = iou(a, b)
    assert ((base >= 0) & (base <= 1)).all()
    np.testing.assert_array_equal(base.T, iou(b, a))
    np.testing.assert_array_equal(np.diag(iou(a, a)), 1.0)
    moved = np.array([shift, -2 * shift, 0.3 * shift, 0, 0, 0])
    np.testing.assert_allclose(iou(a + moved, b + moved), base, atol=1e-11)
    np.testing.assert_allclose(iou(a * scale, b * scale), base, atol=1e-11)
    swapped = [1, 0, 2, 4, 3, 5]
    np.testing.assert_allclose(iou(a[:, swapped], b[:, swapped]), base, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_iou_agrees_with_counting_cells(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 6, (2, 3))
    high = low + rng.integers(1, 6, (2, 3))
    boxes = np.concatenate([(low + high) / 2, high - low], axis=1).astype(float)
    centres = np.stack(np.meshgrid(*[np.arange(12) + 0.5] * 3, indexing="ij"), -1)
    first, second = (points_in_box(centres, box) for box in boxes)
    counted = (first & second).sum() / (first | second).sum()
    assert iou(boxes[:1], boxes[1:])[0, 0] == pytest.approx(counted, abs=1e-12)
    assert intersection_volume(boxes[:1], boxes[1:])[0, 0] == (first & second).sum()
    np.testing.assert_allclose(box_volume(boxes), [first.sum(), second.sum()])


def test_corners_and_edges():
    box = np.array([1.0, 2, 3, 2, 4, 6])
    corners = box_corners(box)
    np.testing.assert_array_equal(corners[0], [0, 0, 0])
    np.testing.assert_array_equal(corners[4], [2, 0, 0])
    np.testing.assert_array_equal(corners[2], [0, 4, 0])
    np.testing.assert_array_equal(corners[1], [0, 0, 6])
    edges = box_edges()
    assert len({frozenset(pair) for pair in edges.tolist()}) == 12
    difference = np.abs(corners[edges[:, 0]] - corners[edges[:, 1]])
    assert sorted(difference.sum(axis=1).tolist()) == [2.0] * 4 + [4.0] * 4 + [6.0] * 4
    assert ((difference > 0).sum(axis=1) == 1).all()
    assert box_corners(np.zeros((2, 3, 6))).shape == (2, 3, 8, 3)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_boxes_around_points_and_boxes(seed):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 3)
    np.testing.assert_allclose(box_from_points(box_corners(boxes[0])), boxes[0], atol=1e-14)
    around = box_from_points(box_corners(boxes))
    padded = around + np.array([0, 0, 0, 1e-9, 1e-9, 1e-9])
    assert points_in_box(box_corners(boxes), padded).all()
    for axis in range(3):  # and no smaller: each face touches a corner
        assert (around[3:] <= np.ptp(box_corners(boxes).reshape(-1, 3), axis=0) + 1e-12)[axis]


def test_refusals():
    with pytest.raises(ValueError, match="negative"):
        iou(UNIT, np.array([[0.0, 0, 0, -1, 1, 1]]))
    with pytest.raises(ValueError, match="first boxes: holds NaN"):
        iou(UNIT * np.nan, UNIT)
    with pytest.raises(ValueError, match="zero points"):
        box_from_points(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="NaN"):
        box_from_points(np.full((1, 3), np.nan))
