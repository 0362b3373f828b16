"""Boxes from bare points: hand-made rooms with known furniture."""

import json

import numpy as np
import pytest
import trimesh

from stereopsis.geometry import iou
from stereopsis.geometry.clusters import ClusterConfig, propose_boxes

STEP = 0.025


def surface(box, *, bottom=False) -> np.ndarray:
    """Points on the faces of a box [cx cy cz dx dy dz], 2.5 cm apart; the underside only if asked for."""
    centre, size = np.array(box[:3]), np.array(box[3:])
    parts = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        spans = [np.linspace(-size[a] / 2, size[a] / 2, max(2, round(size[a] / STEP) + 1)) for a in others]
        plane = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 2)
        for side in (-0.5, 0.5):
            if axis == 2 and side < 0 and not bottom:
                continue
            points = np.zeros((len(plane), 3))
            points[:, others], points[:, axis] = plane, side * size[axis]
            parts.append(points + centre)
    return np.concatenate(parts)


def shell(width=5.0, depth=4.0, height=2.5, *, walls=True, ceiling=True) -> np.ndarray:
    """The floor of a room centred at x = y = 0, and perhaps its walls and ceiling."""
    room = surface((0, 0, height / 2, width, depth, height), bottom=True)
    flat = np.isclose(room[:, 2], 0) | np.isclose(room[:, 2], height)
    return room[(walls | flat) & (ceiling | (room[:, 2] < height - 1e-6) | (walls & ~flat))]


CABINET = (-2.19, 0.5, 0.9, 0.6, 1.0, 1.8)  # stands against a wall
TABLE = (0.6, 0.3, 0.375, 1.2, 0.8, 0.75)
BOX_ON_TABLE = (0.8, 0.3, 0.9, 0.3, 0.3, 0.3)
CHAIR = (1.6, -1.2, 0.45, 0.5, 0.5, 0.9)


def best(boxes, truth) -> float:
    return float(iou(boxes, np.array([truth], dtype=np.float64)).max())


@pytest.mark.parametrize("noise", [0.0, 0.008])
def test_furniture_of_a_hand_made_room_is_found(noise):
    points = np.concatenate([shell(), *(surface(box) for box in (CABINET, TABLE, BOX_ON_TABLE, CHAIR))])
    points = points + np.random.default_rng(0).normal(0, 1, points.shape) * noise
    found = propose_boxes(points)
    for truth in (CABINET, TABLE, CHAIR):
        assert best(found.boxes[:12], truth) > 0.75
    assert best(found.boxes, BOX_ON_TABLE) > 0.6
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_an_empty_room_has_nothing_in_it():
    assert len(propose_boxes(shell()).boxes) == 0
    assert len(propose_boxes(np.zeros((0, 3))).boxes) == 0
    assert len(propose_boxes(np.zeros((3, 3))).boxes) == 0


def test_without_walls_and_ceiling_nothing_else_is_needed():
    points = np.concatenate([shell(walls=False, ceiling=False), surface(TABLE), surface(CHAIR)])
    found = propose_boxes(points)
    assert best(found.boxes, TABLE) > 0.9
    assert best(found.boxes, CHAIR) > 0.9


def test_a_box_reaches_the_floor_and_the_wall_that_were_taken_away():
    found = propose_boxes(np.concatenate([shell(), surface(CABINET)])).boxes
    (cabinet,) = found[iou(found, np.array([CABINET]))[:, 0] > 0.7][:1]
    low = cabinet[:3] - cabinet[3:] / 2
    assert low[2] == pytest.approx(0.0, abs=0.02)
    assert low[0] == pytest.approx(-2.5, abs=0.03)


def test_touching_furniture_of_other_heights_is_parted():
    low, high = (0.0, 0.0, 0.4, 1.0, 0.8, 0.8), (0.85, 0.0, 0.8, 0.7, 0.8, 1.6)
    found = propose_boxes(np.concatenate([shell(), surface(low), surface(high)]))
    assert best(found.boxes, low) > 0.7
    assert best(found.boxes, high) > 0.7


def test_the_same_wherever_the_room_stands():
    points = np.concatenate([shell(), surface(TABLE), surface(CHAIR)])
    moved = np.array([17.0, -8.0, 0.0])
    here, there = propose_boxes(points), propose_boxes(points + moved)
    np.testing.assert_allclose(there.boxes[:, :3], here.boxes[:, :3] + moved, atol=1e-6)
    np.testing.assert_allclose(there.scores, here.scores)


def test_small_and_huge_pieces_and_the_limit():
    speck = surface((1.0, 1.0, 1.2, 0.05, 0.05, 0.05), bottom=True)
    points = np.concatenate([shell(), speck, surface(TABLE)])
    assert best(propose_boxes(points).boxes, (1.0, 1.0, 1.2, 0.05, 0.05, 0.05)) < 0.1
    assert not (propose_boxes(points, ClusterConfig(max_side=1.0)).boxes[:, 3:] > 1.0).any()
    assert len(propose_boxes(points, ClusterConfig(max_proposals=1)).boxes) == 1
    boxes = propose_boxes(points, ClusterConfig(overlap=0.3)).boxes
    shared = iou(boxes, boxes) - np.eye(len(boxes))
    assert shared.max(initial=0.0) <= 0.3


def test_refusals():
    with pytest.raises(ValueError, match="NaN or inf"):
        propose_boxes(np.full((20, 3), np.nan))
    with pytest.raises(ValueError, match="make no sense"):
        propose_boxes(np.zeros((20, 3)), ClusterConfig(voxel=0.0))
    millimetres = np.random.default_rng(0).uniform(0, 5000, (1000, 3))
    with pytest.raises(ValueError, match="check their units"):
        propose_boxes(millimetres)


def test_furniture_of_a_real_room(shared_data):
    """ScanNet scene0000_00 from its mesh; the figures of docs/views_and_proposals.md, with a margin."""
    folder = shared_data / "scannet" / "scene0000_00"
    mesh = trimesh.load(folder / "scene0000_00_vh_clean_2.ply", process=False)
    T = np.loadtxt(folder / "axis_align_matrix.txt")
    found = propose_boxes(np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3])
    truth = np.array(json.loads((folder / "boxes_scannet18.json").read_text())["boxes_aligned_cxcyczdxdydz"])
    overlap = iou(truth, found.boxes).max(axis=1)
    assert (overlap >= 0.25).mean() > 0.6
    assert (overlap >= 0.5).mean() > 0.45
