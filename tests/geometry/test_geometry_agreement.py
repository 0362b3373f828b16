import numpy as np
import pytest

from stereopsis.geometry.agreement import SeenAgain, seen_again
from stereopsis.geometry.camera import Intrinsics

CAMERA = Intrinsics(fx=2.0, fy=2.0, cx=2.0, cy=2.0, width=4, height=4)


def _shift(x=0.0, y=0.0, z=0.0):
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def test_each_kind_of_point_by_hand():
    """A wall at 2 m. Points straight ahead at 2 m (there), 1 m (floating), 3 m (hidden); one beside, one behind."""
    depth = np.full((4, 4), 2.0, np.float32)
    points = np.array([[0, 0, 2.0], [0, 0, 1.0], [0, 0, 3.0], [9, 0, 2.0], [0, 0, -2.0]])
    found = seen_again(points, np.eye(4), depth, CAMERA)
    assert found == SeenAgain(points=5, compared=3, agreeing=1, floating=1)
    assert found.overlap == pytest.approx(3 / 5)
    assert found.agreement == pytest.approx(1 / 2)


def test_the_tolerance_is_relative_to_what_was_measured():
    depth = np.full((4, 4), 2.0, np.float32)
    points = np.array([[0, 0, 2.09], [0, 0, 1.91], [0, 0, 2.11], [0, 0, 1.89]])
    found = seen_again(points, np.eye(4), depth, CAMERA, tolerance=0.05)
    assert (found.agreeing, found.floating) == (2, 1)


def test_unmeasured_pixels_say_nothing():
    depth = np.zeros((4, 4), np.float32)
    found = seen_again(np.array([[0, 0, 2.0]]), np.eye(4), depth, CAMERA)
    assert found.compared == 0
    assert found.agreement is None


def test_the_other_camera_is_moved():
    """The other camera stands 1 m further on: what is at 3 m here is at 2 m there; one pixel left is u - 1."""
    depth = np.zeros((4, 4), np.float32)
    depth[2, 0] = 2.0
    point = np.array([[-1.2, 0.1, 3.0]])  # u = 2 * -1.2 / 2 + 2 = 0.8 there, 1.2 here
    assert seen_again(point, _shift(z=-1), depth, CAMERA).agreeing == 1
    assert seen_again(point, np.eye(4), depth, CAMERA).compared == 0


def test_hiding_is_no_excuse_for_most():
    assert SeenAgain(points=10, compared=10, agreeing=3, floating=1).agreement == pytest.approx(3 / 10)
    assert SeenAgain(points=10, compared=10, agreeing=6, floating=1).agreement == pytest.approx(6 / 7)
    assert (SeenAgain(points=1, compared=1) + SeenAgain(points=2, agreeing=0)).points == 3
